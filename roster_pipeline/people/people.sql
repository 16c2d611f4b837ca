-- The desired state of each imported person, and the action that it needs.
-- grain: one row per person
-- rules: R5.9, R8.1, R8.2
-- action: create | restore | update (columns or roles differ) | none
with firsts as (
    select distinct on (username_key) *
    from pg_temp.import_accepted
    order by username_key asc, line asc
),

-- A student's primary school is the one in the student's first row.
students as (
    select distinct on (username_key)
        username_key,
        school_id
    from pg_temp.import_accepted
    where role = 'student'
    order by username_key asc, line asc
),

-- Users who are students already. They remain students, because roles that are not in the file stay.
student_users as (
    select distinct user_id
    from app.user_roles
    where district_id = :district_id and role = 'student' and deleted_at is null
),

desired as (
    select
        firsts.line,
        firsts.username_key,
        firsts.user_id,
        firsts.username,
        firsts.first_name,
        firsts.last_name,
        firsts.email,
        coalesce(students.school_id, existing.school_id) as school_id,
        case when students.username_key is not null or student_users.user_id is not null then 'licensed' end as license_status,
        array(
            select methods.method
            from unnest(cast(:login_methods as text[])) with ordinality as methods (method, position)
            where methods.method <> 'clever' and (methods.method <> 'google' or firsts.email is not null)
            order by methods.position
        ) as login_methods
    from firsts
    left join students on firsts.username_key = students.username_key
    left join student_users on firsts.user_id = student_users.user_id
    left join app.users as existing on existing.district_id = :district_id and firsts.user_id = existing.user_id
),

compared as (
    select
        desired.*,
        existing.deleted_at is not null as is_deleted,
        array(
            select differences.column_name
            from (
                values
                (1, 'username', desired.username is distinct from existing.username),
                (2, 'first_name', desired.first_name is distinct from existing.first_name),
                (3, 'last_name', desired.last_name is distinct from existing.last_name),
                (4, 'email', desired.email is distinct from existing.email),
                (5, 'school_id', desired.school_id is distinct from existing.school_id),
                (6, 'license_status', desired.license_status is distinct from existing.license_status),
                (7, 'login_methods', desired.login_methods is distinct from existing.login_methods)
            ) as differences (position, column_name, is_different)
            where differences.is_different
            order by differences.position
        ) as changed
    from desired
    left join app.users as existing on existing.district_id = :district_id and desired.user_id = existing.user_id
)

select
    compared.line,
    compared.username_key,
    compared.user_id,
    compared.username,
    compared.first_name,
    compared.last_name,
    compared.email,
    compared.school_id,
    compared.license_status,
    compared.login_methods,
    case when compared.user_id is not null then compared.changed else '{}' end as changed,
    case
        when compared.user_id is null then 'create'
        when compared.is_deleted then 'restore'
        when cardinality(compared.changed) > 0 then 'update'
        when exists (select 1 from pg_temp.import_roles as roles where roles.username_key = compared.username_key) then 'update'
        else 'none'
    end as action
from compared
