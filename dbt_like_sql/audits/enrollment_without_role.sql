-- Members of rostered sections who do not have the role under which the section lists them. They are not enrolled.
-- grain: one row per offending record
-- rules: R6.2
-- decides by: itself
-- severity: warn
select 'enrollments' as resource, person as clever_id
from reconcile.memberships
where status = 'without_role'
