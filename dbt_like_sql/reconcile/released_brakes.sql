-- Brakes with at least one act that no hold covers. An approval of such a brake releases something, so it is used up.
-- grain: one row per brake
-- rules: R7.5
-- decides by: district
-- Built only if an approval releases a brake (`sync/brakes.py`).
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
    -- A brake without acts (an empty collection with nothing to delete) has nothing that another hold can cover.
    acts.act is null
    or not exists (select 1 from held where held.act = acts.act)
