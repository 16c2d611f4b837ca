-- Which schools this sync rosters.
-- grain: one row per school of the snapshot, and per quarantined school that exists
-- rules: R4.6, R6.1, R6.4, R8.1, R9.1
-- decides by: district
-- standing: rostered | outside (the agreement) | frozen (quarantined: the existing school and what is in it stay as they are)
--           | protected (a deleted protected row: nothing of it changes, so nothing can be rostered there)
with agreed as (
    select clever_id, licenses, app.normalize_username(name) as name_key
    from app.agreed_schools
    where district_id = :district_id
),

shared as (
    select clever_id, name, app.normalize_username(name) as name_key
    from staging.schools
    where district_id = :district_id
),

inside as (
    select shared.clever_id, cast(null as integer) as licenses from shared where not exists (select 1 from agreed)
    union
    select shared.clever_id, agreed.licenses from shared inner join agreed on shared.clever_id = agreed.clever_id
    union
    -- By name only where the agreement has no Clever id, or one that is not shared (R6.4). Two schools of one name are both inside.
    select shared.clever_id, agreed.licenses
    from shared
    inner join agreed on shared.name_key = agreed.name_key
    where not exists (select 1 from shared as by_id where by_id.clever_id = agreed.clever_id)
),

existing as (
    select school_id, clever_id, protected, deleted_at
    from app.schools
    where district_id = :district_id and clever_id is not null
),

judged as (
    select
        shared.clever_id,
        shared.name,
        existing.school_id,
        inside.licenses,
        case
            when inside.clever_id is null then 'outside'
            when existing.protected and existing.deleted_at is not null then 'protected'
            else 'rostered'
        end as standing
    from shared
    -- Agreed both by Clever id and by name: the smaller number counts.
    left join (select clever_id, min(licenses) as licenses from inside group by clever_id) as inside on shared.clever_id = inside.clever_id
    left join existing on shared.clever_id = existing.clever_id
    union all
    select quarantined.clever_id, null as name, existing.school_id, null as licenses, 'frozen' as standing
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
    -- The id of a new school is drawn here, so that everything planned after it can refer to it before anything is written.
    case when standing = 'rostered' then coalesce(school_id, nextval('app.schools_school_id_seq')) else school_id end as school_id,
    school_id is null and standing = 'rostered' as is_new,
    licenses,
    standing
from judged
