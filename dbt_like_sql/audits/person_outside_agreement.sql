-- People outside the agreed schools or grades. They are not rostered.
-- grain: one row per offending record
-- rules: R6.4
-- decides by: itself
-- severity: warn
select 'users' as resource, clever_id
from reconcile.people
where status in ('outside_school', 'outside_grade')
