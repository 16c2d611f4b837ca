-- Which schools this sync rosters.
-- grain: one row per school of the snapshot, and per quarantined school that exists
-- rules: R4.6, R6.1, R6.4, R8.1, R9.1
-- decides by: district
-- status: `rostered` | `outside` (the agreement) | `frozen` (quarantined: the existing school and everything in it are left unchanged)
--         | `protected` (a protected row that is soft-deleted: it is left unchanged, so nothing can be rostered there)
with shared as (
    select clever_id, name
    from staging.schools
    where district_id = :district_id
),

inside as (
    select shared.clever_id, cast(null as integer) as licenses
    from shared
    where not exists (select 1 from app.agreed_schools where district_id = :district_id)
    union
    select clever_id, licenses from reconcile.agreed_schools where is_shared
),

existing as (
    select school_id, clever_id, protected, deleted_at
    from app.schools
    where district_id = :district_id and clever_id is not null
),

decided as (
    select
        shared.clever_id,
        shared.name,
        existing.school_id,
        inside.licenses,
        case
            when inside.clever_id is null then 'outside'
            when existing.protected and existing.deleted_at is not null then 'protected'
            else 'rostered'
        end as status
    from shared
    -- If a school is agreed both by Clever id and by name, the smaller number of licenses counts.
    left join (select clever_id, min(licenses) as licenses from inside group by clever_id) as inside on shared.clever_id = inside.clever_id
    left join existing on shared.clever_id = existing.clever_id
    union all
    select quarantined.clever_id, null as name, existing.school_id, null as licenses, 'frozen' as status
    from staging.quarantined
    inner join existing on quarantined.clever_id = existing.clever_id
    where
        quarantined.district_id = :district_id
        and quarantined.resource = 'schools'
        and existing.deleted_at is null
)
select
    clever_id,
    name,
    -- A new school gets its id here, so that the rest of the plan can refer to it before the school is written.
    case when status = 'rostered' then coalesce(school_id, nextval(cast(:school_ids as regclass))) else school_id end as school_id,
    school_id is null and status = 'rostered' as is_new,
    licenses,
    status
from decided
