-- What is done about each person, after brakes and licenses are applied. Everything that is written follows from this.
-- grain: one row per person of the snapshot
-- rules: R5.4, R7.4, R9.2
-- decides by: itself
-- is_waiting: a student without a seat
select
    judged.clever_id,
    case when license_acts.clever_id is not null and not license_hold.is_released and judged.decision = 'create' then null
        else judged.user_id
    end as user_id,
    case when license_acts.clever_id is not null and not license_hold.is_released then 'none' else judged.decision end as decision,
    case when license_acts.clever_id is not null and not license_hold.is_released then 'licenses' else judged.rule end as rule,
    judged.keeps_username,
    judged.is_admin_held,
    judged.is_student,
    -- An approved hold makes its students licensed; otherwise a student without a seat waits.
    coalesce(not seats.has_seat and license_acts.clever_id is null, false) as is_waiting
from reconcile.judged_identities as judged
cross join reconcile.license_hold as license_hold
left join reconcile.seats as seats on judged.clever_id = seats.clever_id and not seats.is_untouched
left join reconcile.license_acts as license_acts on judged.clever_id = license_acts.clever_id
