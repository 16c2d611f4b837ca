-- Ends an imported account: soft delete, with its roles and enrollments, each with its row of history.
-- grain: one row per row of app written
-- rules: R7.1, R8.1, R8.2
with removed as (
    update app.users
    set
        deleted_at = now(),
        updated_at = now()
    where district_id = :district_id and user_id = :user_id
    returning 'users' as entity, cast(user_id as text) as entity_id, 'soft_delete' as action
),

roles as (
    update app.user_roles
    set
        deleted_at = now(),
        updated_at = now()
    where district_id = :district_id and user_id = :user_id and deleted_at is null
    returning
        'user_roles' as entity,
        concat_ws(':', user_id, role, coalesce(cast(school_id as text), '')) as entity_id,
        'role_loss' as action
),

enrollments as (
    update app.enrollments
    set
        deleted_at = now(),
        updated_at = now()
    where district_id = :district_id and user_id = :user_id and deleted_at is null
    returning 'enrollments' as entity, concat_ws(':', classroom_id, user_id, role) as entity_id, 'soft_delete' as action
),

history as (
    select
        entity,
        entity_id,
        action
    from removed
    union all
    select
        entity,
        entity_id,
        action
    from roles
    union all
    select
        entity,
        entity_id,
        action
    from enrollments
)
insert into ops.changes (audit_id, district_id, entity, entity_id, user_id, action, before, after)
select
    :audit_id,
    :district_id,
    entity,
    entity_id,
    :user_id,
    action,
    jsonb_build_object('deleted_at', null),
    jsonb_build_object('deleted_at', now())
from history
returning entity
