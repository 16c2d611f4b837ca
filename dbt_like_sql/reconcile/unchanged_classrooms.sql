-- Classrooms that are left unchanged because a member is held. Members who are not held can still be added and removed.
-- grain: one row per classroom
-- rules: R7.4
-- decides by: school
with held as (
    select user_id, held_by from reconcile.held_users
    union all
    select user_id, rule as held_by from reconcile.identities_after_brakes where decision = 'held'
)
select enrollments.classroom_id, min(held.held_by) as held_by
from held
inner join app.enrollments as enrollments on enrollments.district_id = :district_id and held.user_id = enrollments.user_id
where enrollments.deleted_at is null
group by enrollments.classroom_id
