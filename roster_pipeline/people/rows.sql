-- The school that each row of the file names, and the user who has its username.
-- grain: one row per readable row of the file
-- rules: R8.2
with schools as (
    select
        school_id,
        clever_id,
        app.normalize_username(name) as name_key
    from app.schools
    where district_id = :district_id and deleted_at is null
),

school_names as (
    select
        name_key,
        min(school_id) as school_id,
        count(*) as schools
    from schools
    group by name_key
),

-- Every username that a person of the last accepted snapshot has or can get. Admins included, because a sync may hold or remove their role.
snapshot_names as (
    select app.normalize_username(username) as username_key
    from staging.users
    where district_id = :district_id and username is not null
    union
    select app.normalize_username(clever_id) as username_key
    from staging.users
    where district_id = :district_id
    union
    select app.normalize_username(clever_id) as username_key
    from staging.quarantined
    where district_id = :district_id and resource = 'users'
),

-- The user who has a username: the active user; if there is none, the imported user who had it last, to be restored.
-- A username of any other deleted user is free.
owners as (
    select distinct on (username_key)
        username_key,
        user_id,
        source,
        deleted_at is not null and do_not_restore as is_deactivated
    from app.users
    where district_id = :district_id and (deleted_at is null or source = 'csv')
    order by username_key asc, deleted_at desc nulls first, user_id desc
),

keyed as (
    select
        *,
        app.normalize_username(username) as username_key,
        app.normalize_username(school) as school_key
    from pg_temp.import_file
)

select
    keyed.line,
    keyed.username,
    keyed.username_key,
    keyed.first_name,
    keyed.last_name,
    keyed.role,
    keyed.school,
    keyed.email,
    coalesce(schools.school_id, school_names.school_id) as school_id,
    schools.school_id is null and school_names.schools > 1 as is_ambiguous_school,
    snapshot_names.username_key is not null as is_in_snapshot,
    owners.user_id,
    owners.source <> 'csv' as is_taken,
    owners.is_deactivated
from keyed
left join schools on keyed.school = schools.clever_id
left join school_names on keyed.school_key = school_names.name_key
left join snapshot_names on keyed.username_key = snapshot_names.username_key
left join owners on keyed.username_key = owners.username_key
