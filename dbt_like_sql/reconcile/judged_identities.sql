-- What is done about each person, now that the brakes have spoken. Licenses come after.
-- grain: one row per person of the snapshot
-- rules: R5.5, R7.4
-- decision: as in reconcile.identities, and held (the existing user stays exactly as is, and the person is not created)
with recursive granted as (
    select distinct clever_id from reconcile.granted_roles
),

-- Names that stay with users whom a brake holds, and in turn with whoever is held because such a name is their Clever id (R5.5).
kept_names as (
    select users.clever_id, users.username_key
    from app.users as users
    left join reconcile.held_users as held_users on users.user_id = held_users.user_id
    left join reconcile.identities as identities
        on users.user_id = identities.user_id and identities.decision in ('relink', 'relink_deactivated')
    where
        users.district_id = :district_id
        and users.deleted_at is null
        and (
            held_users.user_id is not null
            or (identities.user_id is not null and exists (select 1 from reconcile.holds as holds where holds.kind = 'relinks'))
        )
    union
    select users.clever_id, users.username_key
    from kept_names
    inner join reconcile.people as people
        on kept_names.username_key = people.own_key and kept_names.clever_id is distinct from people.clever_id
    inner join app.users as users on users.district_id = :district_id and people.clever_id = users.clever_id
    where users.deleted_at is null
),

judged as (
    select
        identities.clever_id,
        identities.user_id,
        identities.decision,
        identities.rule,
        users.deleted_at is null and users.user_id is not null as is_active,
        exists (select 1 from reconcile.holds as holds where holds.kind = 'relinks')
        and identities.decision in ('relink', 'relink_deactivated') as is_relink_held,
        granted.clever_id is null as has_nothing_granted,
        identities.decision in ('link', 'adopt', 'relink', 'create')
        and exists (
            select 1
            from kept_names
            where
                kept_names.username_key = app.normalize_username(identities.clever_id)
                and kept_names.clever_id is distinct from identities.clever_id
        ) as is_name_held,
        new_admins.clever_id is not null
        and exists (select 1 from reconcile.holds as holds where holds.kind = 'new_admins') as is_admin_held
    from reconcile.identities as identities
    left join app.users as users on users.district_id = :district_id and identities.user_id = users.user_id
    left join granted on identities.clever_id = granted.clever_id
    left join reconcile.new_admins as new_admins on identities.clever_id = new_admins.clever_id
)
select
    clever_id,
    case when decision = 'create' and (has_nothing_granted or is_name_held) then null else user_id end as user_id,
    case
        when is_relink_held then 'held'
        when is_name_held then case when is_active then 'held' else 'none' end
        when decision in ('create', 'adopt', 'relink') and has_nothing_granted then case when is_active then 'held' else 'none' end
        when decision = 'link' and has_nothing_granted and not is_active then 'none'
        else decision
    end as decision,
    case
        when is_relink_held then 'relinks'
        when is_name_held then 'username_taken'
        when decision in ('create', 'adopt', 'relink') and has_nothing_granted then 'held_role'
        when decision = 'link' and has_nothing_granted and not is_active then 'held_role'
        else rule
    end as rule,
    -- A would-be admin keeps the username they have (R7.4).
    is_admin_held and is_active and decision = 'link' as keeps_username,
    is_admin_held
from judged
