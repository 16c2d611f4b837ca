-- People who would become district admins: Clever lists the role, and they do not have it yet.
-- grain: one row per person
-- rules: R7.3, R7.4
-- decides by: itself
-- is_active: the person is an active user already
select
    identities.clever_id,
    identities.user_id,
    users.user_id is not null as is_active
from reconcile.identities as identities
inner join reconcile.listed_roles as listed on identities.clever_id = listed.clever_id
left join app.users as users
    on users.district_id = :district_id and identities.user_id = users.user_id and users.deleted_at is null
where
    listed.role = 'district_admin'
    and identities.decision in ('link', 'adopt', 'relink', 'create')
    and not exists (
        select 1
        from app.user_roles as held
        where
            held.district_id = :district_id
            and held.user_id = users.user_id
            and held.role = 'district_admin'
            and held.deleted_at is null
    )
