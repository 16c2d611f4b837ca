-- The district object of this pull.
-- grain: one row
-- key: district_id
-- rules: R3.2, R3.7
select
    cast(:district_id as bigint) as district_id,
    clever_id,
    name,
    state,
    last_sync,
    pulled_at
from clever.districts
