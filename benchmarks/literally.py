"""The documented procedure, done literally: `python -m benchmarks.literally DISTRICT`, a step of the benchmark.

"Anything Clever does not share is soft-deleted" is often built in this way: soft-delete everything in the district, then roster everything
again. Here it is set-based SQL in one transaction, on the product's own tables, after a pull with the product's own client.

It has the rules that a generated district needs to get the same rows as from a sync (usernames, roles, primary schools of the profile
`typing_agent`). It has no holds, adoptions, relinks, licenses or history, so it does less work than a sync.
"""

import argparse
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.measure import print_figures, wal_between, wal_position, written
from roster_pipeline import contracts
from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.database.copying import copy_rows
from roster_pipeline.database.engine import Database, open_database, psycopg_connection
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.settings import Settings
from roster_pipeline.source.vocabulary import Collection
from roster_pipeline.sync.frames import frame_of
from roster_pipeline.sync.session import one_state, sync_session

# The people to roster, from the landed pages. Clever returns a user with several roles several times; here it is one row.
_DESIRED = {
    "desired_roles": """
    create temporary table desired_roles on commit drop as
    with listed as (
        select clever_id, 'student' as role, school from landed_users where student_schools is not null
        union
        select clever_id, 'teacher', unnest(teacher_schools || school) from landed_users where teacher_schools is not null
        union
        select clever_id, 'school_admin', unnest(staff_schools) from landed_users
    )
    select listed.clever_id, listed.role, schools.school_id
    from listed
    inner join app.schools as schools on schools.district_id = %(district)s and listed.school = schools.clever_id
    where schools.deleted_at is null
    union
    select clever_id, 'district_admin', null from landed_users where is_district_admin;
    analyze desired_roles
    """,
    "desired_users": """
    create temporary table desired_users on commit drop as
    with people as (
        select distinct on (clever_id)
            *, case when is_district_admin or staff_schools is not null then clever_id else coalesce(username, clever_id) end as name
        from landed_users
        where not rejected and clever_id in (select clever_id from desired_roles)
        order by clever_id, last_modified desc nulls last, position desc
    ),

    named as (
        select *, case when count(*) over (partition by app.normalize_username(name)) = 1 then name else clever_id end as given
        from people
    )
    select
        named.*,
        schools.school_id,
        case when named.student_schools is not null then 'licensed' end as license_status,
        case when named.given = named.clever_id then array['clever'] else array['clever', 'password'] end as login_methods
    from named
    left join app.schools as schools
        on schools.district_id = %(district)s and named.school = schools.clever_id and schools.deleted_at is null;
    analyze desired_users
    """,
}

_SOFT_DELETES = {
    "enrollments": """
        update app.enrollments set deleted_at = %(now)s, updated_at = %(now)s
        from app.classrooms
        where
            classrooms.district_id = %(district)s and not classrooms.protected
            and enrollments.classroom_id = classrooms.classroom_id and enrollments.deleted_at is null
    """,
    "user_roles": """
        update app.user_roles set deleted_at = %(now)s, updated_at = %(now)s
        from app.users
        where
            users.district_id = %(district)s and not users.protected
            and user_roles.user_id = users.user_id and user_roles.deleted_at is null and user_roles.source = 'clever'
    """,
    "users": """
        update app.users set deleted_at = %(now)s, updated_at = %(now)s
        where district_id = %(district)s and deleted_at is null and not protected
    """,
    "classrooms": """
        update app.classrooms set deleted_at = %(now)s, updated_at = %(now)s
        where district_id = %(district)s and deleted_at is null and not protected
    """,
    "schools": """
        update app.schools set deleted_at = %(now)s, updated_at = %(now)s
        where district_id = %(district)s and deleted_at is null and not protected
    """,
}

_PLACES = {
    "schools": """
        insert into app.schools (district_id, clever_id, name, source)
        select %(district)s, clever_id, name, 'clever' from landed_schools where not rejected
        on conflict (district_id, clever_id) where clever_id is not null do update
        set name = excluded.name, source = 'clever', deleted_at = null, updated_at = %(now)s
    """,
    "classrooms": """
        insert into app.classrooms (district_id, clever_id, school_id, name, source)
        select %(district)s, sections.clever_id, schools.school_id, sections.name, 'clever'
        from landed_sections as sections
        inner join app.schools as schools on schools.district_id = %(district)s and sections.school = schools.clever_id
        where not sections.rejected and schools.deleted_at is null
        on conflict (district_id, clever_id) where clever_id is not null do update
        set school_id = excluded.school_id, name = excluded.name, source = 'clever', deleted_at = null, updated_at = %(now)s
    """,
}

