-- What is done about each person, now that the brakes have spoken. Licenses come after.
-- grain: one row per person of the snapshot
-- rules: R7.4
-- decision: as in reconcile.identities, and held (the existing user stays exactly as is, and the person is not created)
with granted as (
    select distinct clever_id from reconcile.granted_roles
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
        new_admins.clever_id is not null
        and exists (select 1 from reconcile.holds as holds where holds.kind = 'new_admins') as is_admin_held
    from reconcile.identities as identities
    left join app.users as users on users.district_id = :district_id and identities.user_id = users.user_id
    left join granted on identities.clever_id = granted.clever_id
    left join reconcile.new_admins as new_admins on identities.clever_id = new_admins.clever_id
)
select
    clever_id,
    case when decision = 'create' and has_nothing_granted then null else user_id end as user_id,
    case
        when is_relink_held then 'held'
        when decision in ('create', 'adopt', 'relink') and has_nothing_granted then case when is_active then 'held' else 'none' end
        when decision = 'link' and has_nothing_granted and not is_active then 'none'
        else decision
    end as decision,
    case
        when is_relink_held then 'relinks'
        when decision in ('create', 'adopt', 'relink') and has_nothing_granted then 'held_role'
        when decision = 'link' and has_nothing_granted and not is_active then 'held_role'
        else rule
    end as rule,
    -- A would-be admin keeps the username they have (R7.4).
    is_admin_held and is_active and decision = 'link' as keeps_username,
    is_admin_held
from judged
