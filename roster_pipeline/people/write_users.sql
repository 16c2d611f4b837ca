-- Writes the people to create, restore and update: only rows that differ. A user whose protection support has removed stays unprotected,
-- until an import restores that user.
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
)

update app.users as users
set
    username = people.username,
    first_name = people.first_name,
    last_name = people.last_name,
    email = people.email,
    school_id = people.school_id,
    protected = users.protected or people.action = 'restore',
    license_status = people.license_status,
    login_methods = people.login_methods,
    deleted_at = null,
    updated_at = now()
from pg_temp.import_people as people
where
    users.district_id = :district_id
    and users.user_id = people.user_id
    and (people.action = 'restore' or cardinality(people.changed) > 0)
