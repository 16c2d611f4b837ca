-- People who would become district admins.
-- grain: one row per person
-- rules: R7.3, R7.4
select identities.clever_id, identities.user_id
from reconcile.identities as identities
inner join reconcile.listed_roles as listed on identities.clever_id = listed.clever_id
where
    listed.role = 'district_admin'
    and identities.decision in ('link', 'adopt', 'relink', 'create')
    and not exists (
        select 1
        from app.user_roles as held
        inner join app.users as users on held.district_id = users.district_id and held.user_id = users.user_id
        where
            held.district_id = :district_id
            and held.user_id = identities.user_id
            and held.role = 'district_admin'
            and held.deleted_at is null
            and users.deleted_at is null
    )
