-- What only a window makes a sync count: rows that it keeps, or students who graduate.
-- grain: one row per count; none without such a window
-- rules: R14.3, R14.4
-- decides by: district
select 'deferred' as what, count(*) as rows
from (
    select held_by from reconcile.soft_deletes
    union all
    select held_by from reconcile.lost_roles
    union all
    select held_by from reconcile.enrollment_differences
) as losses
where losses.held_by = 'additions_only'
having :is_additions_only
union all
select 'graduated' as what, count(*) as rows
from reconcile.graduates as graduates
inner join reconcile.soft_deletes as removed on graduates.user_id = removed.entity_id
where removed.entity = 'users' and removed.held_by is null
having :is_rollover
