-- People who list a school that is not shared.
-- grain: one row per offending record
-- rules: R4.3
-- decides by: itself
-- severity: warn
select distinct 'users' as resource, users.clever_id
from staging.users as users
cross join lateral unnest(
    array[users.school] || users.student_schools || users.teacher_schools || users.staff_schools
) as listed (school)
where
    users.district_id = :district_id
    and listed.school is not null
    and not exists (
        select 1 from staging.schools as schools
        where schools.district_id = :district_id and schools.clever_id = listed.school
    )
    and not exists (
        select 1 from staging.quarantined as quarantined
        where quarantined.district_id = :district_id and quarantined.resource = 'schools' and quarantined.clever_id = listed.school
    )
