-- Enrollments that a hold keeps though this sync would end them: the reason that somebody is still in a classroom.
-- grain: one row per enrollment
-- key: district_id, classroom_id, user_id, role
-- rules: R7.4
-- decides by: itself
-- held_by: the kind of brake
select
    cast(:district_id as bigint) as district_id,
    classroom_id,
    user_id,
    role,
    held_by
from reconcile.enrollment_differences
where held_by is not null
