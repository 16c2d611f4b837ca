"""R7.3-R7.6: each brake at and above its limit, what a hold covers, and the life of an approval."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline.errors import PermanentError
from roster_pipeline.support import holds
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, district_admin, school, section, student, teacher
from roster_pipeline_tests.sync.rows import active, enrolled, new_user, roles, user, usernames
from roster_pipeline_tests.sync.scenario import Scenario, scenario


@pytest.fixture
def world(database: Database) -> Iterator[Scenario]:
    with scenario(database) as opened:
        yield opened


def _district_of(world: Scenario, sizes: dict[str, int]) -> dict[str, list[str]]:
    """Schools with so many students each, synced once. Returns school name -> student ids; a section per school with everybody in it."""
    students = {}
    for name, size in sizes.items():
        school = world.school(name)
        teacher = world.change.add_user("teacher", "T", name, schools=[school], username=f"t-{name}")
        students[name] = world.students(school, size, prefix=name)
        world.change.add_section(school, name=f"class {name}", students=students[name], teachers=[teacher])
    assert world.sync().status == "successful"
    return students


@pytest.mark.parametrize(("leavers", "held"), [(10, False), (11, True)])
def test_district_role_brake_at_and_above_its_floor(world: Scenario, leavers: int, held: bool) -> None:
    """R7.3: deactivations of one role above max(10, 5 % of n) trip; ten of 120 students do not, eleven do."""
    students = _district_of(world, {"a": 60, "b": 60})
    gone = students["a"][: leavers // 2] + students["b"][: leavers - leavers // 2]
    world.agree(settings={"brakes": {"school_floor": 100}})
    world.change.remove_users(gone)
    assert world.sync().status == ("held" if held else "successful")
    assert (set(gone) <= world.active()) is held
    assert [row[:4] for row in world.holds()] == ([("district_role", "student", None, leavers)] if held else [])


@pytest.mark.parametrize(("leavers", "held"), [(15, False), (16, True)])
def test_district_role_brake_at_and_above_its_share(world: Scenario, leavers: int, held: bool) -> None:
    """R7.3: of 300 students 5 % is exactly 15, which passes."""
    students = _district_of(world, {"a": 300})
    world.agree(settings={"brakes": {"school_floor": 100}})
    world.change.remove_users(students["a"][:leavers])
    assert world.sync().status == ("held" if held else "successful")


def test_a_school_of_twelve_may_lose_two(world: Scenario) -> None:
    """R7.3: below the floor of five, a small school is not held."""
    students = _district_of(world, {"small": 12, "big": 40})
    world.change.remove_users(students["small"][:2])
    assert world.sync().status == "successful"
    assert not world.active() & set(students["small"][:2])


@pytest.mark.parametrize(("leavers", "held"), [(5, False), (6, True)])
def test_school_role_brake_at_and_above_its_floor(world: Scenario, leavers: int, held: bool) -> None:
    """R7.3, R7.4: six of one school are held, though the district's limit of ten is not reached; the other school's leavers go."""
    students = _district_of(world, {"small": 20, "big": 200})
    world.change.remove_users(students["small"][:leavers] + students["big"][:3])
    assert world.sync().status == ("held" if held else "successful")
    assert [row[:4] for row in world.holds()] == ([("school_role", "student", "small", leavers)] if held else [])
    assert not world.active() & set(students["big"][:3])
    assert (set(students["small"][:leavers]) <= world.active()) is held


def test_a_school_that_vanishes_below_the_districts_limit_is_held_with_its_classes(world: Scenario) -> None:
    """R7.3, R7.4: held people keep roles and enrollments, and their school and classrooms stay, while arrivals elsewhere land."""
    students = _district_of(world, {"small": 8, "big": 200})
    world.change.unshare([world.value("select clever_id from app.schools where name = 'small'")])
    newcomer = world.students(world.value("select clever_id from app.schools where name = 'big'"), 1, prefix="new")
    # The teacher is gone and not held: one is below every limit.
    enrolled = (
        "select e.* from app.enrollments e join app.classrooms c using (classroom_id) where c.name = 'class small' and e.role = 'student'"
    )
    before = sorted(world.rows(enrolled))
    assert world.sync().status == "held"
    assert set(students["small"]) | set(newcomer) <= world.active()
    assert world.value("select deleted_at is null from app.schools where name = 'small'")
    assert world.value("select deleted_at is null from app.classrooms where name = 'class small'")
    assert before == sorted(world.rows(enrolled))
    world.approve()
    assert world.sync().status == "successful"
    assert not world.active() & set(students["small"])
    assert world.value("select deleted_at is not null from app.schools where name = 'small'")
    assert world.value("select deleted_at is not null from app.classrooms where name = 'class small'")
    assert not world.rows(enrolled + " and e.deleted_at is null")


def test_an_approval_releases_exactly_the_plan_it_was_given_for(world: Scenario) -> None:
    """R7.5: approved, then one more leaves: the approval is superseded; arrivals do not change the plan."""
    students = _district_of(world, {"a": 100})
    world.change.remove_users(students["a"][:30])
    world.sync()
    world.approve()
    world.change.remove_users(students["a"][30:31])
    assert world.sync().status == "held"
    assert {row[0] for row in world.holds("superseded")} == {"district_role", "school_role"}
    assert set(students["a"][:31]) <= world.active()
    world.approve()
    arrivals = world.students(world.value("select clever_id from app.schools"), 3, prefix="late")
    assert world.sync().status == "successful"
    assert set(arrivals) <= world.active()
    assert not world.active() & set(students["a"][:31])
    assert len(world.holds("used")) == 2


def test_every_role_at_a_held_school_stays_as_it_is(world: Scenario) -> None:
    """R7.4: who arrives at a held school waits with it; who leaves it for another school arrives there."""
    students = _district_of(world, {"a": 100, "b": 100})
    world.agree(settings={"brakes": {"role_floor": 1000}})
    a, b = (world.value("select clever_id from app.schools where name = :name", name=name) for name in "ab")
    world.change.remove_users(students["a"][:30])
    world.change.move_students({students["a"][50]: b})
    arrivals = world.students(a, 3, prefix="late")
    assert world.sync().status == "held"
    assert not set(arrivals) & world.active()
    roles = """
        select s.name, r.deleted_at is null
        from app.user_roles r join app.users u using (user_id) join app.schools s on s.school_id = r.school_id
        where u.clever_id = :person order by s.name
    """
    assert world.rows(roles, person=students["a"][50]) == [("a", True), ("b", True)]
    world.approve()
    assert world.sync().status == "successful"
    assert set(arrivals) <= world.active()
    assert world.rows(roles, person=students["a"][50]) == [("a", False), ("b", True)]


def test_arrivals_do_not_change_the_hash(world: Scenario) -> None:
    """R7.5: the hash is over the held acts; three nights of arrivals keep one hold, and the approval still releases it."""
    students = _district_of(world, {"a": 100, "b": 20})
    world.agree(settings={"brakes": {"school_floor": 1000}})
    world.change.remove_users(students["a"][:30])
    b = world.value("select clever_id from app.schools where name = 'b'")
    for night in range(3):
        arrivals = world.students(b, 2, prefix=f"night{night}-")
        assert world.sync().status == "held"
        assert set(arrivals) <= world.active()
        assert len(world.holds()) == 1
    world.approve()
    assert world.sync().status == "successful"
    assert not world.active() & set(students["a"][:30])
    assert [row[0] for row in world.holds("used")] == ["district_role"]


def test_a_rejected_hold_stays_rejected_until_its_plan_changes(world: Scenario) -> None:
    """R7.5."""
    students = _district_of(world, {"a": 100})
    world.agree(settings={"brakes": {"school_floor": 1000}})
    world.change.remove_users(students["a"][:30])
    world.sync()
    [hold] = world.holds()
    with world.database.engine.begin() as connection:
        holds.reject(connection, hold[-1], by="tester", now=world.clock())
    assert world.sync().status == "held"
    assert world.holds("rejected") == [hold]
    assert not world.holds()
    world.change.restore_users(students["a"][:1])
    assert world.sync().status == "held"
    assert world.holds("superseded") == [hold]
    assert [row[3] for row in world.holds()] == [29]


def test_an_expired_approval_releases_nothing(world: Scenario) -> None:
    """R7.5: after approval_hours the hold is expired and a new one opens."""
    students = _district_of(world, {"a": 100})
    world.agree(settings={"brakes": {"school_floor": 1000}, "approval_hours": 2})
    world.change.remove_users(students["a"][:30])
    world.sync()
    world.approve()
    later = datetime.now(UTC) + timedelta(hours=2)
    world.clock = lambda: later
    assert world.sync().status == "held"
    assert len(world.holds("expired")) == len(world.holds()) == 1
    assert set(students["a"]) <= world.active()


def test_a_hold_is_decided_once(world: Scenario) -> None:
    """R7.5: approving twice, or approving what is used, is refused with a reason."""
    students = _district_of(world, {"a": 100})
    world.agree(settings={"brakes": {"school_floor": 1000}})
    world.change.remove_users(students["a"][:30])
    world.sync()
    [hold] = world.holds()
    world.approve()
    with pytest.raises(PermanentError, match="is approved"):
        world.approve(hold[-1])
    world.sync()
    with pytest.raises(PermanentError, match="is used"):
        world.approve(hold[-1])
    with pytest.raises(PermanentError, match="no hold 999"):
        world.approve(999)


def test_when_the_reason_is_gone_the_hold_is_superseded(world: Scenario) -> None:
    """R7.5: everybody is back, so nothing trips and nothing waits for a decision."""
    students = _district_of(world, {"a": 100})
    world.change.remove_users(students["a"][:30])
    world.sync()
    world.change.restore_users(students["a"][:30])
    assert world.sync().status == "successful"
    assert not world.holds("open", "approved", "rejected")


def test_an_empty_collection_holds_every_soft_delete(world: Scenario) -> None:
    """R7.3, R7.4: no sections at all is held, enrollments included, whatever the number; a new student still lands."""
    _district_of(world, {"a": 5})
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
    """R7.3, R7.4: held relinks create nobody and leave the old users exactly as they are."""
    students = _district_of(world, {"a": 100})
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
    """R7.3, R7.4: would-be admins keep username and roles; who would be nothing else is not created."""
    _district_of(world, {"a": 5})
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
    """R7.6: existing data that is not recognised: nothing is written, one hold over the whole plan; approved, it runs."""
    school = world.school("a")
    students = world.students(school, 3)
    world.execute(
        "insert into app.users (district_id, username, first_name, last_name) select district_id, 'old', 'O', 'Ld' from app.districts"
    )
    report = world.sync()
    assert report.status == "held"
    assert world.rows("select kind, status from ops.holds") == [("initial", "open")]
    assert world.value("select count(*) from app.users") == 1
    assert world.value("select count(*) from staging.users") == 0
    assert world.value("select count(*) from reconcile.soft_deletes") == 1
    assert world.value("select count(*) from ops.changes") == 0
    world.approve()
    assert world.sync().status == "successful"
    assert world.active() == set(students)
    assert world.value("select deleted_at is not null from app.users where username = 'old'")


def test_the_first_sync_runs_with_nothing_to_lose_or_with_auto_initial(world: Scenario) -> None:
    """R7.6: protected data is not lost; `auto_initial` asks nobody."""
    world.students(world.school("a"), 3)
    world.agree(settings={"auto_initial": True})
    world.execute(
        """insert into app.users (district_id, username, first_name, last_name, protected)
           select district_id, u, 'O', 'Ld', u = 'kept' from app.districts, unnest(array['old', 'kept']) as u"""
    )
    assert world.sync().status == "successful"
    assert world.rows("select username from app.users where clever_id is null and deleted_at is null") == [("kept",)]


def test_a_plan_shows_what_a_sync_would_do_and_writes_nothing(world: Scenario) -> None:
    """R7.3-R7.5: the same brakes, numbers and hash as the sync, and no row anywhere."""
    students = _district_of(world, {"a": 100})
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


def test_an_approval_is_not_spent_while_another_hold_covers_the_same_people(world: Scenario) -> None:
    """R7.5: two brakes hold the same students; approved one after the other, on different nights, they are let go."""
    students = _district_of(world, {"a": 100})
    world.change.remove_users(students["a"][:30])
    world.sync()
    district, school = world.holds()
    world.approve(district[-1])
    assert world.sync().status == "held"
    assert set(students["a"]) <= world.active()
    assert world.holds("approved") == [district]
    world.approve(school[-1])
    assert world.sync().status == "successful"
    assert not world.active() & set(students["a"][:30])
    assert world.holds("used") == [district, school]


def test_a_name_that_a_held_user_keeps_is_nobody_elses_even_as_a_clever_id(world: Scenario) -> None:
    """R5.5, R7.4: whose Clever id is a held user's username waits with the hold; the sync does not fail, and the rest lands."""
    school = world.school("a")
    world.agree(settings={"brakes": {"role_floor": 0, "role_share": 0}})
    newcomer = world.district.new_id()
    [leaver] = world.students(school, 1)
    world.change.change_username(leaver, newcomer)
    world.sync()
    world.change.remove_users([leaver])
    world.change.add_user("student", "N", "N", schools=[school], user=newcomer)
    other = world.students(school, 1, prefix="other")
    assert world.sync().status == "held"
    assert world.active() == {leaver, *other}
    world.approve()
    assert world.sync().status == "successful"
    assert world.active() == {newcomer, *other}


