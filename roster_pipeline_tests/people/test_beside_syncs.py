"""How imported people and the syncs of their district affect each other (R8.1, R8.2)."""

import io
from collections.abc import Iterator

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline.people.imports import ImportReport, import_people
from roster_pipeline_tests.sync.scenario import DISTRICT, Scenario, scenario

PEOPLE = """
    select
        u.*, u.xmin::text as version,
        array(select (r.*, r.xmin)::text from app.user_roles r where r.user_id = u.user_id order by r.role) as roles
    from app.users u where u.source = 'csv' order by u.username
"""


@pytest.fixture
def world(database: Database) -> Iterator[Scenario]:
    with scenario(database, "twig_science") as opened:
        yield opened


def run(world: Scenario, *rows: str) -> ImportReport:
    content = "\n".join(("username,first_name,last_name,role,school,email", *rows)).encode()
    return import_people(world.database, world.settings, DISTRICT, io.BytesIO(content), "users")


def test_a_sync_leaves_imported_people_unchanged(world: Scenario) -> None:
    """R8.1: it changes neither their rows nor their roles, although Clever does not share them, and later shares one of their usernames."""
    school = world.school("North")
    world.students(school, 3)
    assert world.sync().status == "successful"
    assert run(world, "ann,Ann,Lee,teacher,North,", "sam,Sam,Roe,student,North,", "dora,Dora,Day,district_admin,,").created == 3
    before = world.rows(PEOPLE)
    assert world.sync().status == "successful"
    assert world.rows(PEOPLE) == before
    newcomer = world.change.add_user("student", "Other", "Ann", schools=[school], username="ANN", grade="3")
    assert world.sync().status == "successful"
    assert world.rows(PEOPLE) == before
    # R5.5: the protected user keeps the username.
    assert world.rows("select username from app.users where clever_id = :id", id=newcomer) == [(newcomer,)]


def test_names_of_the_last_snapshot_are_refused(world: Scenario) -> None:
    """R8.2: usernames and Clever ids that a real sync has accepted."""
    school = world.school("North")
    clever_ids = world.students(school, 2)
    world.sync()
    report = run(world, "S1,F,L,teacher,North,", f"{clever_ids[1]},F,L,teacher,North,", "free,F,L,teacher,North,")
    assert [(error.line, error.column) for error in report.errors] == [(2, "username"), (3, "username")]
    assert report.created == 1
