-- What each school of the agreement means: the school with its kept Clever id; else the one with this Clever id; else those with its name.
-- A quarantined school still has its Clever id (R4.6).
-- grain: one row per school of the agreement and school that it means; one with no school if it means none
-- rules: R4.6, R6.4
-- decides by: district
-- meanings: how many schools it means. stored_id: the Clever id that is kept from the last sync
with agreed as (
    select agreed_school_id, name, licenses, clever_id as stored_id, app.normalize_username(name) as name_key
    from app.agreed_schools
    where district_id = :district_id
),

present as (
    select clever_id, app.normalize_username(clever_id) as id_key, app.normalize_username(name) as name_key, true as is_shared
    from staging.schools
    where district_id = :district_id
    union all
    select clever_id, app.normalize_username(clever_id) as id_key, null as name_key, false as is_shared
    from staging.quarantined
    where district_id = :district_id and resource = 'schools'
),

meant as (
    select
        agreed.agreed_school_id,
        agreed.name,
        agreed.licenses,
        agreed.stored_id,
        present.clever_id,
        present.is_shared,
        rank() over (
            partition by agreed.agreed_school_id
            order by
                case
                    when agreed.stored_id = present.clever_id then 1
                    when agreed.name_key = present.id_key then 2
                    else 3
                end
        ) as rank
    from agreed
    left join present
        on agreed.stored_id = present.clever_id or agreed.name_key = present.id_key or agreed.name_key = present.name_key
)
select
    agreed_school_id,
    name,
    licenses,
    stored_id,
    clever_id,
    is_shared,
    count(clever_id) over (partition by agreed_school_id) as meanings
from meant
where rank = 1
