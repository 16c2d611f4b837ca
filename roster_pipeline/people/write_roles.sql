-- Writes the roles that people gain. Runs after write_users.sql, because it finds the users by their active usernames.
-- grain: one row per row of app.user_roles written
-- rules: R8.2
with gained as (
    select
        users.user_id,
        roles.role,
        roles.school_id,
        roles.is_new
    from pg_temp.import_roles as roles
    inner join app.users as users
        on users.district_id = :district_id and roles.username_key = users.username_key and users.deleted_at is null
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
)

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
