-- Writes the people to create, restore and update, each with its row of history: only rows that differ. A user whose protection support has
-- removed stays unprotected, until an import restores that user.
-- grain: one row per row of app.users written
-- rules: R8.1, R8.2
with created as (
    insert into app.users (
        district_id,
        username,
        first_name,
        last_name,
        email,
        school_id,
        source,
        protected,
        license_status,
        login_methods
    )
    select
        cast(:district_id as bigint),
        username,
        first_name,
        last_name,
        email,
        school_id,
        'csv',
        true,
        license_status,
        login_methods
    from pg_temp.import_people
    where action = 'create'
    order by line
    returning *
),

-- With the values before this statement.
changing as (
    select
        people.*,
        existing.protected or people.action = 'restore' as protected,
        jsonb_build_object(
            'username', existing.username,
            'first_name', existing.first_name,
            'last_name', existing.last_name,
            'email', existing.email,
            'school_id', existing.school_id,
            'license_status', existing.license_status,
            'login_methods', existing.login_methods,
            'protected', existing.protected,
            'deleted_at', existing.deleted_at
        ) as old_values
    from pg_temp.import_people as people
    inner join app.users as existing on existing.district_id = :district_id and people.user_id = existing.user_id
    where people.action = 'restore' or cardinality(people.changed) > 0
),

changed as (
    update app.users as users
    set
        username = changing.username,
        first_name = changing.first_name,
        last_name = changing.last_name,
        email = changing.email,
        school_id = changing.school_id,
        protected = changing.protected,
        license_status = changing.license_status,
        login_methods = changing.login_methods,
        deleted_at = null,
        updated_at = now()
    from changing
    where users.district_id = :district_id and users.user_id = changing.user_id
),

history as (
    select
        created.user_id,
        'create' as action,
        null as before,
        jsonb_strip_nulls(
            jsonb_build_object(
                'username', created.username,
                'first_name', created.first_name,
                'last_name', created.last_name,
                'email', created.email,
                'school_id', created.school_id,
                'license_status', created.license_status,
                'login_methods', created.login_methods,
                'source', created.source,
                'protected', created.protected
            )
        ) as after
    from created
    union all
    select
        changing.user_id,
        case when changing.action = 'restore' then 'restore' else 'update' end as action,
        ops.differing(compared.new_values, changing.old_values) as before,
        ops.differing(changing.old_values, compared.new_values) as after
    from changing
    cross join lateral (
        select
            jsonb_build_object(
                'username', changing.username,
                'first_name', changing.first_name,
                'last_name', changing.last_name,
                'email', changing.email,
                'school_id', changing.school_id,
                'license_status', changing.license_status,
                'login_methods', changing.login_methods,
                'protected', changing.protected,
                'deleted_at', null
            ) as new_values
    ) as compared
)
insert into ops.changes (audit_id, district_id, entity, entity_id, user_id, action, before, after)
select
    :audit_id,
    :district_id,
    'users',
    cast(user_id as text),
    user_id,
    action,
    before,
    after
from history
