-- Rostered classrooms with active members that would be soft-deleted though their term has not ended: what the brake `classrooms` counts.
-- grain: one row per classroom
-- rules: R7.3
-- decides by: school
select candidates.entity_id as classroom_id, candidates.clever_id
from reconcile.deletion_candidates as candidates
inner join app.classrooms as classrooms on classrooms.district_id = :district_id and candidates.entity_id = classrooms.classroom_id
where
    candidates.entity = 'classrooms'
    and classrooms.source = 'clever'
    and not coalesce(classrooms.ends_on < cast(cast(:synced_at as timestamptz) at time zone 'America/Los_Angeles' as date), false)
    and exists (
        select 1
        from app.enrollments as enrollments
        where
            enrollments.district_id = :district_id
            and enrollments.classroom_id = classrooms.classroom_id
            and enrollments.deleted_at is null
    )
