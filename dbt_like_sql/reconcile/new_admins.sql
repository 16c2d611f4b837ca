-- People who would become district admins or school admins: Clever lists the role, and they do not have it yet, at no school.
-- grain: one row per person and role
-- rules: R7.3, R7.4
-- decides by: itself
-- is_active: the person is an active user already
select distinct
    identities.clever_id,
    listed.role,
    users.user_id is not null as is_active
from reconcile.identities as identities
inner join reconcile.listed_roles as listed on identities.clever_id = listed.clever_id
left join app.users as users
    on users.district_id = :district_id and identities.user_id = users.user_id and users.deleted_at is null
where
    listed.role in ('district_admin', 'school_admin')
    -- At a quarantined school nobody gets a role (R4.6).
    and not listed.is_unchanged
    and identities.decision in ('link', 'adopt', 'relink', 'create')
    and not exists (
        select 1
        from app.user_roles as held
        where
            held.district_id = :district_id
            and held.user_id = users.user_id
            and held.role = listed.role
            and held.deleted_at is null
    )
