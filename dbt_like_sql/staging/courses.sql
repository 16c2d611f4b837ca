-- The last accepted snapshot of the district's courses. Clever gives them no last_modified, so the record with the later position wins.
-- grain: one row per Clever id, quarantined records left out
-- key: district_id, clever_id
-- rules: R3.8, R4.6
with newest_first as (
    select
        *,
        row_number() over (partition by clever_id order by position desc) as rank
    from clever.courses
)
select
    cast(:district_id as bigint) as district_id,
    clever_id,
    name,
    number,
    digest
from newest_first
where rank = 1 and not rejected
