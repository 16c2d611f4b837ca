-- The part of reconcile.readiness about the people of the snapshot: whether they are rostered, with which username and in which roles.
-- grain: one row per topic and item, also at zero
-- rules: R5.2, R5.5, R5.10, R6.3, R6.4
-- decides by: district
with people as (
    select
        identities.clever_id,
        identities.decision,
        identities.rule,
        people.desired_key,
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
        count(*) filter (where decision = 'none' and rule = 'duplicate_record') as duplicate_record,
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

quarantined as (
    select count(*) as users
    from staging.quarantined
    where district_id = :district_id and resource = 'users' and is_shown
),

-- New people whose username an existing user has, although that user was not matched: it is of the other role family, one of several
-- candidates, or protected.
not_recognised as (
    select count(distinct people.clever_id) as people
    from people
    inner join app.users as users on people.desired_key = users.username_key
    where people.decision = 'create' and users.district_id = :district_id and users.deleted_at is null
),

-- People who do not get their username. If the user that has it would be soft-deleted but is held by a brake, the name counts as free.
collisions as (
    select
        usernames.clever_id,
        case
            when removals.entity_id is null then usernames.rule
            when count(*) over (partition by people.desired_key) > 1 then 'contested'
            else 'given'
        end as rule
    from reconcile.usernames as usernames
    inner join people on usernames.clever_id = people.clever_id
    left join app.users as holders
        on holders.district_id = :district_id and people.desired_key = holders.username_key and holders.deleted_at is null
    left join reconcile.deletion_candidates as removals on removals.entity = 'users' and holders.user_id = removals.entity_id
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
        select clever_id
        from reconcile.memberships
        where role = 'student' and status = 'enrolled'
        group by clever_id
        having min(section) < max(section)
    ) as listed
)
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
    ('duplicate_record', shared_people.duplicate_record),
    ('username_taken', shared_people.username_taken),
    ('quarantined', quarantined.users),
    ('protected', shared_people.protected),
    ('deactivated', shared_people.deactivated)
) as item (name, count)
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
