-- What a person wants to know before a district's first sync, and at any time, in counts and named schools (SPEC 10).
-- Counted as if no brake held anything back.
-- grain: one row per topic and item, also at zero; topic licenses has one more per school with licenses of its own, `school <Clever id>`
-- key: district_id, topic, item
-- rules: R5.2, R5.5, R6.1, R6.3, R6.4, R7.6, R9.1
-- detail: names of schools, and numbers; never of people or sections. What an item means is said in support/readiness.py.
with agreed as (
    select agreed_school_id, name, clever_id, app.normalize_username(name) as name_key
    from app.agreed_schools
    where district_id = :district_id
),

shared as (
    select clever_id, name, app.normalize_username(name) as name_key
    from staging.schools
    where district_id = :district_id
),

-- Which shared schools an agreed one means, as in reconcile.schools: those of its Clever id, else those of its name.
agreed_by_id as (
    select agreed.agreed_school_id
    from agreed
    where
        exists (select 1 from shared where shared.clever_id = agreed.clever_id)
        or exists (
            select 1 from staging.quarantined
            where quarantined.district_id = :district_id and quarantined.resource = 'schools' and quarantined.clever_id = agreed.clever_id
        )
),

agreed_schools as (
    select
        agreed.name,
        case when min(by_id.agreed_school_id) is null then count(shared.clever_id) else 1 end as meanings
    from agreed
    left join agreed_by_id as by_id on agreed.agreed_school_id = by_id.agreed_school_id
    left join shared on agreed.name_key = shared.name_key
    group by agreed.agreed_school_id, agreed.name
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

standings as (
    select
        count(*) filter (where standing = 'outside') as outside,
        string_agg(name, ', ' order by name collate "C", clever_id collate "C") filter (where standing = 'outside') as outside_names,
        count(*) filter (where standing = 'protected') as protected,
        string_agg(name, ', ' order by name collate "C", clever_id collate "C") filter (where standing = 'protected') as protected_names
    from reconcile.schools
),

quarantined as (
    select
        count(*) filter (where resource = 'schools') as schools,
        count(*) filter (where resource = 'sections') as sections,
        count(*) filter (where resource = 'users') as users
    from staging.quarantined
    where district_id = :district_id
),

sections as (
    select classrooms.standing, sections.school
    from staging.sections as sections
    left join reconcile.classrooms as classrooms on sections.clever_id = classrooms.clever_id
    where sections.district_id = :district_id
),

classrooms as (
    select
        count(*) as shared,
        count(*) filter (where standing = 'rostered') as rostered,
        count(*) filter (where standing = 'unknown_school') as unknown_school,
        count(*) filter (where standing = 'outside') as outside,
        -- A frozen section that does not exist here has no standing: it is not made.
        count(*) filter (where coalesce(standing, 'frozen') in ('frozen', 'protected')) as untouched
    from sections
),

empty_schools as (
    select count(*) as schools, string_agg(name, ', ' order by name collate "C", clever_id collate "C") as names
    from reconcile.schools
    where standing = 'rostered' and not exists (select 1 from sections where sections.school = schools.clever_id)
),

-- One row per person of the snapshot with what is decided about them before any brake.
people as (
    select
        identities.clever_id,
        identities.user_id,
        identities.decision,
        identities.rule,
        people.wanted_key,
        identities.decision in ('link', 'adopt', 'relink', 'create') as is_rostered,
        users.username is not null as has_username,
        users.is_district_admin,
        users.staff_schools is not null as is_school_admin,
        (
            select count(distinct listed.school) from unnest(users.student_schools) as listed (school)
        ) > 1 and users.student_schools is not null as is_in_several_schools
    from reconcile.identities as identities
    inner join reconcile.people as people on identities.clever_id = people.clever_id
    left join staging.users as users on users.district_id = :district_id and identities.clever_id = users.clever_id
),

shared_people as (
    select
        count(*) as people,
        count(*) filter (where is_rostered) as rostered,
        count(*) filter (where decision = 'none' and rule = 'outside_school') as outside_school,
        count(*) filter (where decision = 'none' and rule = 'outside_grade') as outside_grade,
        count(*) filter (where decision = 'none' and rule = 'no_role') as no_role,
        count(*) filter (where rule = 'username_taken') as username_taken,
        count(*) filter (where decision = 'protected') as protected,
        count(*) filter (where decision in ('deactivated', 'relink_deactivated')) as deactivated,
        count(*) filter (where decision = 'link') as linked,
        count(*) filter (where decision = 'adopt') as adopted,
        count(*) filter (where decision = 'relink') as relinked,
        count(*) filter (where decision = 'create') as new,
        count(*) filter (where is_rostered and not is_district_admin and not is_school_admin) as non_admins,
        count(*) filter (where is_rostered and not is_district_admin and not is_school_admin and not has_username) as without_username,
        count(*) filter (where is_rostered and is_district_admin) as district_admins,
        count(*) filter (where is_rostered and is_school_admin) as school_admins,
        count(*) filter (where is_rostered and (is_district_admin or is_school_admin)) as admins,
        count(*) filter (where is_rostered and is_in_several_schools) as in_several_schools
    from people
),

-- Newcomers whose username somebody here has who is not recognised as the same person: another role family, several of the name, protected.
not_recognised as (
    select count(distinct people.clever_id) as people
    from people
    inner join app.users as users on people.wanted_key = users.username_key
    where people.decision = 'create' and users.district_id = :district_id and users.deleted_at is null
),

-- Who does not get the name asked for. Where only a brake keeps the user who has it, the claimants are judged as if it were free.
collisions as (
    select
        usernames.clever_id,
        case
            when gone.entity_id is null then usernames.rule
            when count(*) over (partition by people.wanted_key) > 1 then 'contested'
            else 'given'
        end as rule
    from reconcile.usernames as usernames
    inner join people on usernames.clever_id = people.clever_id
    left join app.users as holders
        on holders.district_id = :district_id and people.wanted_key = holders.username_key and holders.deleted_at is null
    left join reconcile.deletion_candidates as gone on gone.entity = 'users' and holders.user_id = gone.entity_id
    where usernames.rule in ('taken', 'contested')
),

usernames as (
    select
        count(*) filter (where rule = 'taken') as taken,
        count(*) filter (where rule = 'contested') as contested
    from collisions
),

renamed as (
    select count(*) as people
    from reconcile.usernames as usernames
    inner join app.users as users on users.district_id = :district_id and usernames.clever_id = users.clever_id
    where users.deleted_at is null and users.username <> usernames.username
),

several_classrooms as (
    select count(*) as students
    from (
        select person
        from reconcile.memberships
        where role = 'student' and standing = 'enrolled'
        group by person
        having count(*) > 1
    ) as listed
),

existing_users as (
    select
        count(*) filter (where deleted_at is null) as active,
        count(*) filter (where deleted_at is not null) as deleted,
        count(*) filter (where deleted_at is null and source = 'clever') as clever,
        count(*) filter (where deleted_at is null and source = 'csv') as csv,
        count(*) filter (where deleted_at is null and source = 'app') as app,
        count(*) filter (where deleted_at is null and protected) as protected,
        count(*) filter (where deleted_at is null and not protected and clever_id is null) as unlinked
    from app.users
    where district_id = :district_id
),

gone as (
    select
        count(*) filter (where gone.entity = 'users') as users,
        count(*) filter (where gone.entity = 'schools') as schools,
        string_agg(schools.name, ', ' order by schools.name collate "C", gone.entity_id) as school_names,
        count(*) filter (where gone.entity = 'classrooms') as classrooms
    from reconcile.deletion_candidates as gone
    left join app.schools as schools
        on gone.entity = 'schools' and schools.district_id = :district_id and gone.entity_id = schools.school_id
),

-- What this sync ends, and what it would end of people and classrooms that are gone and only held.
ended_enrollments as (
    select count(*) as enrollments
    from (
        select classroom_id, user_id, role
        from reconcile.enrollment_changes
        where action = 'soft_delete'
        union
        select enrollments.classroom_id, enrollments.user_id, enrollments.role
        from (
            select ended.classroom_id, ended.user_id, ended.role
            from reconcile.deletion_candidates as gone
            inner join app.enrollments as ended on gone.entity_id = ended.user_id
            where gone.entity = 'users' and ended.deleted_at is null
            union
            select ended.classroom_id, ended.user_id, ended.role
            from reconcile.deletion_candidates as gone
            inner join app.enrollments as ended on gone.entity_id = ended.classroom_id
            where gone.entity = 'classrooms' and ended.deleted_at is null
        ) as enrollments
        inner join app.classrooms as classrooms
            on classrooms.district_id = :district_id and enrollments.classroom_id = classrooms.classroom_id
        left join reconcile.classrooms as judged on classrooms.classroom_id = judged.classroom_id
        left join reconcile.decisions as decisions on enrollments.user_id = decisions.user_id
        where
            not classrooms.protected
            and coalesce(judged.standing, 'outside') <> 'frozen'
            and coalesce(decisions.decision, 'none') not in ('frozen', 'held')
    ) as ended
),

restored as (
    select count(*) as users
    from people
    inner join app.users as users on users.district_id = :district_id and people.user_id = users.user_id
    where people.is_rostered and users.deleted_at is not null
),

students as (
    select students.school_id, gone.entity_id is not null as is_gone
    from reconcile.students as students
    left join reconcile.deletion_candidates as gone on gone.entity = 'users' and students.user_id = gone.entity_id
),

licenses as (
    select
        districts.licenses as bought,
        count(students.is_gone) filter (where not students.is_gone) as students,
        count(students.is_gone) filter (where students.is_gone) as held
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
        count(students.is_gone) filter (where not students.is_gone) as students
    from reconcile.schools as schools
    left join app.schools as existing on existing.district_id = :district_id and schools.school_id = existing.school_id
    left join students on schools.school_id = students.school_id
    where schools.licenses is not null and schools.standing = 'rostered'
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
),

items as (
    select
        'schools' as topic,
        item.name as item,
        item.count,
        item.detail
    from schools
    cross join standings
    cross join quarantined
    cross join lateral (
        values
        ('agreed', schools.agreed, null),
        ('shared', (select count(*) from shared), null),
        ('agreed_and_shared', schools.agreed_and_shared, null),
        ('agreed_not_shared', schools.agreed_not_shared, schools.agreed_not_shared_names),
        ('outside', standings.outside, standings.outside_names),
        ('same_name', schools.same_name, schools.same_name_names),
        ('protected', standings.protected, standings.protected_names),
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
        ('untouched', classrooms.untouched, null),
        ('quarantined', quarantined.sections, null),
        ('schools_without', empty_schools.schools, empty_schools.names)
    ) as item (name, count, detail)
    union all
    select
        'people' as topic,
        item.name as item,
        item.count,
        null as detail
    from shared_people
    cross join quarantined
    cross join lateral (
        values
        ('shared', shared_people.people),
        ('rostered', shared_people.rostered),
        ('outside_school', shared_people.outside_school),
        ('outside_grade', shared_people.outside_grade),
        ('no_role', shared_people.no_role),
        ('username_taken', shared_people.username_taken),
        ('quarantined', quarantined.users),
        ('protected', shared_people.protected),
        ('deactivated', shared_people.deactivated)
    ) as item (name, count)
    union all
    select
        'existing_users' as topic,
        item.name as item,
        item.count,
        null as detail
    from existing_users
    cross join lateral (
        values
        ('active', existing_users.active),
        ('deleted', existing_users.deleted),
        ('clever', existing_users.clever),
        ('csv', existing_users.csv),
        ('app', existing_users.app),
        ('protected', existing_users.protected),
        ('unlinked', existing_users.unlinked)
    ) as item (name, count)
    union all
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
    union all
    select
        'usernames' as topic,
        item.name as item,
        item.count,
        null as detail
    from shared_people
    cross join usernames
    cross join renamed
    cross join not_recognised
    cross join lateral (
        values
        ('linked', shared_people.linked),
        ('match', shared_people.adopted),
        ('relink', shared_people.relinked),
        ('new', shared_people.new),
        ('differs', renamed.people),
        ('not_recognised', not_recognised.people),
        ('taken', usernames.taken),
        ('contested', usernames.contested)
    ) as item (name, count)
    union all
    select
        'existing_data' as topic,
        item.name as item,
        item.count,
        item.detail
    from gone
    cross join ended_enrollments
    cross join shared_people
    cross join restored
    cross join lateral (
        values
        ('users_soft_deleted', gone.users, null),
        ('schools_soft_deleted', gone.schools, gone.school_names),
        ('classrooms_soft_deleted', gone.classrooms, null),
        ('enrollments_soft_deleted', ended_enrollments.enrollments, null),
        ('users_adopted', shared_people.adopted, null),
        ('users_restored', restored.users, null)
    ) as item (name, count, detail)
    union all
    select
        'without_username' as topic,
        'non_admins' as item,
        without_username as count,
        case when non_admins > 0 then round(100.0 * without_username / non_admins, 1) || ' % of ' || non_admins end as detail
    from shared_people
    union all
    select
        'admins' as topic,
        item.name as item,
        item.count,
        null as detail
    from shared_people
    cross join lateral (
        values
        ('people', shared_people.admins),
        ('district_admins', shared_people.district_admins),
        ('school_admins', shared_people.school_admins)
    ) as item (name, count)
    union all
    select
        'several_schools' as topic,
        'students' as item,
        in_several_schools as count,
        null as detail
    from shared_people
    union all
    select
        'several_classrooms' as topic,
        'students' as item,
        students as count,
        null as detail
    from several_classrooms
)
select
    cast(:district_id as bigint) as district_id,
    topic,
    item,
    count,
    detail
from items
