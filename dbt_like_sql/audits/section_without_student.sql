-- Sections that list no student.
-- grain: one row per offending record
-- rules: R4.3
-- decides by: itself
-- severity: warn
select 'sections' as resource, clever_id
from staging.sections
where district_id = :district_id and cardinality(students) = 0
