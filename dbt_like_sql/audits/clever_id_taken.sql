-- People whose Clever id is the username of another user who keeps it. They are quarantined: a Clever id is reserved for its person.
-- grain: one row per offending record
-- rules: R5.5
-- decides by: itself
-- severity: error
select 'users' as resource, clever_id
from reconcile.people
where status = 'username_taken'
