-- Users whose login (username@domain) is also that of an active user in another district with the same domain.
-- grain: one row per offending record; the user_id of somebody without Clever id
-- rules: R6.6
-- decides by: name
-- severity: warn
with logins as (
    select clever_id, app.normalize_username(username) as username_key
    from reconcile.users
    union
    -- Protected users keep their names.
    select coalesce(clever_id, cast(user_id as text)) as clever_id, username_key
    from app.users
    where district_id = :district_id and protected and deleted_at is null
),

neighbours as (
    select others.district_id
    from app.districts as ours
    inner join app.districts as others on app.domain_key(ours.domain) = app.domain_key(others.domain)
    where ours.district_id = :district_id and others.district_id <> :district_id and others.status in ('active', 'paused')
)
select distinct 'users' as resource, logins.clever_id
from neighbours
inner join app.users as others on neighbours.district_id = others.district_id
inner join logins on others.username_key = logins.username_key
where others.deleted_at is null
