"""R7.3, R7.6: each brake at its limit and above it, and the first sync.

Does not belong here: what a hold covers, and approvals (`test_holds.py`).
"""

from collections.abc import Iterator

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, section, student, teacher
from roster_pipeline_tests.sync.rows import approve_open, new_user
from roster_pipeline_tests.sync.scenario import Scenario, scenario


@pytest.fixture
def world(database: Database) -> Iterator[Scenario]:
    with scenario(database) as opened:
        yield opened


@pytest.mark.parametrize(("leavers", "held"), [(10, False), (11, True)])
def test_district_role_brake_at_and_above_its_floor(world: Scenario, leavers: int, held: bool) -> None:
    """R7.3: the limit for one role is max(10, 5 % of n). Ten of 120 students do not trip it, eleven do."""
    students = world.fill({"a": 60, "b": 60})
    leavers_of_both = students["a"][: leavers // 2] + students["b"][: leavers - leavers // 2]
    world.agree(settings={"brakes": {"school_floor": 100}})
    world.change.remove_users(leavers_of_both)
    assert world.sync().status == ("held" if held else "successful")
    assert (set(leavers_of_both) <= world.active()) is held
    assert [row[:4] for row in world.holds()] == ([("district_role", "student", None, leavers)] if held else [])


@pytest.mark.parametrize(("leavers", "held"), [(15, False), (16, True)])
def test_district_role_brake_at_and_above_its_share(world: Scenario, leavers: int, held: bool) -> None:
    """R7.3: 15 is exactly 5 % of 300 students, and passes."""
    students = world.fill({"a": 300})
    world.agree(settings={"brakes": {"school_floor": 100}})
    world.change.remove_users(students["a"][:leavers])
    assert world.sync().status == ("held" if held else "successful")


def test_a_school_of_twelve_may_lose_two(world: Scenario) -> None:
    """R7.3: fewer than the floor of five are never held, however small the school is."""
    students = world.fill({"small": 12, "big": 40})
    world.change.remove_users(students["small"][:2])
    assert world.sync().status == "successful"
    assert not world.active() & set(students["small"][:2])


@pytest.mark.parametrize(("leavers", "held"), [(5, False), (6, True)])
def test_school_role_brake_at_and_above_its_floor(world: Scenario, leavers: int, held: bool) -> None:
    """R7.3, R7.4: six of one school are held, although the district's limit is ten. Leavers of the other school are removed."""
    students = world.fill({"small": 20, "big": 200})
    world.change.remove_users(students["small"][:leavers] + students["big"][:3])
    assert world.sync().status == ("held" if held else "successful")
    assert [row[:4] for row in world.holds()] == ([("school_role", "student", "small", leavers)] if held else [])
    assert not world.active() & set(students["big"][:3])
    assert (set(students["small"][:leavers]) <= world.active()) is held


def test_an_empty_collection_holds_every_soft_delete(world: Scenario) -> None:
    """R7.3, R7.4: if there are no sections at all, all their soft deletes are held, with enrollments. A new student is created."""
    world.fill({"a": 5})
    sections = [row[0] for row in world.rows("select clever_id from app.classrooms")]
    world.change.remove_sections(sections)
    newcomer = world.students(world.value("select clever_id from app.schools"), 1, prefix="new")
    report = world.sync()
    assert report.status == "held"
    assert world.rows("select kind, counts ->> 'collection' from ops.holds") == [("empty_collection", "sections")]
    assert world.value("select count(*) from app.enrollments where deleted_at is null") == 6
    assert set(newcomer) <= world.active()
    world.approve()
    assert world.sync().status == "successful"
    assert world.value("select count(*) from app.enrollments where deleted_at is null") == 0


@pytest.mark.parametrize(("moved", "held"), [(25, False), (26, True)])
def test_relinks_brake_at_and_above_its_floor(world: Scenario, moved: int, held: bool) -> None:
    """R7.3, R7.4: held relinks create nobody, and leave the old users unchanged."""
    students = world.fill({"a": 100})
    before = world.rows("select * from app.users order by user_id")
    enrolled = world.rows("select * from app.enrollments order by 2, 3")
    new = world.change.re_id(students["a"][:moved])
    assert world.sync().status == ("held" if held else "successful")
    assert (before == world.rows("select * from app.users order by user_id")) is held
    assert world.value("select count(*) from app.users") == len(before)
    if held:
        assert enrolled == world.rows("select * from app.enrollments order by 2, 3")
        world.approve()
        assert world.sync().status == "successful"
    assert set(new.values()) <= world.active()
    assert world.value("select count(*) from app.users where deleted_at is not null") == 0


@pytest.mark.parametrize(("admins", "held"), [(3, False), (4, True)])
def test_new_admins_brake_at_and_above_its_floor(world: Scenario, admins: int, held: bool) -> None:
    """R7.3, R7.4: people held from becoming admins keep username and roles. Those with no other role are not created."""
    world.fill({"a": 5})
    teachers = [f"t{each}" for each in range(admins - 1)]
    school = world.value("select clever_id from app.schools")
    ids = [world.change.add_user("teacher", "T", each, schools=[school], username=each) for each in teachers]
    assert world.sync().status == "successful"
    for each in ids:
        roles = {"teacher": {"school": school, "schools": [school], "sis_id": each, "credentials": {"district_username": "x" + each}}}
        world.change.set_roles(each, {**roles, "district_admin": {"title": "boss"}})
    only_admin = world.change.add_user("district_admin", "Only", "Admin")
    usernames = dict(world.rows("select clever_id, username from app.users where clever_id = any(:ids)", ids=ids))
    assert world.sync().status == ("held" if held else "successful")
    after = dict(world.rows("select clever_id, username from app.users where clever_id = any(:ids)", ids=ids))
    assert after == (usernames if held else {each: each for each in ids})
    assert (only_admin in world.active("district_admin")) is not held
    if held:
        world.approve()
        assert world.sync().status == "successful"
        assert {*ids, only_admin} <= world.active("district_admin")


def test_the_first_sync_waits_when_it_would_delete(world: Scenario) -> None:
    """R7.6: with existing data that matches nobody, nothing is written, and one hold covers the plan. After approval it is applied."""
    school = world.school("a")
    students = world.students(school, 3)
    world.execute(
        "insert into app.users (district_id, username, first_name, last_name) select district_id, 'old', 'O', 'Ld' from app.districts"
    )
    report = world.sync()
    assert report.status == "held"
    assert world.rows("select kind, status from ops.holds where kind <> 'empty_collection'") == [("initial", "open")]
    assert world.value("select count(*) from app.users") == 1
    assert world.value("select count(*) from staging.users") == 0
    assert world.value("select count(*) from reconcile.soft_deletes") == 1
    assert world.value("select count(*) from ops.changes") == 0
    world.approve()
    assert world.sync().status == "successful"
    assert world.active() == set(students)
    assert world.value("select deleted_at is not null from app.users where username = 'old'")


def test_the_first_sync_runs_with_nothing_to_lose_or_with_auto_initial(world: Scenario) -> None:
    """R7.6: protected data is not deleted. With `auto_initial` no approval is needed."""
    school = world.school("a")
    teacher = world.change.add_user("teacher", "T", "A", schools=[school], username="t")
    world.change.add_section(school, name="class", students=world.students(school, 3), teachers=[teacher])
    world.agree(settings={"auto_initial": True})
    world.execute(
        """insert into app.users (district_id, username, first_name, last_name, protected)
           select district_id, u, 'O', 'Ld', u = 'kept' from app.districts, unnest(array['old', 'kept']) as u"""
    )
    assert world.sync().status == "successful"
    assert world.rows("select username from app.users where clever_id is null and deleted_at is null") == [("kept",)]


def test_a_plan_shows_what_a_sync_would_do_and_writes_nothing(world: Scenario) -> None:
    """R7.3-R7.5: the same brakes, numbers and hash as the sync, and no row is written."""
    students = world.fill({"a": 100})
    world.change.remove_users(students["a"][:30])
    tables = [
        "app.users",
        "app.user_roles",
        "app.enrollments",
        "ops.holds",
        "ops.syncs",
        "ops.changes",
        "staging.users",
        "reconcile.user_matches",
    ]
    before = {table: world.rows(f"select xmin::text, ctid::text from {table}") for table in tables}
    report = world.plan()
    assert before == {table: world.rows(f"select xmin::text, ctid::text from {table}") for table in tables}
    tripped = {(each.brake.kind, each.brake.acts, each.brake.active, each.brake.plan_hash) for each in report.plan.holding}
    assert {each[:3] for each in tripped} == {("district_role", 30, 100), ("school_role", 30, 100)}
    world.sync()
    assert {each[3] for each in tripped} == {row[0] for row in world.rows("select plan_hash from ops.holds")}


def test_the_first_sync_has_one_hold_whatever_the_licenses(district: LiveDistrict) -> None:
    """R7.6: `initial` covers everybody. The licenses are checked when it is applied."""
    district.agree(settings={"auto_initial": False}, licenses=0, over_license_policy="hold")
    new_user(district, "old")
    snapshot = clever(section("c1", ["p1"], ["t1"]), student("p1"), teacher("t1"))
    assert district.sync(snapshot).status == "held"
    assert [hold.identity[0] for hold in district.holds().values()] == ["initial"]
    approve_open(district)
    assert district.sync(snapshot).status == "held"
    assert [(hold.identity[0], hold.status) for hold in district.holds().values()] == [("initial", "used"), ("licenses", "open")]
