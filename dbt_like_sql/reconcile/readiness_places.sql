-- The part of reconcile.readiness about schools and classrooms.
-- grain: one row per topic and item, also at zero
-- rules: R6.1, R6.4
-- decides by: district
with shared as (
    select clever_id
    from staging.schools
    where district_id = :district_id
),

agreed_schools as (
    select distinct agreed_school_id, name, meanings
    from reconcile.agreed_schools
),

schools as (
    select
        count(*) as agreed,
        count(*) filter (where meanings > 0) as agreed_and_shared,
        count(*) filter (where meanings = 0) as agreed_not_shared,
        string_agg(name, ', ' order by name collate "C") filter (where meanings = 0) as agreed_not_shared_names,
        count(*) filter (where meanings > 1) as same_name,
        string_agg(name || ' (' || meanings || ')', ', ' order by name collate "C") filter (where meanings > 1) as same_name_names
    from agreed_schools
),

by_status as (
    select
        count(*) filter (where status = 'outside') as outside,
        string_agg(name, ', ' order by name collate "C", clever_id collate "C") filter (where status = 'outside') as outside_names,
        count(*) filter (where status = 'protected') as protected,
        string_agg(name, ', ' order by name collate "C", clever_id collate "C") filter (where status = 'protected') as protected_names
    from reconcile.schools
),

quarantined as (
    select
        count(*) filter (where resource = 'schools') as schools,
        count(*) filter (where resource = 'sections') as sections
    from staging.quarantined
    where district_id = :district_id and is_shown
),

sections as (
    select classrooms.status, sections.school
    from staging.sections as sections
    left join reconcile.classrooms as classrooms on sections.clever_id = classrooms.clever_id
    where sections.district_id = :district_id
),

classrooms as (
    select
        count(*) as shared,
        count(*) filter (where status = 'rostered') as rostered,
        count(*) filter (where status = 'unknown_school') as unknown_school,
        count(*) filter (where status = 'outside') as outside,
        -- A section without a classroom at a quarantined school has no status: no classroom is created.
        count(*) filter (where coalesce(status, 'frozen') in ('frozen', 'protected')) as unchanged
    from sections
),

empty_schools as (
    select count(*) as schools, string_agg(name, ', ' order by name collate "C", clever_id collate "C") as names
    from reconcile.schools
    where status = 'rostered' and not exists (select 1 from sections where sections.school = schools.clever_id)
)
select
    'schools' as topic,
    item.name as item,
    item.count,
    item.detail
from schools
cross join by_status
cross join quarantined
cross join lateral (
    values
    ('agreed', schools.agreed, null),
    ('shared', (select count(*) from shared), null),
    ('agreed_and_shared', schools.agreed_and_shared, null),
    ('agreed_not_shared', schools.agreed_not_shared, schools.agreed_not_shared_names),
    ('outside', by_status.outside, by_status.outside_names),
    ('same_name', schools.same_name, schools.same_name_names),
    ('protected', by_status.protected, by_status.protected_names),
    ('quarantined', quarantined.schools, null)
) as item (name, count, detail)
union all
select
    'classrooms' as topic,
    item.name as item,
    item.count,
    item.detail
from classrooms
cross join empty_schools
cross join quarantined
cross join lateral (
    values
    ('shared', classrooms.shared, null),
    ('rostered', classrooms.rostered, null),
    ('unknown_school', classrooms.unknown_school, null),
    ('outside', classrooms.outside, null),
    ('untouched', classrooms.unchanged, null),
    ('quarantined', quarantined.sections, null),
    ('schools_without', empty_schools.schools, empty_schools.names)
) as item (name, count, detail)
