-- Every member that a rostered section lists, and whether the member is enrolled.
-- grain: one row per section, listed person and role
-- rules: R4.6, R5.10, R6.2, R6.3, R7.4
-- decides by: section
-- clever_id: the person's own record; the record with the user, if the person is listed twice (R5.10)
-- status: `enrolled` | `unknown_person` | `not_rostered` | `without_role` | `other_school` | `frozen` (the person is quarantined or held)
with listed as (
    select
        sections.clever_id as section,
        members.person,
        'student' as role,
        false as is_first
    from staging.sections as sections
    cross join lateral unnest(sections.students) as members (person)
    where sections.district_id = :district_id
    union all
    select
        sections.clever_id as section,
        members.person,
        'teacher' as role,
        members.position = 1 as is_first
    from staging.sections as sections
    cross join lateral unnest(sections.teachers) with ordinality as members (person, position)
    where sections.district_id = :district_id
),

recognised as (
    select listed.*, coalesce(duplicates.linked_id, listed.person) as clever_id
    from listed
    left join reconcile.duplicate_records as duplicates on listed.person = duplicates.clever_id
),

-- One row per person and role: a student rostered in several schools may enroll in all of them.
roles as (
    select clever_id, role, user_id, array_agg(school_id) as school_ids
    from reconcile.roles
    where role in ('student', 'teacher')
    group by clever_id, role, user_id
)
select
    listed.section,
    listed.person,
    listed.clever_id,
    listed.role,
    classrooms.classroom_id,
    decisions.user_id,
    -- The first teacher that Clever lists is the primary one, or nobody is if that teacher is not rostered (R6.2).
    listed.is_first as is_primary,
    case
        when decisions.clever_id is null then 'unknown_person'
        when decisions.decision in ('frozen', 'held') then 'frozen'
        when decisions.decision in ('none', 'deactivated', 'relink_deactivated') then 'not_rostered'
        when roles.user_id is null then 'without_role'
        -- If the profile gives a student one school, sections of other schools are left out (R6.3).
        when listed.role = 'student' and not :student_multi_school and not classrooms.school_id = any(roles.school_ids)
            then 'other_school'
        else 'enrolled'
    end as status
from recognised as listed
inner join reconcile.classroom_status as classrooms
    on listed.section = classrooms.clever_id and classrooms.status in ('rostered', 'kept')
left join reconcile.decisions as decisions on listed.clever_id = decisions.clever_id
left join roles on listed.clever_id = roles.clever_id and listed.role = roles.role
