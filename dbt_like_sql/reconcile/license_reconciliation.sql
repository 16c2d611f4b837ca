-- Students compared with the licenses bought, for the district and for every school that has licenses of its own.
-- grain: one row per district, and per school with licenses
-- key: district_id, scope
-- rules: R9.1, R9.2, R9.3
-- decides by: district
-- scope: `district`, or the Clever id of a school
-- used: active students in scope after this sync; held: students that the policy `hold` keeps out
with students as (
    select
        seats.school_id,
        seats.has_seat,
        seats.is_unchanged or coalesce(decisions.decision, 'none') <> 'none' as is_rostered
    from reconcile.seats as seats
    left join reconcile.decisions as decisions on seats.clever_id = decisions.clever_id
),

district as (
    select
        'district' as scope,
        cast(null as bigint) as school_id,
        districts.licenses,
        count(students.has_seat) filter (where students.is_rostered) as used,
        count(students.has_seat) filter (where students.is_rostered and not students.has_seat) as without_seat,
        count(students.has_seat) filter (where not students.is_rostered) as held
    from app.districts as districts
    left join students on true
    where districts.district_id = :district_id
    group by districts.licenses
),

by_school as (
    select
        schools.clever_id as scope,
        schools.school_id,
        schools.licenses,
        count(students.has_seat) filter (where students.is_rostered) as used,
        count(students.has_seat) filter (where students.is_rostered and not students.has_seat) as without_seat,
        count(students.has_seat) filter (where not students.is_rostered) as held
    from reconcile.school_status as schools
    left join students on schools.school_id = students.school_id
    where schools.licenses is not null
    group by schools.clever_id, schools.school_id, schools.licenses
),

scopes as (
    select scope, school_id, licenses, used, without_seat, held from district
    union all
    select scope, school_id, licenses, used, without_seat, held from by_school
)
select
    cast(:district_id as bigint) as district_id,
    scope,
    school_id,
    licenses,
    used,
    without_seat,
    held,
    coalesce(used + held > licenses, false) as is_over
from scopes
