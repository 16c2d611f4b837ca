-- People who do not get the username that Clever sends. Their username is their Clever id instead.
-- grain: one row per offending record
-- rules: R5.5
-- decides by: itself
-- severity: warn
select 'users' as resource, clever_id
from reconcile.usernames
where rule in ('taken', 'contested')
