-- What this sync does about each person, after brakes and before licenses are applied.
-- grain: one row per person of the snapshot
-- rules: R4.8, R5.5, R7.4
-- decides by: name
-- decision: as in reconcile.identities, or `held` (the existing user is left unchanged); `none` also for a held person who is not active;
--           `link` by rule `held_school` for a person who would be without a role if the school were not held
-- is_identity_held: names, username and ways to sign in stay
-- keeps_username: the present username stays
-- takes_plain_username: gets the username that Clever gives, because every admin role of the person is held
-- is_student: has the role of a student after this sync
with recursive asked_again as (
    select
        identities.clever_id,
        identities.user_id,
        case when held_users.is_rostered then 'link' else identities.decision end as decision,
        case when held_users.is_rostered then 'held_school' else identities.rule end as rule
    from reconcile.identities as identities
    left join reconcile.held_users as held_users on identities.user_id = held_users.user_id and identities.decision = 'none'
),

granted as (
    select clever_id, bool_or(role = 'student') as is_student
    from (
        select clever_id, role from reconcile.granted_roles
        union all
        select clever_id, role from reconcile.unchanged_roles
    ) as roles
    group by clever_id
),

-- Usernames of held users. If such a name is the Clever id of another user, that user is held too, and the name of that user is
-- reserved as well; this repeats (R5.5).
reserved_names as (
    select users.user_id, users.username_key
    from reconcile.held_users as held_users
    inner join app.users as users on users.district_id = :district_id and held_users.user_id = users.user_id
    where users.deleted_at is null and not held_users.is_rostered
    union all
    select user_id, username_key from reconcile.unshown_users
    union all
    select users.user_id, users.username_key
    from reconcile.held_identities as held_identities
    inner join app.users as users on users.district_id = :district_id and held_identities.user_id = users.user_id
    union all
    select users.user_id, users.username_key
    from asked_again as identities
    inner join app.users as users on users.district_id = :district_id and identities.user_id = users.user_id
    where
        identities.decision in ('link', 'adopt', 'relink')
        and users.deleted_at is null
        and (
            not exists (select 1 from granted where granted.clever_id = identities.clever_id)
            or (identities.decision = 'relink' and exists (select 1 from reconcile.holds as holds where holds.kind = 'relinks'))
        )
    union
    select users.user_id, users.username_key
    from reserved_names
    inner join reconcile.people as people on reserved_names.username_key = people.own_key
    inner join asked_again as identities
        on people.clever_id = identities.clever_id and identities.decision in ('link', 'adopt', 'relink')
    inner join app.users as users on users.district_id = :district_id and identities.user_id = users.user_id
    where users.deleted_at is null and reserved_names.user_id <> users.user_id
),

-- The new admin roles that are held.
held_admins as (
    select
        clever_id,
        bool_or(role = 'district_admin') as is_district_admin_held,
        bool_or(role = 'school_admin') as is_school_admin_held
    from reconcile.held_admins
    group by clever_id
),

after_brakes as (
    select
        identities.clever_id,
        identities.user_id,
        identities.decision,
        identities.rule,
        users.deleted_at is null and users.user_id is not null as is_active,
        exists (select 1 from reconcile.holds as holds where holds.kind = 'relinks')
        and identities.decision in ('relink', 'relink_deactivated') as is_relink_held,
        granted.clever_id is null as has_no_role,
        coalesce(granted.is_student, false) as is_student,
        identities.decision in ('link', 'adopt', 'relink', 'create')
        and reserved_names.user_id is not null as is_name_held,
        held_admins.clever_id is not null as is_admin_held,
        held_admins.clever_id is not null
        and (held_admins.is_district_admin_held or not people.is_district_admin)
        and (held_admins.is_school_admin_held or not people.is_school_admin) as takes_plain_username,
        held_identities.user_id is not null as is_identity_held
    from asked_again as identities
    left join app.users as users on users.district_id = :district_id and identities.user_id = users.user_id
    left join granted on identities.clever_id = granted.clever_id
    left join reconcile.people as people on identities.clever_id = people.clever_id
    left join held_admins on identities.clever_id = held_admins.clever_id
    left join reconcile.held_identities as held_identities on identities.user_id = held_identities.user_id
    -- This join adds no rows: no two active users have the same name.
    left join reserved_names
        on
            app.normalize_username(identities.clever_id) = reserved_names.username_key
            and identities.user_id is distinct from reserved_names.user_id
)
select
    clever_id,
    case when decision = 'create' and (has_no_role or is_name_held) then null else user_id end as user_id,
    case
        when is_relink_held then 'held'
        when is_name_held then case when is_active then 'held' else 'none' end
        when decision in ('link', 'adopt', 'relink', 'create') and has_no_role then case when is_active then 'held' else 'none' end
        else decision
    end as decision,
    case
        when is_relink_held then 'relinks'
        when is_name_held then 'username_taken'
        when decision in ('link', 'adopt', 'relink', 'create') and has_no_role then 'held_role'
        else rule
    end as rule,
    -- An active user whose admin role is held keeps the present username (R7.4).
    is_identity_held or (is_admin_held and is_active) as keeps_username,
    takes_plain_username,
    is_admin_held,
    is_identity_held,
    is_student
from after_brakes
