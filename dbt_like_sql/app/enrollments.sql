-- Students and teachers of each classroom. A sync writes only rows that differ, each with its row of history.
-- grain: one row per row written
-- rules: R7.1, R7.2, R11.5
with created as (
    insert into app.enrollments (
        district_id,
        classroom_id,
        user_id,
        role,
        is_primary,
        source,
        deleted_at,
        created_at,
        updated_at
    )
    select
        cast(:district_id as bigint),
        classroom_id,
        user_id,
        role,
        is_primary,
        source,
        deleted_at,
        cast(:synced_at as timestamptz),
        cast(:synced_at as timestamptz)
    from reconcile.enrollment_changes
    where action = 'create'
),

changed as (
    update app.enrollments as enrollments
    set
        is_primary = plan.is_primary,
        source = plan.source,
        deleted_at = plan.deleted_at,
        updated_at = cast(:synced_at as timestamptz)
    from reconcile.enrollment_changes as plan
    where
        not (plan.action = 'create')
        and enrollments.district_id = :district_id
        and enrollments.classroom_id = plan.classroom_id
        and enrollments.user_id = plan.user_id
        and enrollments.role = plan.role
)
insert into ops.changes (sync_id, district_id, entity, entity_id, user_id, action, before, after, changed_at)
select
    :sync_id,
    :district_id,
    'enrollments',
    concat_ws(':', classroom_id, user_id, role),
    user_id,
    action,
    before,
    after,
    cast(:synced_at as timestamptz)
from reconcile.enrollment_changes
