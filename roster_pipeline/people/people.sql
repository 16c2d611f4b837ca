-- The desired state of each imported person, and the action that it needs.
-- grain: one row per person
-- rules: R5.9, R8.1, R8.2, R9.2
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

-- Users who are students already, and remain students.
student_users as (
    select distinct held.user_id
    from app.user_roles as held
    where
        held.district_id = :district_id
        and held.role = 'student'
        and held.deleted_at is null
        and not exists (
            select 1
            from pg_temp.import_ended as ended
            where ended.ends and ended.user_id = held.user_id and ended.role = 'student' and ended.school_id = held.school_id
        )
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
        -- The primary school is that of a student.
        coalesce(students.school_id, case when student_users.user_id is not null then existing.school_id end) as school_id,
        case
            when students.username_key is not null then case when seats.has_seat then 'licensed' else 'waiting' end
            when student_users.user_id is not null then coalesce(existing.license_status, 'licensed')
        end as license_status,
        array(
            select methods.method
            from unnest(cast(:login_methods as text[])) with ordinality as methods (method, position)
            where methods.method <> 'clever' and (methods.method <> 'google' or firsts.email is not null)
            order by methods.position
        ) as login_methods
    from firsts
    left join students on firsts.username_key = students.username_key
    left join pg_temp.import_seats as seats on students.username_key = seats.username_key
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
        when exists (select 1 from pg_temp.import_ended as ended where ended.ends and ended.user_id = compared.user_id) then 'update'
        else 'none'
    end as action
from compared
