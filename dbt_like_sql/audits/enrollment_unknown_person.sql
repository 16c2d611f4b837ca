-- Members of rostered sections who are not shared in Clever. They are not enrolled.
-- grain: one row per offending record
-- rules: R4.3, R6.2
-- decides by: itself
-- severity: warn
select 'enrollments' as resource, person as clever_id
from reconcile.memberships
where status = 'unknown_person'
