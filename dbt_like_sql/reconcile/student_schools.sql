-- The schools of each student within the agreed grades, in the order in which they count: the primary one first.
-- grain: one row per student and school
-- rules: R6.3
-- decides by: itself
select
    users.clever_id,
    listed.school,
    min(listed.position) as position
from staging.users as users
cross join lateral unnest(users.student_schools) with ordinality as listed (school, position)
left join reconcile.students_outside_grades as outside on users.clever_id = outside.clever_id
where users.district_id = :district_id and outside.clever_id is null
group by users.clever_id, listed.school
