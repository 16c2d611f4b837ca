-- Records that broke a mandatory rule. They count as present (R4.6): who or what stands behind one stays exactly as is.
-- grain: one row per resource and Clever id whose newest record was rejected
-- key: district_id, resource, clever_id
-- rules: R4.2, R4.6
with arrived as (
    select 'schools' as resource, clever_id, last_modified, arrival, rejected from clever.schools
    union all
    select 'sections' as resource, clever_id, last_modified, arrival, rejected from clever.sections
    union all
    select 'users' as resource, clever_id, last_modified, arrival, rejected from clever.users
),

newest_first as (
    select
        *,
        row_number() over (partition by resource, clever_id order by last_modified desc nulls last, arrival desc) as position
    from arrived
    where clever_id <> ''
)
select
    cast(:district_id as bigint) as district_id,
    resource,
    clever_id
from newest_first
where position = 1 and rejected
