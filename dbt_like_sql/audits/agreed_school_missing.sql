-- Schools of the agreement that Clever does not share: neither the Clever id nor the name means a school.
-- grain: one row per offending entry of the agreement; its name where no Clever id is kept
-- rules: R6.4
-- decides by: district
-- severity: warn
select 'schools' as resource, coalesce(stored_id, name) as clever_id
from reconcile.agreed_schools
where meanings = 0
