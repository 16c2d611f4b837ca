-- The schools of the district in the application. A sync writes only rows that differ, each with its row of history.
-- grain: one row per row written
-- rules: R7.1, R7.2, R11.5
with created as (
    insert into app.schools (
        district_id,
        school_id,
        clever_id,
        name,
        source,
        deleted_at,
        created_at,
        updated_at
    )
    select
        cast(:district_id as bigint),
        school_id,
        clever_id,
        name,
        source,
        deleted_at,
        cast(:synced_at as timestamptz),
        cast(:synced_at as timestamptz)
    from reconcile.school_changes
    where action = 'create'
),

changed as (
    update app.schools as schools
    set
        clever_id = plan.clever_id,
        name = plan.name,
        source = plan.source,
        deleted_at = plan.deleted_at,
        updated_at = cast(:synced_at as timestamptz)
    from reconcile.school_changes as plan
    where
        not (plan.action = 'create')
        and schools.district_id = :district_id
        and schools.school_id = plan.school_id
)
insert into ops.changes (sync_id, district_id, entity, entity_id, user_id, action, before, after, changed_at)
select
    :sync_id,
    :district_id,
    'schools',
    cast(school_id as text),
    cast(null as bigint),
    action,
    before,
    after,
    cast(:synced_at as timestamptz)
from reconcile.school_changes
