-- Which students have a seat after this sync.
-- grain: one row per student of reconcile.students
-- rules: R9.1, R9.2
-- decides by: district
-- A student needs a seat in the district and one in the primary school. Seats are given in the order of created_at, Clever id and user_id,
-- which is a total order.
with caps as (
    select over_license_policy, licenses from app.districts where district_id = :district_id
),

school_caps as (
    select
        schools.school_id,
        schools.licenses - count(students.user_id) filter (where students.has_seat) as free
    from reconcile.school_status as schools
    left join reconcile.students as students on schools.school_id = students.school_id
    where schools.licenses is not null
    group by schools.school_id, schools.licenses
),

waiting as (
    select
        students.user_id,
        -- The first students of a school fill its free seats. A student without a seat there takes none of the district either.
        school_caps.free is null
        or row_number() over (partition by students.school_id order by students.created_at, students.clever_id, students.user_id)
        <= school_caps.free as fits_school,
        students.created_at,
        students.clever_id
    from reconcile.students as students
    left join school_caps on students.school_id = school_caps.school_id
    -- Students that this sync leaves unchanged are not in the queue: they get no seat and take none from others.
    where not students.has_seat and not students.is_unchanged
),

ranked as (
    select
        user_id,
        fits_school,
        row_number() over (partition by fits_school order by created_at, clever_id, user_id) as position
    from waiting
),

district_free as (
    select caps.licenses - (select count(*) from reconcile.students where has_seat) as free from caps
)
select
    students.user_id,
    students.clever_id,
    students.school_id,
    students.is_arriving,
    students.is_unchanged,
    students.has_seat
    or caps.over_license_policy = 'warn'
    or coalesce(ranked.fits_school and (district_free.free is null or ranked.position <= district_free.free), false) as has_seat
from reconcile.students as students
cross join caps
cross join district_free
left join ranked on students.user_id = ranked.user_id
