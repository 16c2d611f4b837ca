-- Which classrooms this sync rosters.
-- grain: one row per section of the snapshot, per quarantined section and per classroom of a quarantined school that exists; per classroom
--        without a Clever id too, if an element of the sections cannot be read
-- rules: R4.6, R4.8, R6.1, R8.1
-- decides by: itself
-- school: the Clever id of the section's school, also if that school is not shared
-- status: `rostered` | `outside` (its school is outside the agreement) | `unknown_school` (its school is not shared)
--         | `frozen` (it or its school is quarantined: left unchanged) | `protected` (left unchanged, with its own enrollments)
-- name: what the classroom is called in the application. clever_name: what Clever calls it
with existing as (
    select
        classrooms.classroom_id,
        classrooms.clever_id,
        classrooms.name,
        classrooms.clever_name,
        classrooms.term_name,
        classrooms.starts_on,
        classrooms.ends_on,
        classrooms.protected,
        classrooms.deleted_at is null as is_active,
        coalesce(schools.status = 'frozen', false) as is_school_unchanged,
        unreadable.collection is not null as is_unreadable
    from app.classrooms as classrooms
    left join reconcile.schools as schools on classrooms.school_id = schools.school_id
    left join staging.unreadable as unreadable on unreadable.collection = 'sections'
    where classrooms.district_id = :district_id and (classrooms.clever_id is not null or unreadable.collection is not null)
),

sections as (
    select clever_id, school, name, term, false as is_quarantined
    from staging.sections
    where district_id = :district_id
    union all
    select clever_id, null as school, null as name, null as term, true as is_quarantined
    from staging.quarantined
    where district_id = :district_id and resource = 'sections'
),

decided as (
    select
        coalesce(sections.clever_id, existing.clever_id) as clever_id,
        -- The application's name is one that differs from the name that Clever gave last (R6.1).
        case when existing.name <> existing.clever_name and :keep_classroom_names then existing.name else sections.name end as name,
        sections.name as clever_name,
        terms.name as term_name,
        terms.start_date as starts_on,
        terms.end_date as ends_on,
        existing.term_name as old_term_name,
        existing.starts_on as old_starts_on,
        existing.ends_on as old_ends_on,
        -- A term that is quarantined, or can be the one without a readable id, counts as present (R4.6, R4.8).
        quarantined_terms.clever_id is not null
        or (sections.term is not null and terms.clever_id is null and unreadable_terms.collection is not null) as keeps_term,
        sections.school,
        schools.school_id,
        existing.classroom_id,
        case
            when existing.protected then 'protected'
            when existing.is_school_unchanged and existing.is_active then 'frozen'
            when sections.is_quarantined then 'frozen'
            -- The pull may have it in the element that cannot be read. With a Clever id it is quarantined.
            when existing.clever_id is null and existing.is_unreadable and existing.is_active then 'frozen'
            when schools.status = 'frozen' then 'frozen'
            when sections.clever_id is null then 'removed'
            when schools.status = 'rostered' then 'rostered'
            when schools.status = 'outside' then 'outside'
            else 'unknown_school'
        end as status
    from sections
    full join existing on sections.clever_id = existing.clever_id
    left join reconcile.schools as schools on sections.school = schools.clever_id
    left join staging.terms as terms on terms.district_id = :district_id and sections.term = terms.clever_id
    left join staging.quarantined as quarantined_terms
        on
            quarantined_terms.district_id = :district_id
            and quarantined_terms.resource = 'terms'
            and sections.term = quarantined_terms.clever_id
    left join staging.unreadable as unreadable_terms
        on unreadable_terms.district_id = :district_id and unreadable_terms.collection = 'terms'
)
select
    clever_id,
    name,
    clever_name,
    case when keeps_term then old_term_name else term_name end as term_name,
    case when keeps_term then old_starts_on else starts_on end as starts_on,
    case when keeps_term then old_ends_on else ends_on end as ends_on,
    school,
    school_id,
    case
        when status = 'rostered' then coalesce(classroom_id, nextval(cast(:classroom_ids as regclass))) else classroom_id
    end as classroom_id,
    classroom_id is null and status = 'rostered' as is_new,
    status
from decided
-- A classroom without a section in the snapshot has no desired state. A quarantined section without a classroom does not create one.
where status <> 'removed' and not (status = 'frozen' and classroom_id is null)
