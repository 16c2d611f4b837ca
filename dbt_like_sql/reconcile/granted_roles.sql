-- The listed roles that this sync may give.
-- grain: one row per person, role and school (none for a district admin)
-- rules: R5.8, R7.4
select
    listed.clever_id,
    listed.role,
    listed.school_id
from reconcile.listed_roles as listed
left join reconcile.school_standings as schools on listed.school_id = schools.school_id
left join reconcile.new_admins as new_admins on listed.clever_id = new_admins.clever_id and listed.role = 'district_admin'
where
    (listed.school_id is null or schools.standing = 'rostered')
    and not (
        new_admins.clever_id is not null
        and exists (select 1 from reconcile.holds as holds where holds.kind = 'new_admins')
    )
