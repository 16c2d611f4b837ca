-- Which schools this sync may change, after brakes are applied.
-- grain: one row per school of the snapshot, per quarantined school that exists and per school with a held brake
-- rules: R4.6, R6.5, R7.4
-- decides by: itself
-- status: as in reconcile.schools; `frozen` also if a brake holds the school, or its new Clever id
with held as (
    -- One row per school, even if several roles are held there.
    select distinct school_id from reconcile.holds where kind = 'school_role'
)
select
    schools.clever_id,
    schools.name,
    schools.school_id,
    schools.is_new,
    schools.licenses,
    case
        when held.school_id is not null then 'frozen'
        when schools.is_relinked and exists (select 1 from reconcile.holds as holds where holds.kind = 'relinks') then 'frozen'
        else schools.status
    end as status
from reconcile.schools as schools
left join held on schools.school_id = held.school_id
union all
select
    schools.clever_id,
    schools.name,
    schools.school_id,
    false as is_new,
    cast(null as integer) as licenses,
    'frozen' as status
from app.schools as schools
inner join held on schools.school_id = held.school_id
where
    schools.district_id = :district_id
    and not exists (select 1 from reconcile.schools as known where known.school_id = schools.school_id)
