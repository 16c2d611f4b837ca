-- The roles that Clever lists for people within the agreement, at rostered and quarantined schools.
-- grain: one row per person, role and school (none for a district admin)
-- rules: R5.8, R6.3, R6.4
-- decides by: itself
-- is_unchanged: the school is quarantined: a role there stays, but none is added or ended (R4.6)
with people as (
    select
        users.clever_id,
        users.teacher_schools,
        users.staff_schools,
        users.is_district_admin,
        case
            when users.student_schools is null or outside.clever_id is not null then null
            -- The profile decides between every shared school and the primary one (R6.3).
            when :student_multi_school then users.student_schools
            -- The primary school of a student who also teaches can be one where they only teach.
            when users.school = any(users.student_schools) then array[users.school]
        end as student_schools
    from staging.users as users
    left join reconcile.students_outside_grades as outside on users.clever_id = outside.clever_id
    where users.district_id = :district_id
),

listed as (
    select clever_id, 'student' as role, unnest(student_schools) as school from people
    union
    select clever_id, 'teacher' as role, unnest(teacher_schools) as school from people
    union
    select clever_id, 'school_admin' as role, unnest(staff_schools) as school from people
)
select
    listed.clever_id,
    listed.role,
    schools.school_id,
    schools.status = 'frozen' as is_unchanged
from listed
inner join reconcile.schools as schools on listed.school = schools.clever_id
where schools.status in ('rostered', 'frozen')
union all
select clever_id, 'district_admin' as role, null as school_id, false as is_unchanged
from people
where is_district_admin
