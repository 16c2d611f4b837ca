-- Students shared in more than one school.
-- grain: one row per offending record
-- rules: R6.3
-- decides by: itself
-- severity: warn
select 'users' as resource, clever_id
from staging.users
where district_id = :district_id and cardinality(student_schools) > 1
