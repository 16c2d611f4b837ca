-- Students listed in a section of a school at which they are not rostered. They are not enrolled.
-- grain: one row per offending record
-- rules: R6.3
-- decides by: itself
-- severity: warn
select 'enrollments' as resource, person as clever_id
from reconcile.memberships
where status = 'other_school'
