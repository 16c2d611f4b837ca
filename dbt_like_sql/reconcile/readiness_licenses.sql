-- The part of reconcile.readiness about licenses.
-- grain: one row per item, also at zero, and one per school with licenses of its own, `school <Clever id>`
-- rules: R9.1
-- decides by: district
with students as (
    select students.school_id, removals.entity_id is not null as is_removed
    from reconcile.students as students
    left join reconcile.deletion_candidates as removals on removals.entity = 'users' and students.user_id = removals.entity_id
),

licenses as (
    select
        districts.licenses as bought,
        count(students.is_removed) filter (where not students.is_removed) as students,
        count(students.is_removed) filter (where students.is_removed) as held
    from app.districts as districts
    left join students on true
    where districts.district_id = :district_id
    group by districts.licenses
),

school_licenses as (
    select
        schools.clever_id,
        coalesce(schools.name, existing.name) as name,
        schools.licenses,
        count(students.is_removed) filter (where not students.is_removed) as students
    from reconcile.schools as schools
    left join app.schools as existing on existing.district_id = :district_id and schools.school_id = existing.school_id
    left join students on schools.school_id = students.school_id
    where schools.licenses is not null and schools.status = 'rostered'
    group by schools.clever_id, schools.name, existing.name, schools.licenses
),

schools_over as (
    select
        count(*) as schools,
        string_agg(
            name || ' (students: ' || students || ', licenses: ' || licenses || ')', ', ' order by name collate "C", clever_id collate "C"
        ) as names
    from school_licenses
    where students > licenses
)
select
    'licenses' as topic,
    item.name as item,
    item.count,
    item.detail
from licenses
cross join schools_over
cross join lateral (
    values
    ('bought', coalesce(licenses.bought, 0), case when licenses.bought is null then 'no limit' end),
    ('students', licenses.students, null),
    ('over', greatest(licenses.students - licenses.bought, 0), null),
    ('free', greatest(licenses.bought - licenses.students, 0), null),
    ('held', licenses.held, null),
    ('schools_over', schools_over.schools, schools_over.names)
) as item (name, count, detail)
union all
select
    'licenses' as topic,
    'school ' || clever_id as item,
    students as count,
    name || ' (licenses: ' || licenses || ')' as detail
from school_licenses
