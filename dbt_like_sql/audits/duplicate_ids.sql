-- One Clever id twice in one collection: the newest record was taken.
-- grain: one row per offending record
-- rules: R3.8
-- decides by: itself
-- severity: warn
select 'schools' as resource, clever_id from clever.schools group by clever_id having count(*) > 1
union all
select 'sections' as resource, clever_id from clever.sections group by clever_id having count(*) > 1
union all
select 'users' as resource, clever_id from clever.users group by collection, clever_id having count(*) > 1
