-- What has been touched since the last sync, and the part of the district that is planned on account of it: temporary tables, made in this order.
-- A part is closed: nobody in it shares a name with anybody outside, so that what is decided inside and outside does not depend on each other.
-- "touched.digests" (resource, digest) is there already: records of the last snapshot that are not there any more, and a few others.

-- Sections that have arrived or are gone, and those whose classroom the last sync wrote. What has no digest arrives every time.
create temporary table "touched.sections" on commit drop as
select clever_id, bool_or(is_new) as is_new
from (
    select clever_id, true as is_new from pg_temp."clever.sections"
    union all
    select clever_id, true as is_new
    from staging.sections
    where
        district_id = %(district_id)s
        and (digest is null or digest in (select digest from pg_temp."touched.digests" where resource = 'sections'))
    union all
    select clever_id, true as is_new from staging.quarantined where district_id = %(district_id)s and resource = 'sections'
    union all
    select classrooms.clever_id, false as is_new
    from ops.changes as changes
    inner join app.classrooms as classrooms on changes.entity_id = cast(classrooms.classroom_id as text)
    where
        changes.sync_id = %(last_sync_id)s
        and changes.entity = 'classrooms'
        and classrooms.district_id = %(district_id)s
        and classrooms.clever_id is not null
) as each
group by clever_id;
analyze pg_temp."touched.sections";

-- Users that the last sync wrote, or of whom it wrote a role or an enrollment: that it left nothing to do is looked at again.
create temporary table "touched.written" on commit drop as
select distinct user_id from ops.changes where sync_id = %(last_sync_id)s and user_id is not null;
analyze pg_temp."touched.written";

-- Who has come to one of the new sections, has left it, or is there in another place.
create temporary table "touched.members" on commit drop as
with versions as (
    select sections.clever_id, sections.school, sections.students, sections.teachers, true as is_old
    from staging.sections as sections
    inner join pg_temp."touched.sections" as touched on sections.clever_id = touched.clever_id
    where sections.district_id = %(district_id)s and touched.is_new
    union all
    select clever_id, school, students, teachers, false as is_old from pg_temp."touched.new_sections"
),

members as (
    select versions.clever_id, versions.school, listed.person, 'student' as role, 0 as position, versions.is_old
    from versions
    cross join lateral unnest(versions.students) as listed (person)
    union all
    -- The first teacher is primary (R6.2).
    select versions.clever_id, versions.school, listed.person, 'teacher' as role, listed.position, versions.is_old
    from versions
    cross join lateral unnest(versions.teachers) with ordinality as listed (person, position)
)
select distinct person
from (
    select person from members group by clever_id, school, person, role, position having bool_and(is_old) or not bool_or(is_old)
) as differing;
analyze pg_temp."touched.members";

-- What is below looks for a few of the many that have arrived.
create index on pg_temp."clever.users" (clever_id);

-- Everybody concerned, by Clever id; or by user_id where a user has none.
create temporary table "touched.nodes" on commit drop as
with recursive seeds as (
    select clever_id, cast(null as bigint) as user_id from pg_temp."clever.users"
    union
    select clever_id, null as user_id
    from staging.users
    where
        district_id = %(district_id)s
        and (digest is null or digest in (select digest from pg_temp."touched.digests" where resource = 'users'))
    union
    select users.clever_id, case when users.clever_id is null then users.user_id end as user_id
    from app.users as users
    inner join pg_temp."touched.written" as written on users.user_id = written.user_id
    where users.district_id = %(district_id)s
    union
    -- Who has been quarantined has no digest either.
    select clever_id, null as user_id from staging.quarantined where district_id = %(district_id)s and resource = 'users'
    union
    -- Who is in a classroom that stayed as it was, because its section was quarantined, whoever that lists now (R4.6).
    select users.clever_id, case when users.clever_id is null then users.user_id end as user_id
    from staging.quarantined as quarantined
    inner join app.classrooms as classrooms
        on quarantined.district_id = classrooms.district_id and quarantined.clever_id = classrooms.clever_id
    inner join app.enrollments as enrollments on classrooms.classroom_id = enrollments.classroom_id
    inner join app.users as users on enrollments.user_id = users.user_id
    where quarantined.district_id = %(district_id)s and quarantined.resource = 'sections' and enrollments.deleted_at is null
    union
    -- Found about them whether or not anything of them changes (ops.quarantine).
    select clever_id, null as user_id from reconcile.user_matches where district_id = %(district_id)s and rule = 'username_taken'
    union
    select person as clever_id, null as user_id from pg_temp."touched.members"
),