_PEOPLE = {
    "users": """
        insert into app.users (
            district_id, clever_id, username, first_name, middle_name, last_name, email, sis_id, state_id, student_number, grade,
            school_id, source, license_status, login_methods
        )
        select
            %(district)s, clever_id, given, first_name, middle_name, last_name, case when student_schools is null then email end,
            sis_id, state_id, student_number, grade, school_id, 'clever', license_status, login_methods
        from desired_users
        on conflict (district_id, clever_id) where clever_id is not null do update
        set
            username = excluded.username, first_name = excluded.first_name, middle_name = excluded.middle_name,
            last_name = excluded.last_name, email = excluded.email, sis_id = excluded.sis_id, state_id = excluded.state_id,
            student_number = excluded.student_number, grade = excluded.grade, school_id = excluded.school_id, source = 'clever',
            license_status = excluded.license_status, login_methods = excluded.login_methods, deleted_at = null, updated_at = %(now)s
    """,
    "user_roles": """
        insert into app.user_roles (district_id, user_id, role, school_id, source)
        select %(district)s, users.user_id, roles.role, roles.school_id, 'clever'
        from desired_roles as roles
        inner join app.users as users on users.district_id = %(district)s and roles.clever_id = users.clever_id
        on conflict on constraint user_roles_key do update
        set source = 'clever', deleted_at = null, updated_at = %(now)s
    """,
    "enrollments": """
        insert into app.enrollments (district_id, classroom_id, user_id, role, is_primary, source)
        with members as (
            select sections.clever_id as section, listed.person, 'student' as role, false as is_primary
            from landed_sections as sections
            cross join lateral unnest(sections.students) as listed (person)
            union all
            select sections.clever_id, listed.person, 'teacher', listed.position = 1
            from landed_sections as sections
            cross join lateral unnest(sections.teachers) with ordinality as listed (person, position)
        )
        select %(district)s, classrooms.classroom_id, users.user_id, members.role, members.is_primary, 'clever'
        from members
        inner join app.classrooms as classrooms on classrooms.district_id = %(district)s and members.section = classrooms.clever_id
        inner join app.users as users on users.district_id = %(district)s and members.person = users.clever_id
        where
            classrooms.deleted_at is null
            and exists (
                select 1
                from desired_roles as roles
                where
                    roles.clever_id = members.person and roles.role = members.role
                    and (members.role = 'teacher' or roles.school_id = classrooms.school_id)
            )
        on conflict (classroom_id, user_id, role) do update
        set is_primary = excluded.is_primary, source = 'clever', deleted_at = null, updated_at = %(now)s
    """,
}


def roster_literally(database: Database, settings: Settings, district: str) -> dict[str, Any]:
    """Rosters the district once. Returns the seconds (pull and SQL), and rows and WAL bytes by table."""
    rows: Counter[str] = Counter()
    wal: Counter[str] = Counter()
    with written(database) as what, sync_session(database, settings) as connection:
        driver = psycopg_connection(connection)
        values: dict[str, Any] = {"district": find_district(connection, district).district_id, "now": datetime.now(UTC)}
        start = time.perf_counter()
        _pull(driver, settings, district)
        pulled = time.perf_counter()
        with one_state(connection):
            for statements in (_SOFT_DELETES, _PLACES, _DESIRED, _PEOPLE):
                for table, statement in statements.items():
                    before = wal_position(connection)
                    rows[table] += driver.execute(statement.encode(), values).rowcount
                    wal[table] += wal_between(connection, before, wal_position(connection))
        seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "pull_seconds": pulled - start,
        "rows": {table: rows[table] for table in _SOFT_DELETES},
        "wal_by_table": {table: wal[table] for table in _SOFT_DELETES},
        "wal_bytes": sum(wal[table] for table in _SOFT_DELETES),
        "server_wal_bytes": what.wal_bytes,
    }


def _pull(driver: "psycopg.Connection[Any]", settings: Settings, district: str) -> None:
    """Pulls every collection into temporary tables, validated as in a sync."""
    for resource in contracts.RESOURCES:
        columns = ", ".join(f"{column.name} {column.sql_type}" for column in contracts.columns(resource))
        statement = f"create temporary table landed_{resource} (position bigint generated always as identity, {columns}, rejected boolean)"
        driver.execute(statement.encode())
    with DistrictPull(settings, district, keep_student_email=False) as pull:
        for collection in Collection:
            for page in pull.pages(collection):
                frame = frame_of(collection, page.columns, page.findings)
                copy_rows(driver, sql.Identifier(f"landed_{collection.resource}"), frame.table)
    for resource in contracts.RESOURCES:
        driver.execute(f"analyze landed_{resource}".encode())


def main() -> None:
    """Runs the step. The last line of its output is JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.literally")
    parser.add_argument("district")
    arguments = parser.parse_args()
    settings = Settings(_env_file=None)
    with open_database(settings) as database:
        print_figures(roster_literally(database, settings, arguments.district))


if __name__ == "__main__":
    main()
