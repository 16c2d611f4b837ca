-- What this sync does about each person, after brakes and licenses are applied. Every write about people follows from this.
-- grain: one row per person of the snapshot
-- rules: R5.4, R7.4, R9.2
-- decides by: itself
-- is_waiting: a student who is rostered without a seat
select
    after_brakes.clever_id,
    case when license_acts.clever_id is not null and not license_hold.is_released and after_brakes.decision = 'create' then null
        else after_brakes.user_id
    end as user_id,
    case when license_acts.clever_id is not null and not license_hold.is_released then 'none' else after_brakes.decision end as decision,
    case when license_acts.clever_id is not null and not license_hold.is_released then 'licenses' else after_brakes.rule end as rule,
    after_brakes.keeps_username,
    after_brakes.takes_plain_username,
    after_brakes.is_admin_held,
    after_brakes.is_identity_held,
    after_brakes.is_student,
    -- A student without a seat waits. Students of an approved `licenses` hold do not: they become licensed.
    coalesce(not seats.has_seat and license_acts.clever_id is null, false) as is_waiting
from reconcile.identities_after_brakes as after_brakes
cross join reconcile.license_hold as license_hold
left join reconcile.seats as seats on after_brakes.clever_id = seats.clever_id and not seats.is_unchanged
left join reconcile.license_acts as license_acts on after_brakes.clever_id = license_acts.clever_id
