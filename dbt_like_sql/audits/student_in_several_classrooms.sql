-- Students rostered in more than one classroom: their reports repeat.
-- grain: one row per offending record
-- rules: R6.3
-- decides by: section
-- severity: warn
select 'users' as resource, clever_id
from reconcile.memberships
where role = 'student' and status = 'enrolled'
group by clever_id
having min(section) < max(section)
