-- People who did not get the username they asked for and sign in by their Clever id instead.
-- grain: one row per offending record
-- rules: R5.5
-- decides by: itself
-- severity: warn
select 'users' as resource, clever_id
from reconcile.usernames
where rule in ('taken', 'contested')
