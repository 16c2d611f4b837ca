-- What is to be soft-deleted, and what of it a brake holds. A first sync that waits holds no single row: its approval releases all of this.
-- grain: one row per school, classroom or user to be soft-deleted; held_by is null where it is soft-deleted now
-- key: district_id, entity, entity_id
-- rules: R7.1, R7.2, R7.4, R7.6
-- decides by: itself
with holds_of_everything as (
    select min(kind) as held_by from reconcile.holds where kind = 'empty_collection'
),

held_schools as (
    select distinct school_id, kind as held_by from reconcile.holds where kind = 'school_role'
)
select
    cast(:district_id as bigint) as district_id,
    candidates.entity,
    candidates.entity_id,
    candidates.clever_id,
    candidates.reason,
    coalesce(
        holds_of_everything.held_by,
        held_users.held_by,
        held_schools.held_by,
        kept_classrooms.held_by,
        classroom_schools.held_by
    ) as held_by
from reconcile.deletion_candidates as candidates
cross join holds_of_everything
left join reconcile.held_users as held_users on candidates.entity = 'users' and candidates.entity_id = held_users.user_id
left join held_schools on candidates.entity = 'schools' and candidates.entity_id = held_schools.school_id
left join reconcile.kept_classrooms as kept_classrooms
    on candidates.entity = 'classrooms' and candidates.entity_id = kept_classrooms.classroom_id
left join app.classrooms as classrooms
    on candidates.entity = 'classrooms' and classrooms.district_id = :district_id and candidates.entity_id = classrooms.classroom_id
left join held_schools as classroom_schools on classrooms.school_id = classroom_schools.school_id
