-- The roles that Clever lists for people within the agreement, at rostered and quarantined schools.
-- grain: one row per person, role and school (none for a district admin)
-- rules: R5.8, R6.3, R6.4
-- decides by: itself
-- is_unchanged: the school is quarantined: a role there stays, but none is added or ended (R4.6)
with listed as (
    select clever_id, 'teacher' as role, unnest(teacher_schools) as school, cast(null as bigint) as position
    from staging.users
    where district_id = :district_id
    union
    select clever_id, 'school_admin' as role, unnest(staff_schools) as school, null as position
    from staging.users
    where district_id = :district_id
    union all
    select clever_id, 'student' as role, school, position from reconcile.student_schools
),

ranked as (
    select
        listed.clever_id,
        listed.role,
        schools.school_id,
        schools.status = 'frozen' as is_unchanged,
        row_number() over (partition by listed.clever_id, listed.role order by listed.position) as rank
    from listed
    inner join reconcile.schools as schools on listed.school = schools.clever_id
    where schools.status in ('rostered', 'frozen')
)
select clever_id, role, school_id, is_unchanged
from ranked
-- The profile decides whether a student has every school or the first one (R6.3).
where role <> 'student' or :student_multi_school or rank = 1
union all
select clever_id, 'district_admin' as role, null as school_id, false as is_unchanged
from staging.users
where district_id = :district_id and is_district_admin
