-- The roles that Clever lists and this sync may give.
-- grain: one row per person, role and school (none for a district admin)
-- rules: R5.8, R6.3, R7.4
-- decides by: itself
select
    listed.clever_id,
    listed.role,
    listed.school_id
from reconcile.listed_roles as listed
left join reconcile.school_status as schools on listed.school_id = schools.school_id
left join reconcile.primary_schools as primary_schools on listed.clever_id = primary_schools.clever_id
where
    (listed.school_id is null or schools.status = 'rostered')
    -- A student whose primary school is held stays there, and gets no role at the next school of the list (R6.3).
    and (listed.role <> 'student' or :student_multi_school or listed.school_id = primary_schools.school_id)
    -- An active user whose new admin role is held gets no role: the present ones stay. A person who is not active yet gets all others.
    and not exists (
        select 1
        from reconcile.held_admins as held_admins
        where listed.clever_id = held_admins.clever_id and (held_admins.is_active or listed.role = held_admins.role)
    )
