-- People whose Clever id is the username of somebody who stays. Quarantined: their own Clever id would have to be their name.
-- grain: one row per offending record
-- rules: R5.5
-- decides by: itself
-- severity: error
select 'users' as resource, clever_id
from reconcile.people
where status = 'username_taken'
