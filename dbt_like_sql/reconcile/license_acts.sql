-- Students who are beyond the licenses: under the policy `hold` they are neither created nor restored.
-- grain: one row per student
-- rules: R9.2
-- decides by: itself
select seats.clever_id, 'seat users ' || seats.clever_id as act
from reconcile.seats as seats
inner join app.districts as districts on districts.district_id = :district_id
where districts.over_license_policy = 'hold' and seats.is_arriving and not seats.has_seat
