-- People with an active account whose record in Clever has no role any more: no school is listed, or none that is shared. They are
-- soft-deleted, unless a brake holds it.
-- grain: one row per offending record
-- rules: R4.7, R5.8
-- decides by: itself
-- severity: warn
select 'users' as resource, clever_id
from reconcile.deletion_candidates
where entity = 'users' and reason = 'no_role'
