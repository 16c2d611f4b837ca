-- Classrooms that stay as they are because somebody in them is held. Who is not held may still come and go.
-- grain: one row per classroom
-- rules: R7.4
-- decides by: school
with held as (
    select user_id, held_by from reconcile.held_users
    union all
    select user_id, rule as held_by from reconcile.judged_identities where decision = 'held'
)
select enrollments.classroom_id, min(held.held_by) as held_by
from held
inner join app.enrollments as enrollments on enrollments.district_id = :district_id and held.user_id = enrollments.user_id
where enrollments.deleted_at is null
group by enrollments.classroom_id
