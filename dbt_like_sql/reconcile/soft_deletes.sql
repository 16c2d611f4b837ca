-- Rows to soft-delete, and the brakes that hold some of them. While a first sync waits for approval, no single row is held: its approval
-- releases all of them.
-- grain: one row per school, classroom or user to soft-delete
-- held_by: the kind of brake that holds the row, or `additions_only` if a window keeps it; null if this sync soft-deletes it
-- key: district_id, entity, entity_id
-- rules: R7.1, R7.2, R7.4, R7.6, R14.3
-- decides by: itself
with holds_of_everything as (
    select min(kind) as held_by from reconcile.holds where kind = 'empty_collection'
),

held_schools as (
    select distinct holds.school_id, schools.clever_id, holds.kind as held_by
    from reconcile.holds as holds
    inner join app.schools as schools on schools.district_id = :district_id and holds.school_id = schools.school_id
    where holds.kind = 'school_role'
)
select
    cast(:district_id as bigint) as district_id,
    candidates.entity,
    candidates.entity_id,
    candidates.clever_id,
    candidates.reason,
    coalesce(
        case when :is_additions_only then 'additions_only' end,
        holds_of_everything.held_by,
        held_users.held_by,
        held_schools.held_by,
        unchanged_classrooms.held_by,
        classroom_schools.held_by,
        section_schools.held_by
    ) as held_by
from reconcile.deletion_candidates as candidates
cross join holds_of_everything
left join reconcile.held_users as held_users on candidates.entity = 'users' and candidates.entity_id = held_users.user_id
left join held_schools on candidates.entity = 'schools' and candidates.entity_id = held_schools.school_id
left join reconcile.unchanged_classrooms as unchanged_classrooms
    on candidates.entity = 'classrooms' and candidates.entity_id = unchanged_classrooms.classroom_id
left join app.classrooms as classrooms
    on candidates.entity = 'classrooms' and classrooms.district_id = :district_id and candidates.entity_id = classrooms.classroom_id
left join held_schools as classroom_schools on classrooms.school_id = classroom_schools.school_id
-- The school at which Clever has the section now. It is not known to the models before the brakes if it is not shared any more.
left join reconcile.classrooms as sections on candidates.entity = 'classrooms' and candidates.entity_id = sections.classroom_id
left join held_schools as section_schools on sections.school = section_schools.clever_id
