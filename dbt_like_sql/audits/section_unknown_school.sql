-- Sections that name no school, or one that is not shared. They are not rostered.
-- grain: one row per offending record
-- rules: R4.3, R6.1
-- decides by: itself
-- severity: warn
select 'sections' as resource, clever_id
from reconcile.classrooms
where status = 'unknown_school'
