-- Which schools this sync rosters.
-- grain: one row per school of the snapshot, and per quarantined school that exists; per school without a Clever id too, if an element of
--        the schools cannot be read
-- rules: R4.6, R4.8, R6.1, R6.4, R6.5, R8.1, R9.1
-- decides by: district
-- status: `rostered` | `outside` (the agreement) | `frozen` (quarantined: the existing school and everything in it are left unchanged)
--         | `protected` (a protected row that is soft-deleted: it is left unchanged, so nothing can be rostered there)
-- is_relinked: the existing school had another Clever id, which is no longer shared
with shared as (
    select clever_id, name, app.normalize_username(name) as name_key
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
    select school_id, clever_id, app.normalize_username(name) as name_key, protected, deleted_at
    from app.schools
    where district_id = :district_id and clever_id is not null
),

-- Schools that Clever shares for the first time: those of one name cannot be distinguished.
newcomers as (
    select min(shared.clever_id) as clever_id, shared.name_key
    from shared
    where not exists (select 1 from existing where existing.clever_id = shared.clever_id)
    group by shared.name_key
    having count(*) = 1
),

-- Schools whose Clever id is no longer shared. A quarantined one is not.
missing as (
    select
        school_id,
        name_key,
        deleted_at is null as is_active,
        count(*) filter (where deleted_at is null) over same_name as active_count,
        count(*) over same_name as all_count
    from existing
    where
        not protected
        and not exists (select 1 from shared where shared.clever_id = existing.clever_id)
        and not exists (
            select 1 from staging.quarantined
            where quarantined.district_id = :district_id and quarantined.resource = 'schools' and quarantined.clever_id = existing.clever_id
        )
    window same_name as (partition by name_key)
),

relinked as (
    select newcomers.clever_id, missing.school_id, missing.is_active
    from newcomers
    inner join missing on newcomers.name_key = missing.name_key
    -- A new school outside the agreement takes no place over.
    inner join (select distinct clever_id from inside) as inside on newcomers.clever_id = inside.clever_id
    -- There must be exactly one. Soft-deleted schools count only if none is active.
    where case when missing.active_count > 0 then missing.is_active and missing.active_count = 1 else missing.all_count = 1 end
),

decided as (
    select
        shared.clever_id,
        shared.name,
        coalesce(existing.school_id, relinked.school_id) as school_id,
        relinked.school_id is not null as is_relinked,
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
    left join relinked on shared.clever_id = relinked.clever_id
    union all
    select quarantined.clever_id, null as name, existing.school_id, false as is_relinked, null as licenses, 'frozen' as status
    from staging.quarantined
    inner join existing on quarantined.clever_id = existing.clever_id
    where
        quarantined.district_id = :district_id
        and quarantined.resource = 'schools'
        and existing.deleted_at is null
    union all
    -- The pull may have it in the element that cannot be read. With a Clever id it is quarantined.
    select null as clever_id, null as name, schools.school_id, false as is_relinked, null as licenses, 'frozen' as status
    from app.schools as schools
    inner join staging.unreadable as unreadable on unreadable.collection = 'schools'
    where schools.district_id = :district_id and schools.clever_id is null and schools.deleted_at is null
)
select
    clever_id,
    name,
    -- A new school gets its id here, so that the rest of the plan can refer to it before the school is written.
    case when status = 'rostered' then coalesce(school_id, nextval(cast(:school_ids as regclass))) else school_id end as school_id,
    school_id is null and status = 'rostered' as is_new,
    is_relinked,
    licenses,
    status
from decided
