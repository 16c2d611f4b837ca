-- People who are left with no role, because no school is listed or none is shared. Not rostered.
-- grain: one row per offending record
-- rules: R5.8
-- decides by: itself
-- severity: warn
select 'users' as resource, clever_id
from reconcile.people
where status = 'no_role'
