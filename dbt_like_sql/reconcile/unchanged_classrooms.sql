-- Classrooms that are left unchanged because a hold covers them, with their members, or because a member is held. In the second case
-- members who are not held can still be added and removed.
-- grain: one row per classroom
-- keeps_members: the hold covers the classroom itself
-- rules: R7.4, R14.3
-- decides by: school
with held as (
    -- A window that keeps a member keeps nothing else of the classroom.
    select user_id, held_by from reconcile.held_users where held_by <> 'additions_only'
    union all
    select user_id, rule as held_by from reconcile.identities_after_brakes where decision = 'held'
)
select
    classroom_id,
    min(held_by) as held_by,
    bool_or(keeps_members) as keeps_members
from (
    select enrollments.classroom_id, held.held_by, false as keeps_members
    from held
    inner join app.enrollments as enrollments on enrollments.district_id = :district_id and held.user_id = enrollments.user_id
    where enrollments.deleted_at is null
    union all
    select lost.classroom_id, holds.kind as held_by, true as keeps_members
    from reconcile.lost_classrooms as lost
    inner join reconcile.holds as holds on holds.kind = 'classrooms'
) as unchanged
group by classroom_id
