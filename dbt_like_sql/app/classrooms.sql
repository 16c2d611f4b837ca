-- The classrooms of the district in the application; a rostered one is a section of Clever. A sync writes only rows that differ,
-- each with its row of history.
-- grain: one row per row written
-- rules: R7.1, R7.2, R11.5
with created as (
    insert into app.classrooms (
        district_id,
        classroom_id,
        clever_id,
        school_id,
        name,
        clever_name,
        term_name,
        starts_on,
        ends_on,
        source,
        deleted_at,
        created_at,
        updated_at
    )
    select
        cast(:district_id as bigint),
        classroom_id,
        clever_id,
        school_id,
        name,
        clever_name,
        term_name,
        starts_on,
        ends_on,
        source,
        deleted_at,
        cast(:synced_at as timestamptz),
        cast(:synced_at as timestamptz)
    from reconcile.classroom_changes
    where action = 'create'
),

changed as (
    update app.classrooms as classrooms
    set
        clever_id = plan.clever_id,
        school_id = plan.school_id,
        name = plan.name,
        clever_name = plan.clever_name,
        term_name = plan.term_name,
        starts_on = plan.starts_on,
        ends_on = plan.ends_on,
        source = plan.source,
        deleted_at = plan.deleted_at,
        updated_at = cast(:synced_at as timestamptz)
    from reconcile.classroom_changes as plan
    where
        not (plan.action = 'create')
        and classrooms.district_id = :district_id
        and classrooms.classroom_id = plan.classroom_id
)
insert into ops.changes (sync_id, district_id, entity, entity_id, user_id, action, before, after, changed_at)
select
    :sync_id,
    :district_id,
    'classrooms',
    cast(classroom_id as text),
    cast(null as bigint),
    action,
    before,
    after,
    cast(:synced_at as timestamptz)
from reconcile.classroom_changes
