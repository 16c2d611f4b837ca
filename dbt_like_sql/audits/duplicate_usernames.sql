-- People whose username another person of the district has too.
-- grain: one row per offending record
-- rules: R4.3, R5.5
-- decides by: name
-- severity: warn
with named as (
    select
        clever_id,
        count(*) over (partition by app.normalize_username(username)) as holders
    from staging.users
    where district_id = :district_id and username is not null
)
select 'users' as resource, clever_id
from named
where holders > 1
