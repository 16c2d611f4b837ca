-- Writes the roles that people gain and lose, each with its row of history. Runs after write_users.sql, because it finds the users by their
-- active usernames.
-- grain: one row per row of app.user_roles written
-- rules: R8.2
with gained as (
    select
        users.user_id,
        roles.role,
        roles.school_id,
        roles.is_new,
        held.source as old_source,
        held.deleted_at as old_deleted_at
    from pg_temp.import_roles as roles
    inner join app.users as users
        on users.district_id = :district_id and roles.username_key = users.username_key and users.deleted_at is null
    left join app.user_roles as held
        on
            held.district_id = :district_id
            and users.user_id = held.user_id
            and roles.role = held.role
            and roles.school_id is not distinct from held.school_id
),

ended as (
    select
        user_id,
        role,
        school_id
    from pg_temp.import_ended
    where ends
),

created as (
    insert into app.user_roles (district_id, user_id, role, school_id, source)
    select
        cast(:district_id as bigint),
        user_id,
        role,
        school_id,
        'csv'
    from gained
    where is_new
),

restored as (
    update app.user_roles as held
    set
        source = 'csv',
        deleted_at = null,
        updated_at = now()
    from gained
    where
        not gained.is_new
        and held.district_id = :district_id
        and held.user_id = gained.user_id
        and held.role = gained.role
        and held.school_id is not distinct from gained.school_id
),

lost as (
    update app.user_roles as held
    set
        deleted_at = now(),
        updated_at = now()
    from ended
    where
        held.district_id = :district_id
        and held.user_id = ended.user_id
        and held.role = ended.role
        and held.school_id is not distinct from ended.school_id
),

history as (
    select
        user_id,
        role,
        school_id,
        'role_gain' as action,
        case when not is_new then jsonb_build_object('source', old_source, 'deleted_at', old_deleted_at) end as before,
        case when is_new then '{"source": "csv"}' else cast('{"source": "csv", "deleted_at": null}' as jsonb) end as after
    from gained
    union all
    select
        user_id,
        role,
        school_id,
        'role_loss' as action,
        jsonb_build_object('deleted_at', null) as before,
        jsonb_build_object('deleted_at', now()) as after
    from ended
)
insert into ops.changes (audit_id, district_id, entity, entity_id, user_id, action, before, after)
select
    :audit_id,
    :district_id,
    'user_roles',
    concat_ws(':', user_id, role, coalesce(cast(school_id as text), '')),
    user_id,
    action,
    before,
    after
from history
