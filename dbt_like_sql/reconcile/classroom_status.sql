-- Which classrooms this sync may change, after brakes are applied.
-- grain: one row per section of the snapshot, and per existing classroom that is left unchanged
-- rules: R4.6, R6.1, R7.4
-- decides by: itself
-- status: as in reconcile.classrooms, with two differences:
--           `frozen` also means that its school is held
--           `kept` means that it would be rostered, but a member is held: the row is left unchanged, its other members are updated
select
    classrooms.clever_id,
    classrooms.name,
    classrooms.clever_name,
    classrooms.term_name,
    classrooms.starts_on,
    classrooms.ends_on,
    classrooms.school_id,
    classrooms.classroom_id,
    classrooms.is_new,
    case
        when classrooms.status in ('frozen', 'protected') then classrooms.status
        when schools.status = 'frozen' or old_schools.status = 'frozen' then 'frozen'
        -- A section of a school that is not shared any more: what that means for its classroom is asked again, now that the school is held.
        when held_schools.status = 'frozen' and existing.deleted_at is null then 'frozen'
        when unchanged.classroom_id is not null and classrooms.status = 'rostered' then 'kept'
        else classrooms.status
    end as status
from reconcile.classrooms as classrooms
left join app.classrooms as existing on existing.district_id = :district_id and classrooms.classroom_id = existing.classroom_id
left join reconcile.school_status as schools on classrooms.school_id = schools.school_id
left join reconcile.school_status as old_schools on existing.school_id = old_schools.school_id and existing.deleted_at is null
left join reconcile.school_status as held_schools on classrooms.school_id is null and classrooms.school = held_schools.clever_id
left join reconcile.unchanged_classrooms as unchanged on classrooms.classroom_id = unchanged.classroom_id
-- At a held school no new classroom is created.
where not (classrooms.is_new and coalesce(schools.status, '') = 'frozen')
union all
-- Existing classrooms of a held school that Clever does not have any more.
select
    existing.clever_id,
    existing.name,
    existing.clever_name,
    existing.term_name,
    existing.starts_on,
    existing.ends_on,
    existing.school_id,
    existing.classroom_id,
    false as is_new,
    'frozen' as status
from app.classrooms as existing
inner join reconcile.school_status as schools on existing.school_id = schools.school_id
where
    existing.district_id = :district_id
    and existing.deleted_at is null
    and schools.status = 'frozen'
    and not exists (select 1 from reconcile.classrooms as known where known.classroom_id = existing.classroom_id)
