-- Brakes of which at least one act is under no hold. An approval of such a brake lets something through, and is used up.
-- grain: one row per brake
-- rules: R7.5
-- decides by: district
-- Built only where an approval releases a brake (`sync/brakes.py`).
with held as (
    select acts.act
    from reconcile.brake_acts as acts
    inner join reconcile.holds as holds
        on
            acts.kind = holds.kind
            and (acts.school_id, acts.role, acts.collection) is not distinct from (holds.school_id, holds.role, holds.collection)
)
select distinct
    acts.kind,
    acts.school_id,
    acts.role,
    acts.collection
from reconcile.brake_acts as acts
where
    -- A brake over no acts (an empty collection with nothing to delete) has none that another hold could cover.
    acts.act is null
    or not exists (select 1 from held where held.act = acts.act)
