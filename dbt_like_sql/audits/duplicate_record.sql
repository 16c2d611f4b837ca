-- Second records of people that Clever lists twice. They get no second account.
-- grain: one row per offending record
-- rules: R4.3, R5.10
-- decides by: itself
-- severity: warn
select 'users' as resource, clever_id
from reconcile.duplicate_records
