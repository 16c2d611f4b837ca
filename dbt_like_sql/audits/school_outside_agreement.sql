-- Schools outside the agreement. They are not rostered.
-- grain: one row per offending record
-- rules: R6.4
-- decides by: itself
-- severity: warn
select 'schools' as resource, clever_id
from reconcile.schools
where status = 'outside'
