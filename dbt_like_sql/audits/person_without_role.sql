-- People without any role, because Clever lists no school for them, or none that is shared. They are not rostered.
-- grain: one row per offending record
-- rules: R5.8
-- decides by: itself
-- severity: warn
select 'users' as resource, clever_id
from reconcile.people
where status = 'no_role'
