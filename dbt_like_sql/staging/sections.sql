-- The last accepted snapshot of the district's sections.
-- grain: one row per Clever id, quarantined records left out
-- key: district_id, clever_id
-- rules: R3.8, R4.6
with newest_first as (
    select
        *,
        -- Total order: the newest record wins; of two equally new ones, the one with the later position (R3.8). A broken record of unknown
        -- age counts as the newest: what is behind it stays (R4.6).
        row_number() over (
            partition by clever_id order by rejected and last_modified is null desc, last_modified desc nulls last, position desc
        ) as rank
    from clever.sections
)
select
    cast(:district_id as bigint) as district_id,
    clever_id,
    name,
    school,
    course,
    term,
    students,
    teachers,
    last_modified,
    digest
from newest_first
where rank = 1 and not rejected
