-- The affected subset of a district: everybody whose plan can differ from the last one. Temporary tables, created in this order.
-- The subset is closed under names and SIS ids: nobody in it has one that somebody outside has, or had. So neither group decides about the
-- other.
-- It holds all sections that list its people. It does not hold all people of those sections.
-- "subset.digests" (resource, digest) exists already: records of the last snapshot that Clever no longer sends, and a few others.
-- long because: each table is made from those before it, and each column by which people are related is followed both ways.

-- Sections that are new, changed or removed, and those whose classroom the last sync wrote. One without a digest always counts as new.
create temporary table "subset.sections" on commit drop as
select clever_id, bool_or(is_new) as is_new
from (
    select clever_id, true as is_new from pg_temp."clever.sections"
    union all
    select clever_id, true as is_new
    from staging.sections
    where
        district_id = %(district_id)s
        and (digest is null or digest in (select digest from pg_temp."subset.digests" where resource = 'sections'))
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
analyze pg_temp."subset.sections";

-- Users that the last sync wrote, or whose role or enrollment it wrote. The baseline plan checks that nothing is left to do for them.
create temporary table "subset.written" on commit drop as
select distinct user_id from ops.changes where sync_id = %(last_sync_id)s and user_id is not null;
analyze pg_temp."subset.written";

-- People who joined or left one of the new sections, or whose place in its list of teachers has changed.
create temporary table "subset.members" on commit drop as
with versions as (
    select sections.clever_id, sections.school, sections.students, sections.teachers, true as is_old
    from staging.sections as sections
    inner join pg_temp."subset.sections" as subset on sections.clever_id = subset.clever_id
    where sections.district_id = %(district_id)s and subset.is_new
    union all
    select clever_id, school, students, teachers, false as is_old from pg_temp."subset.new_sections"
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
analyze pg_temp."subset.members";

-- The next statement looks up a few of the many new records.
create index on pg_temp."clever.users" (clever_id);

-- All people of the subset, by Clever id; users without a Clever id by user_id.
create temporary table "subset.nodes" on commit drop as
with recursive seeds as (
    select clever_id, cast(null as bigint) as user_id from pg_temp."clever.users"
    union
    select clever_id, null as user_id
    from staging.users
    where
        district_id = %(district_id)s
        and (digest is null or digest in (select digest from pg_temp."subset.digests" where resource = 'users'))
    union
    select users.clever_id, case when users.clever_id is null then users.user_id end as user_id
    from app.users as users
    inner join pg_temp."subset.written" as written on users.user_id = written.user_id
    where users.district_id = %(district_id)s
    union
    -- A quarantined user has no digest.
    select clever_id, null as user_id from staging.quarantined where district_id = %(district_id)s and resource = 'users'
    union
    -- Members of a classroom that the last sync left unchanged because its section is quarantined, whatever the section lists now (R4.6).
    select users.clever_id, case when users.clever_id is null then users.user_id end as user_id
    from staging.quarantined as quarantined
    inner join app.classrooms as classrooms
        on quarantined.district_id = classrooms.district_id and quarantined.clever_id = classrooms.clever_id
    inner join app.enrollments as enrollments on classrooms.classroom_id = enrollments.classroom_id
    inner join app.users as users on enrollments.user_id = users.user_id
    where quarantined.district_id = %(district_id)s and quarantined.resource = 'sections' and enrollments.deleted_at is null
    union
    -- Teachers of a classroom who stayed at the last sync because Clever did not send the section's teachers (R4.7).
    select users.clever_id, case when users.clever_id is null then users.user_id end as user_id
    from staging.sections as sections
    inner join app.classrooms as classrooms on sections.district_id = classrooms.district_id and sections.clever_id = classrooms.clever_id
    inner join app.enrollments as enrollments on classrooms.classroom_id = enrollments.classroom_id
    inner join app.users as users on enrollments.user_id = users.user_id
    where
        sections.district_id = %(district_id)s
        and sections.teachers is null
        and enrollments.role = 'teacher'
        and enrollments.deleted_at is null
    union
    -- Each sync reports them in ops.quarantine, also if nothing about them changes.
    select clever_id, null as user_id from reconcile.user_matches where district_id = %(district_id)s and rule = 'username_taken'
    union
    select person as clever_id, null as user_id from pg_temp."subset.members"
),

-- From people to their names and SIS ids, and from these to other people. A row without `kind` is a person. Each name and each SIS id is
-- followed once, however many people have it.
reached as (
    select clever_id, user_id, cast(null as text) as kind, cast(null as text) as key from seeds
    union
    select next.clever_id, next.user_id, next.kind, next.key
    from reached
    cross join lateral (
        -- What a person has or had.
        select cast(null as text) as clever_id, cast(null as bigint) as user_id, had.kind, had.key
        from (
            select 'name' as kind, app.normalize_username(reached.clever_id) as key
            union all
            select each.kind, each.key
            from pg_temp."clever.users" as new_users
            cross join lateral (
                values ('name', app.normalize_username(new_users.username)), ('sis_id', new_users.sis_id)
            ) as each (kind, key)
            where new_users.clever_id = reached.clever_id
            union all
            select each.kind, each.key
            from staging.users as users
            cross join lateral (values ('name', app.normalize_username(users.username)), ('sis_id', users.sis_id)) as each (kind, key)
            where users.district_id = %(district_id)s and users.clever_id = reached.clever_id
            union all
            select each.kind, each.key
            from (
                -- There are two queries, because each id has an index.
                select users.username_key, users.district_username, users.sis_id
                from app.users as users
                where users.district_id = %(district_id)s and users.clever_id = reached.clever_id
                union all
                select users.username_key, users.district_username, users.sis_id
                from app.users as users
                where users.district_id = %(district_id)s and users.user_id = reached.user_id
            ) as users
            cross join lateral (
                values
                ('name', users.username_key),
                ('name', app.normalize_username(users.district_username)),
                ('sis_id', users.sis_id)
            ) as each (kind, key)
        ) as had
        where reached.kind is null and had.key is not null
        union all
        -- Others who have or had it, or whose Clever id it is. New records are in the subset already.
        select others.clever_id, others.user_id, null as kind, null as key
        from (
            select users.clever_id, cast(null as bigint) as user_id
            from staging.users as users
            where
                reached.kind = 'name'
                and users.district_id = %(district_id)s
                and app.normalize_username(users.username) = reached.key
            union all
            select users.clever_id, null as user_id
            from staging.users as users
            where
                reached.kind = 'name'
                and users.district_id = %(district_id)s
                and app.normalize_username(users.clever_id) = reached.key
            union all
            select users.clever_id, null as user_id
            from staging.users as users
            where reached.kind = 'sis_id' and users.district_id = %(district_id)s and users.sis_id = reached.key
            union all
            -- Active and deleted users have an index each, so there are two queries.
            select users.clever_id, case when users.clever_id is null then users.user_id end as user_id
            from app.users as users
            where
                reached.kind = 'name'
                and users.district_id = %(district_id)s
                and users.username_key = reached.key
                and users.deleted_at is null
            union all
            select users.clever_id, case when users.clever_id is null then users.user_id end as user_id
            from app.users as users
            where
                reached.kind = 'name'
                and users.district_id = %(district_id)s
                and users.username_key = reached.key
                and users.deleted_at is not null
            union all
            select users.clever_id, case when users.clever_id is null then users.user_id end as user_id
            from app.users as users
            where
                reached.kind = 'name'
                and users.district_id = %(district_id)s
                and app.normalize_username(users.district_username) = reached.key
            union all
            select users.clever_id, case when users.clever_id is null then users.user_id end as user_id
            from app.users as users
            where reached.kind = 'sis_id' and users.district_id = %(district_id)s and users.sis_id = reached.key
        ) as others
    ) as next
)
select clever_id, user_id from reached where kind is null;
analyze pg_temp."subset.nodes";

create temporary table "subset.people" on commit drop as
select clever_id from pg_temp."subset.nodes" where clever_id is not null;
analyze pg_temp."subset.people";

create temporary table "app.users" on commit drop as
select users.*
from app.users as users
where
    users.district_id = %(district_id)s
    and (
        users.clever_id in (select clever_id from pg_temp."subset.people")
        or users.user_id in (select user_id from pg_temp."subset.nodes")
    );
-- Models group by user_id alone, which PostgreSQL allows for a primary key.
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

-- Other sections that list people of the subset: only those people, but all teachers, because the first one is primary. A teacher outside
-- the subset counts as unknown, in the baseline plan and in the new plan.
create temporary table "subset.listings" on commit drop as
select sections.clever_id, array_agg(listed.person order by listed.position) filter (where listed.is_student) as students
from staging.sections as sections
cross join lateral (
    select person, position, true as is_student from unnest(sections.students) with ordinality as students (person, position)
    union all
    select person, position, false as is_student from unnest(sections.teachers) with ordinality as teachers (person, position)
) as listed
inner join pg_temp."subset.people" as people on listed.person = people.clever_id
where sections.district_id = %(district_id)s
group by sections.clever_id
union all
select distinct classrooms.clever_id, cast(null as text[]) as students
from pg_temp."app.enrollments" as enrollments
inner join app.classrooms as classrooms on enrollments.classroom_id = classrooms.classroom_id
where enrollments.deleted_at is null and classrooms.clever_id is not null;
analyze pg_temp."subset.listings";

create temporary table "subset.staging.sections" on commit drop as
select sections.*
from staging.sections as sections
inner join pg_temp."subset.sections" as subset on sections.clever_id = subset.clever_id
where sections.district_id = %(district_id)s;

-- The two column lists are filled in by incremental.py.
insert into pg_temp."subset.staging.sections" (columns_of_sections)
select values_of_sections -- noqa: RF02
from staging.sections as sections
inner join (select clever_id, max(students) as students from pg_temp."subset.listings" group by clever_id) as listings
    on sections.clever_id = listings.clever_id
where
    sections.district_id = %(district_id)s
    and not exists (select 1 from pg_temp."subset.sections" as subset where subset.clever_id = sections.clever_id);
-- Statistics of the arrays take long, and no query uses them.
analyze pg_temp."subset.staging.sections" (clever_id, school);

create temporary table "subset.staging.users" on commit drop as
select users.*
from staging.users as users
inner join pg_temp."subset.people" as people on users.clever_id = people.clever_id
where users.district_id = %(district_id)s;
analyze pg_temp."subset.staging.users";

create temporary table "app.classrooms" on commit drop as
select classrooms.*
from app.classrooms as classrooms
where
    classrooms.district_id = %(district_id)s
    and (
        classrooms.clever_id in (select clever_id from pg_temp."subset.sections")
        or classrooms.clever_id in (select clever_id from pg_temp."subset.staging.sections")
        or classrooms.classroom_id in (select classroom_id from pg_temp."app.enrollments" where deleted_at is null)
    );
analyze pg_temp."app.classrooms";
