"""The reach of a model, found in its SQL: which value of the header `decides by` each way to combine rows requires."""

import pytest
import sqlglot

from roster_pipeline.database.reach import required_reach

CASES = {
    # One record: its own columns, its own rows, and tables that are the same for everybody.
    "itself": [
        "select clever_id from staging.users where grade = 'Other'",
        "select clever_id from clever.users group by collection, clever_id having count(*) > 1",
        "select distinct users.clever_id from staging.users as users cross join lateral unnest(users.staff_schools) as listed (school)",
        "select users.clever_id from app.users as users inner join app.user_roles as held using (user_id) group by users.user_id",
        "select clever_id, (select count(*) from app.user_roles as held where held.user_id = users.user_id) as n from app.users as users",
        "select clever_id from staging.users cross join (select array_agg(clever_id) as ids from reconcile.schools) as schools",
        "select users.clever_id from staging.users as users where exists (select 1 from reconcile.holds as holds)",
        "select coalesce(a.clever_id, b.clever_id) as id from staging.users as a full join app.users as b on a.clever_id = b.clever_id",
        "select clever_id, cardinality(array(select x from unnest(users.staff_schools) as s (x) order by x)) from staging.users as users",
        "select section, person, count(*) from reconcile.memberships group by section, person",
    ],
    # One name, or one SIS id.
    "name": [
        "select username from staging.users group by username having count(*) > 1",
        "select count(*) over (partition by app.normalize_username(username)) as n from staging.users",
        "select clever_id, count(*) over w as n from reconcile.people window w as (partition by desired_key)",
        "select a.clever_id from reconcile.people as a inner join app.users as b on a.desired_key = b.username_key",
        "select a.clever_id from app.users as a where a.username_key in (select own_key from reconcile.people)",
        "with k as (select app.normalize_username(username) as key from staging.users) select key from k group by 1",
        "select sis_id from staging.users group by sis_id having count(*) > 1",
        "select count(*) over (partition by sis_id) as n from staging.users",
        "select distinct sis_id from staging.users",
        "select a.clever_id from staging.users as a inner join staging.users as b on a.sis_id = b.sis_id",
        "select a.clever_id from staging.users as a where exists (select 1 from app.users as b where b.sis_id = a.sis_id)",
        "select a.clever_id from staging.users as a where a.sis_id in (select sis_id from app.users)",
        "select a.clever_id from staging.users as a inner join app.users as b"
        " on app.normalize_username(a.username) = app.normalize_username(b.district_username)",
        "select sis_id from staging.users union select sis_id from app.users",
    ],
    # The sections that list a person.
    "section": [
        "select distinct user_id from app.enrollments as e inner join reconcile.classrooms as c using (classroom_id)",
        "select person from reconcile.memberships group by person having count(*) > 1",
        "select p.clever_id from reconcile.people as p where not exists (select 1 from reconcile.memberships as m"
        " where m.person = p.clever_id)",
        "select m.person, count(*) from staging.sections as s cross join lateral unnest(s.students) as m (person) group by m.person",
    ],
    # Other people of a section. An incremental plan does not have all of them.
    "school": [
        "select section from reconcile.memberships group by section having count(*) > 40",
        "select a.user_id from app.enrollments as a inner join app.enrollments as b on a.classroom_id = b.classroom_id",
        "select s.clever_id from staging.sections as s where not exists (select 1 from reconcile.memberships as m"
        " where m.section = s.clever_id)",
        "select s.clever_id from staging.sections as s left join reconcile.memberships as m on s.clever_id = m.section"
        " where m.person is null",
    ],
    # Any other record. An alias that looks like an id does not change that, and neither does an `or`.
    "district": [
        "select state_id from staging.users group by state_id having count(*) > 1",
        "select count(*) over (partition by state_id) as n from staging.users",
        "select clever_id, row_number() over (order by clever_id) as n from staging.users",
        "select clever_id, count(*) over w as n from staging.users window w as (partition by state_id)",
        "select distinct on (email) clever_id from staging.users order by email, clever_id",
        "select distinct state_id from staging.users",
        "select count(*) filter (where grade is null) as n from staging.users",
        "select clever_id from staging.users where (select count(*) from staging.users) > 10",
        "select clever_id from staging.users order by clever_id limit 10",
        "select a.clever_id from staging.users as a inner join staging.users as b on a.state_id = b.state_id",
        "select a.clever_id from staging.users as a, staging.users as b where a.state_id = b.state_id",
        "select a.clever_id from staging.users as a inner join staging.users as b on a.state_id = b.state_id or a.clever_id = b.clever_id",
        "select a.clever_id from staging.users as a inner join staging.users as b using (email)",
        "select a.clever_id from staging.users as a where exists (select 1 from app.users as b where b.state_id = a.state_id)",
        "select a.clever_id from staging.users as a where a.state_id in (select state_id from app.users)",
        "select a.clever_id from staging.users as a where a.state_id = any(array(select b.state_id from app.users as b))",
        "select a.clever_id from staging.users as a inner join app.users as b on a.sis_id = b.username",
        "select a.clever_id from staging.users as a inner join app.users as b on a.sis_id = b.state_id",
        "select a.clever_id from staging.users as a cross join app.users as b",
        "select a.clever_id from staging.users as a cross join lateral (select 1 from app.users as b where b.email = a.email) as c",
        "select state_id from staging.users union select state_id from app.users",
        "select state_id from staging.users except select state_id from app.users",
        "select clever_id from staging.users where not exists (select 1 from staging.sections)",
        "with x as (select state_id as clever_id from staging.users) select clever_id from x group by clever_id",
        "with x as (select state_id as username from staging.users) select username from x group by username",
        "with x (user_id) as (select state_id from staging.users) select user_id from x group by user_id",
        "select count(*) over (partition by app.normalize_username(first_name)) as n from staging.users",
        "select count(*) over (partition by coalesce(state_id, clever_id)) as n from staging.users",
        "select count(*) over (partition by case when grade is null then clever_id else email end) as n from staging.users",
    ],
}


@pytest.mark.parametrize(("needed", "sql"), [(needed, sql) for needed, statements in CASES.items() for sql in statements])
def test_what_the_sql_asks_of_the_header(needed: str, sql: str) -> None:
    """The least value that the header of a model with this statement may have."""
    assert required_reach(sqlglot.parse_one(sql, dialect="postgres"))[0] == needed
