-- People without a district username, who can only sign in through Clever. Admins are not counted: they always sign in through Clever.
-- grain: one row per offending record
-- rules: R5.9
-- decides by: itself
-- severity: warn
select 'users' as resource, clever_id
from staging.users
where district_id = :district_id and username is null and not is_district_admin and staff_schools is null
