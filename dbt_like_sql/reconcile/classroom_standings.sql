-- Which classrooms this sync may change, now that the brakes have spoken.
-- grain: one row per section of the snapshot, and per classroom that is kept or frozen
-- rules: R4.6, R6.1, R7.4
-- decides by: itself
-- standing: as in reconcile.classrooms; frozen also under a held school; kept (rostered, and somebody in it is held: the classroom stays
--           as it is, its other members do not)
select
    classrooms.clever_id,
    classrooms.name,
    classrooms.school_id,
    classrooms.classroom_id,
    classrooms.is_new,
    case
        when classrooms.standing in ('frozen', 'protected') then classrooms.standing
        when schools.standing = 'frozen' or old_schools.standing = 'frozen' then 'frozen'
        when kept.classroom_id is not null and classrooms.standing = 'rostered' then 'kept'
        else classrooms.standing
    end as standing
from reconcile.classrooms as classrooms
left join app.classrooms as existing on existing.district_id = :district_id and classrooms.classroom_id = existing.classroom_id
left join reconcile.school_standings as schools on classrooms.school_id = schools.school_id
left join reconcile.school_standings as old_schools on existing.school_id = old_schools.school_id and existing.deleted_at is null
left join reconcile.kept_classrooms as kept on classrooms.classroom_id = kept.classroom_id
-- A classroom under a held school that does not exist yet is not made.
where not (classrooms.is_new and coalesce(schools.standing, '') = 'frozen')
