-- The people that Clever shares, and whether each of them can be rostered.
-- grain: one row per person of the snapshot, quarantined ones included
-- rules: R4.6, R4.8, R5.5, R5.8, R6.4
-- decides by: name
-- status: `rosterable` | `no_role` | `outside_school` | `outside_grade` | `quarantined` | `username_taken` (quarantined by R5.5)
--         | `unreadable` (not shown, but an element of the collection cannot be read: counts as quarantined)
-- A person whose schools are all quarantined counts as quarantined too: the schools still exist, but nobody can be rostered there (R4.6).
with recursive roles as (
    select
        clever_id,
        bool_or(not is_unchanged) as has_role,
        bool_or(role <> 'student') as is_staff
    from reconcile.listed_roles
    group by clever_id
),

-- People who have a role at a quarantined school: that role stays, so they are not without a role (R4.6).
unchanged_roles as (
    select distinct users.clever_id
    from app.users as users
    inner join app.user_roles as held on users.district_id = held.district_id and users.user_id = held.user_id
    inner join reconcile.schools as schools on held.school_id = schools.school_id
    where
        users.district_id = :district_id
        and users.deleted_at is null
        and held.deleted_at is null
        and schools.status = 'frozen'
),

snapshot as (
    select
        users.*,
        coalesce(roles.is_staff, users.student_schools is null) as is_staff,
        -- Admins always sign in by their Clever id, and so do people without a username (SPEC 1).
        case
            when users.is_district_admin or users.staff_schools is not null then users.clever_id
            else coalesce(users.username, users.clever_id)
        end as desired_username,
        -- The username while a brake holds every new admin role of the person (R7.4).
        coalesce(users.username, users.clever_id) as plain_username,
        users.staff_schools is not null as is_school_admin,
        coalesce(roles.has_role, false) or unchanged_roles.clever_id is not null as has_role,
        not roles.has_role and unchanged_roles.clever_id is null as is_school_quarantined,
        app.normalize_username(users.clever_id) as own_key,
        outside_grades.clever_id is not null as is_outside_grade,
        users.school = any(outside.schools)
        or users.student_schools && outside.schools
        or users.teacher_schools && outside.schools
        or users.staff_schools && outside.schools as has_outside_school
    from staging.users as users
    cross join (select array_agg(clever_id) as schools from reconcile.schools where status = 'outside') as outside
    left join reconcile.students_outside_grades as outside_grades on users.clever_id = outside_grades.clever_id
    left join roles on users.clever_id = roles.clever_id
    left join unchanged_roles on users.clever_id = unchanged_roles.clever_id
    where users.district_id = :district_id
),

-- Usernames that stay with their active users: those of protected users and of quarantined people. If such a name is the Clever id of
-- another person, that person is quarantined too, and the name of that person is reserved as well; this repeats (R5.5).
-- Each reason is a branch of the union: with `or` PostgreSQL would estimate half of all people.
reserved_names as (
    select users.clever_id, users.username_key
    from app.users as users
    where users.district_id = :district_id and users.deleted_at is null and users.protected
    union all
    select users.clever_id, users.username_key
    from staging.quarantined as quarantined
    inner join app.users as users on users.district_id = :district_id and quarantined.clever_id = users.clever_id
    where quarantined.district_id = :district_id and quarantined.resource = 'users' and users.deleted_at is null
    union all
    select users.clever_id, users.username_key
    from reconcile.listed_roles as listed_roles
    inner join snapshot on listed_roles.clever_id = snapshot.clever_id
    inner join app.users as users on users.district_id = :district_id and snapshot.clever_id = users.clever_id
    where listed_roles.is_unchanged and snapshot.is_school_quarantined and users.deleted_at is null
    union
    select users.clever_id, users.username_key
    from reserved_names
    inner join snapshot
        on reserved_names.username_key = snapshot.own_key and reserved_names.clever_id is distinct from snapshot.clever_id
    inner join app.users as users on users.district_id = :district_id and snapshot.clever_id = users.clever_id
    where users.deleted_at is null
)

select
    snapshot.clever_id,
    case when snapshot.is_staff then 'staff' else 'student' end as family,
    snapshot.desired_username,
    snapshot.plain_username,
    app.normalize_username(snapshot.desired_username) as desired_key,
    snapshot.own_key,
    snapshot.is_district_admin,
    snapshot.is_school_admin,
    case
        when reserved_names.username_key is not null then 'username_taken'
        when snapshot.has_role then 'rosterable'
        when snapshot.is_school_quarantined then 'quarantined'
        when snapshot.is_outside_grade then 'outside_grade'
        when snapshot.has_outside_school then 'outside_school'
        else 'no_role'
    end as status
from snapshot
-- This join adds no rows: two active users never have the same name.
left join reserved_names
    on snapshot.own_key = reserved_names.username_key and reserved_names.clever_id is distinct from snapshot.clever_id
union all
select
    clever_id,
    null as family,
    null as desired_username,
    null as plain_username,
    null as desired_key,
    app.normalize_username(clever_id) as own_key,
    null as is_district_admin,
    null as is_school_admin,
    case when is_shown then 'quarantined' else 'unreadable' end as status
from staging.quarantined
where district_id = :district_id and resource = 'users'