def _approve(district: LiveDistrict) -> None:
    for hold_id, hold in district.holds().items():
        if hold.status == "open":
            district.approve(hold_id)


def test_who_would_become_a_district_admin_and_nothing_else_keeps_role_and_username(district: LiveDistrict) -> None:
    """R7.4: a teacher whom Clever makes a district admin stays a teacher until the gain is let through."""
    boss = district_admin("p9")
    district.sync(clever(teacher("p1", "eva"), teacher("p2"), boss))
    district.agree(settings={"brakes": {"admin_floor": 0, "admin_share": 0}})
    promoted = clever(district_admin("p1"), teacher("p2"), boss)
    assert district.sync(promoted).status == "held"
    assert roles(district, "p1") == {("teacher", "s1")}
    assert usernames(district)["p1"] == "eva"
    _approve(district)
    assert district.sync(promoted).status == "successful"
    assert roles(district, "p1") == {("district_admin", None)}
    assert usernames(district)["p1"] == "p1"


def test_an_adopted_user_who_would_become_a_district_admin_keeps_the_username(district: LiveDistrict) -> None:
    """R7.4: also somebody whom this sync recognises for the first time."""
    boss = district_admin("p9")
    district.sync(clever(teacher("p2"), boss))
    district.agree(settings={"brakes": {"admin_floor": 0, "admin_share": 0}})
    existing = new_user(district, "p1", role="teacher")
    assert district.sync(clever(teacher("p1", "eva", district_admin=True), teacher("p2"), boss)).status == "held"
    assert user(district, "p1")["user_id"] == existing
    assert usernames(district)["p1"] == "p1"


