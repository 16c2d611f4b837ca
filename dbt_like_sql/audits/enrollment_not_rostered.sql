-- Members of rostered sections who are not rostered themselves. They are not enrolled.
-- grain: one row per offending record
-- rules: R6.2, R6.4
-- decides by: itself
-- severity: warn
select 'enrollments' as resource, person as clever_id
from reconcile.memberships
where status = 'not_rostered'
