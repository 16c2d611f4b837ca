-- Clever ids that one collection returned more than once. The newest record is used.
-- grain: one row per offending record
-- rules: R3.8
-- decides by: itself
-- severity: warn
select 'schools' as resource, clever_id from clever.schools group by clever_id having count(*) > 1
union all
select 'sections' as resource, clever_id from clever.sections group by clever_id having count(*) > 1
union all
select 'users' as resource, clever_id from clever.users group by collection, clever_id having count(*) > 1