def test_who_moves_to_a_held_school_is_not_left_without_a_role(district: LiveDistrict) -> None:
    """R7.4: the role there cannot be gained, so the person stays as is at the school they come from."""
    places = [school("s1"), school("s2")]
    here, there = [student(f"p{each}", at="s1") for each in (1, 2)], [student(f"p{each}", at="s2") for each in (3, 4)]
    district.sync(clever(*places, *here, *there))
    district.agree(settings={"brakes": {"school_floor": 0, "school_share": 0}})
    moved = clever(*places, student("p1", at="s2", name="Ana New"), here[1], there[0])
    assert district.sync(moved).status == "held"
    assert roles(district, "p1") == {("student", "s1")}
    assert user(district, "p1")["last_name"] == "Li"
    _approve(district)
    district.sync(moved)
    assert roles(district, "p1") == {("student", "s2")}


def test_a_kept_class_of_a_school_that_is_gone_takes_nobody_in(district: LiveDistrict) -> None:
    """R6.1, R6.3, R7.4: the row stays because of a held member; whoever else is listed is not at that school any more."""
    places, people = [school("s1"), school("s2")], [student("p1", at="s2"), student("p2", at="s2"), student("p3", at="s1")]
    district.sync(clever(*places, *people, section("c1", ["p1", "p2"], at="s2")))
    district.agree(settings={"brakes": {"role_floor": 0, "role_share": 0}})
    moved = clever(school("s1"), student("p1", at="s1"), people[2], section("c1", ["p1", "p2", "p3"], at="s2"))
    assert district.sync(moved).status == "held"
    assert active(district, "classrooms") == {"c1"}
    assert enrolled(district, "c1") == {("p2", "student", False)}


