-- The collections of this pull in which an element has no readable id. Nobody knows which record it is, so it can be any that the pull does
-- not show: nothing of these collections is soft-deleted (R4.8).
-- grain: one row per collection with such an element
-- key: district_id, collection
-- rules: R4.8
select distinct
    cast(:district_id as bigint) as district_id,
    landed.collection
from (
    select 'schools' as collection, clever_id from clever.schools
    union all
    select 'terms' as collection, clever_id from clever.terms
    union all
    select 'courses' as collection, clever_id from clever.courses
    union all
    select 'sections' as collection, clever_id from clever.sections
    union all
    select collection, clever_id from clever.users
) as landed
where landed.clever_id = ''
