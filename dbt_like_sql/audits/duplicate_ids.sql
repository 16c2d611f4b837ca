-- Clever ids that one collection returned more than once. The newest record is used. A record without a readable id has the id ''.
-- grain: one row per offending record
-- rules: R3.8
-- decides by: itself
-- severity: warn
select 'schools' as resource, clever_id from clever.schools where clever_id <> '' group by clever_id having count(*) > 1
union all
select 'sections' as resource, clever_id from clever.sections where clever_id <> '' group by clever_id having count(*) > 1
union all
select 'users' as resource, clever_id from clever.users where clever_id <> '' group by collection, clever_id having count(*) > 1
