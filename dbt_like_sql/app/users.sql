-- The people of the district in the application: one row per person, even with several roles. A sync writes only rows that differ,
-- each with its row of history.
-- grain: one row per row written
-- rules: R7.1, R7.2, R11.5
with created as (
    insert into app.users (
        district_id,
        user_id,
        clever_id,
        username,
        first_name,
        middle_name,
        last_name,
        email,
        district_username,
        sis_id,
        state_id,
        student_number,
        grade,
        school_id,
        source,
        license_status,
        login_methods,
        deleted_at,
        created_at,
        updated_at
    )
    select
        cast(:district_id as bigint),
        user_id,
        clever_id,
        username,
        first_name,
        middle_name,
        last_name,
        email,
        district_username,
        sis_id,
        state_id,
        student_number,
        grade,
        school_id,
        source,
        license_status,
        login_methods,
        deleted_at,
        cast(:synced_at as timestamptz),
        cast(:synced_at as timestamptz)
    from reconcile.user_changes
    where action = 'create'
),

changed as (
    update app.users as users
    set
        clever_id = plan.clever_id,
        username = plan.username,
        first_name = plan.first_name,
        middle_name = plan.middle_name,
        last_name = plan.last_name,
        email = plan.email,
        district_username = plan.district_username,
        sis_id = plan.sis_id,
        state_id = plan.state_id,
        student_number = plan.student_number,
        grade = plan.grade,
        school_id = plan.school_id,
        source = plan.source,
        license_status = plan.license_status,
        login_methods = plan.login_methods,
        deleted_at = plan.deleted_at,
        updated_at = cast(:synced_at as timestamptz)
    from reconcile.user_changes as plan
    where
        not (plan.action = 'create')
        and users.district_id = :district_id
        and users.user_id = plan.user_id
)
insert into ops.changes (sync_id, district_id, entity, entity_id, user_id, action, before, after, changed_at)
select
    :sync_id,
    :district_id,
    'users',
    cast(user_id as text),
    user_id,
    action,
    before,
    after,
    cast(:synced_at as timestamptz)
from reconcile.user_changes