def test_a_name_that_stays_with_who_waits_for_a_held_school_is_nobody_elses(district: LiveDistrict) -> None:
    """R5.5, R7.4: the newcomer whose Clever id it is waits as well, and the sync does not fail."""
    places = [school("s1"), school("s2")]
    leaver, mover, boss = student("p1", at="s2"), student("p2", "p3", at="s1"), student("p4", at="s2")
    district.sync(clever(*places, leaver, mover, boss))
    district.agree(settings={"brakes": {"school_floor": 0, "school_share": 0}})
    moved = clever(*places, student("p2", "other", at="s2"), boss, student("p3", at="s1"))
    assert district.sync(moved).status == "held"
    assert usernames(district) == {"p1": "p1", "p2": "p3", "p4": "p4"}
    _approve(district)
    assert district.sync(moved).status == "successful"
    assert usernames(district) == {"p2": "other", "p3": "p3", "p4": "p4"}


def test_the_first_sync_waits_under_one_hold_whatever_the_licenses(district: LiveDistrict) -> None:
    """R7.6: `initial` is over the whole plan; the licenses have their say when it runs."""
    district.agree(settings={"auto_initial": False}, licenses=0, over_license_policy="hold")
    new_user(district, "old")
    assert district.sync(clever(student("p1"))).status == "held"
    assert [hold.identity[0] for hold in district.holds().values()] == ["initial"]
    _approve(district)
    assert district.sync(clever(student("p1"))).status == "held"
    assert [(hold.identity[0], hold.status) for hold in district.holds().values()] == [("initial", "used"), ("licenses", "open")]


def test_a_school_held_for_two_roles_is_one_school(district: LiveDistrict) -> None:
    """R7.4: students and teachers of one school are held; who stays there is written once."""
    places = [school("s1"), school("s2")]
    there = [student("p1", at="s2"), student("p2", at="s2"), teacher("p3", at="s2"), teacher("p4", at="s2")]
    here = [student("p5"), teacher("p6", schools=["s2"]), section("c1", ["p5"], ["p4", "p6"])]
    district.sync(clever(*places, *there, *here))
    district.agree(settings={"brakes": {"school_floor": 0, "school_share": 0}})
    left = clever(*places, student("p1", at="s2", name="Ana New"), teacher("p4", at="s2"), *here[:2], section("c1", ["p5"], ["p6", "p4"]))
    report = district.sync(left)
    assert report.status == "held"
    assert len(district.holds()) == 2
    assert user(district, "p1")["last_name"] == "New"
    told = [(each["entity"], each["entity_id"]) for each in district.changes(report.sync_id)]
    assert len(told) == len(set(told))
    assert enrolled(district, "c1") == {("p5", "student", False), ("p6", "teacher", True), ("p4", "teacher", False)}
