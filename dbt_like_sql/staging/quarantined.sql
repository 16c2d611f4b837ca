-- Records that broke a mandatory rule. They count as present (R4.6): the rows of `app` behind them are left unchanged.
-- grain: one row per resource and Clever id whose newest record was rejected
-- key: district_id, resource, clever_id
-- rules: R4.2, R4.6
with landed as (
    select 'schools' as resource, clever_id, last_modified, position, rejected from clever.schools
    union all
    -- Clever gives terms no last_modified.
    select 'terms' as resource, clever_id, cast(null as timestamptz) as last_modified, position, rejected from clever.terms
    union all
    select 'sections' as resource, clever_id, last_modified, position, rejected from clever.sections
    union all
    select 'users' as resource, clever_id, last_modified, position, rejected from clever.users
),

newest_first as (
    select
        *,
        row_number() over (partition by resource, clever_id order by last_modified desc nulls last, position desc) as rank
    from landed
    where clever_id <> ''
)
select
    cast(:district_id as bigint) as district_id,
    resource,
    clever_id
from newest_first
where rank = 1 and rejected
