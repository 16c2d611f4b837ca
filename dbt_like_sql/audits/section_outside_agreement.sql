-- Sections of a school outside the agreement. They are not rostered.
-- grain: one row per offending record
-- rules: R6.1, R6.4
-- decides by: itself
-- severity: warn
select 'sections' as resource, clever_id
from reconcile.classrooms
where status = 'outside'
