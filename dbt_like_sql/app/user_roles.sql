-- The roles of each user: student, teacher or admin, and at which school. A sync writes only rows that differ,
-- each with its row of history.
-- grain: one row per row written
-- rules: R7.1, R7.2, R11.5
with created as (
    insert into app.user_roles (
        district_id,
        user_id,
        role,
        school_id,
        source,
        deleted_at,
        created_at,
        updated_at
    )
    select
        cast(:district_id as bigint),
        user_id,
        role,
        school_id,
        source,
        deleted_at,
        cast(:synced_at as timestamptz),
        cast(:synced_at as timestamptz)
    from reconcile.role_changes
    where is_new
),

changed as (
    update app.user_roles as user_roles
    set
        source = plan.source,
        deleted_at = plan.deleted_at,
        updated_at = cast(:synced_at as timestamptz)
    from reconcile.role_changes as plan
    where
        not (plan.is_new)
        and user_roles.district_id = :district_id
        and user_roles.user_id = plan.user_id
        and user_roles.role = plan.role
        and user_roles.school_id is not distinct from plan.school_id
)
insert into ops.changes (sync_id, district_id, entity, entity_id, user_id, action, before, after, changed_at)
select
    :sync_id,
    :district_id,
    'user_roles',
    concat_ws(':', user_id, role, coalesce(cast(school_id as text), '')),
    user_id,
    action,
    before,
    after,
    cast(:synced_at as timestamptz)
from reconcile.role_changes
