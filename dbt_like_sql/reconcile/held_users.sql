-- Users who would be soft-deleted but are held: a brake counts their own soft delete, or their only schools are held, or a window keeps
-- everybody. The second is asked here because it is not known before the brakes: without its school a person has no role, and is to be
-- soft-deleted (R7.4). No brake holds graduates.
-- held_by: the kind of brake, the first in alphabetical order if there are several; `additions_only` of a window
-- is_rostered: only the schools are held and Clever still shares the person: account, roles and classes stay, the rest of the row follows
-- grain: one row per user
-- rules: R7.4, R7.6, R14.3, R14.4
-- decides by: itself
with leaving as (
    select candidates.entity_id as user_id, candidates.clever_id, graduates.user_id is not null as is_graduate
    from reconcile.deletion_candidates as candidates
    left join reconcile.graduates as graduates on candidates.entity_id = graduates.user_id
    where candidates.entity = 'users'
),

braked as (
    select user_id, 'additions_only' as kind from leaving where :is_additions_only
    union all
    -- A hold of kind `empty_collection` holds every soft delete in the district.
    select leaving.user_id, holds.kind
    from leaving
    inner join reconcile.holds as holds on holds.kind = 'empty_collection'
    union all
    select leaving.user_id, holds.kind
    from leaving
    inner join app.user_roles as roles on roles.district_id = :district_id and leaving.user_id = roles.user_id
    inner join reconcile.holds as holds
        on
            roles.role = holds.role
            and (holds.kind = 'district_role' or (holds.kind = 'school_role' and roles.school_id = holds.school_id))
    where not leaving.is_graduate and roles.deleted_at is null
),

held_schools as (
    select distinct schools.school_id, schools.clever_id
    from reconcile.holds as holds
    inner join app.schools as schools on schools.district_id = :district_id and holds.school_id = schools.school_id
    where holds.kind = 'school_role'
),

-- Without a held school nobody needs to be looked up.
candidates as (
    select leaving.user_id, leaving.clever_id
    from leaving
    where not leaving.is_graduate and exists (select 1 from held_schools)
),

-- A role at a school that is deleted already does not count.
only_at_held_schools as (
    select candidates.user_id
    from candidates
    inner join app.user_roles as roles on roles.district_id = :district_id and candidates.user_id = roles.user_id
    inner join app.schools as schools on schools.district_id = :district_id and roles.school_id = schools.school_id
    left join held_schools on roles.school_id = held_schools.school_id
    where roles.deleted_at is null and schools.deleted_at is null
    group by candidates.user_id
    having bool_and(held_schools.school_id is not null)
),

-- Nobody who is shared and has another school to be rostered at is a candidate.
shared as (
    select
        candidates.user_id,
        users.school = any(held.clever_ids)
        or users.student_schools && held.clever_ids
        or users.teacher_schools && held.clever_ids
        or users.staff_schools && held.clever_ids as is_listed_there
    from candidates
    inner join staging.users as users on users.district_id = :district_id and candidates.clever_id = users.clever_id
    cross join (select array_agg(clever_id) as clever_ids from held_schools) as held
),

held as (
    select user_id, kind, false as is_rostered from braked
    union all
    select candidates.user_id, 'school_role' as kind, shared.user_id is not null as is_rostered
    from candidates
    left join shared on candidates.user_id = shared.user_id
    left join only_at_held_schools on candidates.user_id = only_at_held_schools.user_id
    where only_at_held_schools.user_id is not null or shared.is_listed_there
)
select user_id, min(kind) as held_by, bool_and(is_rostered) as is_rostered
from held
group by user_id