reached as (
    select clever_id, user_id from seeds
    union
    -- Whoever has a name, or the Clever id, that somebody reached has or had. Those who have arrived are seeds already.
    select others.clever_id, others.user_id
    from reached
    cross join lateral (
        select app.normalize_username(reached.clever_id) as key
        union all
        select app.normalize_username(arrived.username) as key from pg_temp."clever.users" as arrived where arrived.clever_id = reached.clever_id
        union all
        select app.normalize_username(users.username) as key
        from staging.users as users
        where users.district_id = %(district_id)s and users.clever_id = reached.clever_id
        union all
        select users.username_key as key
        from app.users as users
        where users.district_id = %(district_id)s and users.clever_id = reached.clever_id
        union all
        select users.username_key as key
        from app.users as users
        where users.district_id = %(district_id)s and users.user_id = reached.user_id
    ) as names
    cross join lateral (
        select users.clever_id, cast(null as bigint) as user_id
        from staging.users as users
        where users.district_id = %(district_id)s and app.normalize_username(users.username) = names.key
        union all
        select users.clever_id, null as user_id
        from staging.users as users
        where users.district_id = %(district_id)s and app.normalize_username(users.clever_id) = names.key
        union all
        -- Each has an index of its own.
        select users.clever_id, case when users.clever_id is null then users.user_id end as user_id
        from app.users as users
        where users.district_id = %(district_id)s and users.username_key = names.key and users.deleted_at is null
        union all
        select users.clever_id, case when users.clever_id is null then users.user_id end as user_id
        from app.users as users
        where users.district_id = %(district_id)s and users.username_key = names.key and users.deleted_at is not null
    ) as others
)
select clever_id, user_id from reached;
analyze pg_temp."touched.nodes";

create temporary table "touched.people" on commit drop as
select clever_id from pg_temp."touched.nodes" where clever_id is not null;
analyze pg_temp."touched.people";

create temporary table "app.users" on commit drop as
select users.*
from app.users as users
where
    users.district_id = %(district_id)s
    and (
        users.clever_id in (select clever_id from pg_temp."touched.people")
        or users.user_id in (select user_id from pg_temp."touched.nodes")
    );
-- Models group by the key alone.
alter table pg_temp."app.users" add primary key (user_id);
analyze pg_temp."app.users";

create temporary table "app.user_roles" on commit drop as
select roles.*
from app.user_roles as roles
inner join pg_temp."app.users" as users on roles.user_id = users.user_id
where roles.district_id = %(district_id)s;
analyze pg_temp."app.user_roles";

create temporary table "app.enrollments" on commit drop as
select enrollments.*
from app.enrollments as enrollments
inner join pg_temp."app.users" as users on enrollments.user_id = users.user_id
where enrollments.district_id = %(district_id)s;
analyze pg_temp."app.enrollments";

-- Of the other sections in which they are, the members among them; teachers all, because their order counts. Who of those is not in the part
-- is nobody there, before as after.
create temporary table "touched.listings" on commit drop as
select sections.clever_id, array_agg(listed.person order by listed.position) filter (where listed.is_student) as students
from staging.sections as sections
cross join lateral (
    select person, position, true as is_student from unnest(sections.students) with ordinality as students (person, position)
    union all
    select person, position, false as is_student from unnest(sections.teachers) with ordinality as teachers (person, position)
) as listed
inner join pg_temp."touched.people" as people on listed.person = people.clever_id
where sections.district_id = %(district_id)s
group by sections.clever_id
union all
select distinct classrooms.clever_id, cast(null as text[]) as students
from pg_temp."app.enrollments" as enrollments
inner join app.classrooms as classrooms on enrollments.classroom_id = classrooms.classroom_id
where enrollments.deleted_at is null and classrooms.clever_id is not null;
analyze pg_temp."touched.listings";

create temporary table "touched.staging.sections" on commit drop as
select sections.*
from staging.sections as sections
inner join pg_temp."touched.sections" as touched on sections.clever_id = touched.clever_id
where sections.district_id = %(district_id)s;

insert into pg_temp."touched.staging.sections" (district_id, clever_id, name, school, course, term, students, teachers, last_modified, digest)
select
    sections.district_id,
    sections.clever_id,
    sections.name,
    sections.school,
    sections.course,
    sections.term,
    coalesce(listings.students, '{}'),
    sections.teachers,
    sections.last_modified,
    sections.digest
from staging.sections as sections
inner join (select clever_id, max(students) as students from pg_temp."touched.listings" group by clever_id) as listings
    on sections.clever_id = listings.clever_id
where
    sections.district_id = %(district_id)s
    and not exists (select 1 from pg_temp."touched.sections" as touched where touched.clever_id = sections.clever_id);
-- Statistics of the arrays take long, and nobody asks for them.
analyze pg_temp."touched.staging.sections" (clever_id, school);

create temporary table "touched.staging.users" on commit drop as
select users.*
from staging.users as users
inner join pg_temp."touched.people" as people on users.clever_id = people.clever_id
where users.district_id = %(district_id)s;
analyze pg_temp."touched.staging.users";

create temporary table "app.classrooms" on commit drop as
select classrooms.*
from app.classrooms as classrooms
where
    classrooms.district_id = %(district_id)s
    and (
        classrooms.clever_id in (select clever_id from pg_temp."touched.sections")
        or classrooms.clever_id in (select clever_id from pg_temp."touched.staging.sections")
        or classrooms.classroom_id in (select classroom_id from pg_temp."app.enrollments" where deleted_at is null)
    );
analyze pg_temp."app.classrooms";
