-- Users who would be soft-deleted but are held by a brake.
-- held_by: the kind of brake; the first in alphabetical order if there are several
-- grain: one row per user
-- rules: R7.4, R7.6
-- decides by: itself
with held as (
    -- A hold of kind `empty_collection` holds every soft delete in the district.
    select candidates.entity_id as user_id, holds.kind
    from reconcile.deletion_candidates as candidates
    inner join reconcile.holds as holds on holds.kind = 'empty_collection'
    where candidates.entity = 'users'
    union all
    select candidates.entity_id as user_id, holds.kind
    from reconcile.deletion_candidates as candidates
    inner join app.user_roles as roles on roles.district_id = :district_id and candidates.entity_id = roles.user_id
    inner join reconcile.holds as holds
        on
            roles.role = holds.role
            and (holds.kind = 'district_role' or (holds.kind = 'school_role' and roles.school_id = holds.school_id))
    where candidates.entity = 'users' and roles.deleted_at is null
)
select user_id, min(kind) as held_by
from held
group by user_id
