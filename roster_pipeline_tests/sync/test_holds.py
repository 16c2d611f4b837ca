"""R7.4, R7.5: what a hold covers, and what happens to an approval.

Does not belong here: the limits of brakes (`test_brakes.py`).
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline.errors import PermanentError
from roster_pipeline.support import holds
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, district_admin, school, section, student, teacher
from roster_pipeline_tests.sync.rows import active, approve_open, enrolled, new_user, roles, user, usernames
from roster_pipeline_tests.sync.scenario import Scenario, scenario


@pytest.fixture
def world(database: Database) -> Iterator[Scenario]:
    with scenario(database) as opened:
        yield opened


def test_a_school_that_vanishes_below_the_districts_limit_is_held_with_its_classes(world: Scenario) -> None:
    """R7.3, R7.4: held people keep roles and enrollments, and their school and classrooms stay. Newcomers elsewhere are created."""
    students = world.fill({"small": 8, "big": 200})
    world.change.unshare([world.value("select clever_id from app.schools where name = 'small'")])
    newcomer = world.students(world.value("select clever_id from app.schools where name = 'big'"), 1, prefix="new")
    # The teacher is removed and not held: one is below every limit.
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
    """R7.5: if one more person leaves, the approval is superseded. Newcomers do not change the plan."""
    students = world.fill({"a": 100})
    world.change.remove_users(students["a"][:30])
    world.sync()
    world.approve()
    world.change.remove_users(students["a"][30:31])
    assert world.sync().status == "held"
    assert {row[0] for row in world.holds("superseded")} == {"district_role", "school_role"}
    assert set(students["a"][:31]) <= world.active()
    world.approve()
    newcomers = world.students(world.value("select clever_id from app.schools"), 3, prefix="late")
    assert world.sync().status == "successful"
    assert set(newcomers) <= world.active()
    assert not world.active() & set(students["a"][:31])
    assert len(world.holds("used")) == 2


def test_every_role_at_a_held_school_is_left_unchanged(world: Scenario) -> None:
    """R7.4: people who move to a held school wait. People who leave it for another school get their role there."""
    students = world.fill({"a": 100, "b": 100})
    world.agree(settings={"brakes": {"role_floor": 1000}})
    a, b = (world.value("select clever_id from app.schools where name = :name", name=name) for name in "ab")
    world.change.remove_users(students["a"][:30])
    world.change.move_students({students["a"][50]: b})
    newcomers = world.students(a, 3, prefix="late")
    assert world.sync().status == "held"
    assert not set(newcomers) & world.active()
    roles = """
        select s.name, r.deleted_at is null
        from app.user_roles r join app.users u using (user_id) join app.schools s on s.school_id = r.school_id
        where u.clever_id = :person order by s.name
    """
    assert world.rows(roles, person=students["a"][50]) == [("a", True), ("b", True)]
    world.approve()
    assert world.sync().status == "successful"
    assert set(newcomers) <= world.active()
    assert world.rows(roles, person=students["a"][50]) == [("a", False), ("b", True)]


def test_newcomers_do_not_change_the_hash(world: Scenario) -> None:
    """R7.5: the hash is over the held acts. After three nights with newcomers there is still one hold, and its approval releases it."""
    students = world.fill({"a": 100, "b": 20})
    world.agree(settings={"brakes": {"school_floor": 1000}})
    world.change.remove_users(students["a"][:30])
    b = world.value("select clever_id from app.schools where name = 'b'")
    for night in range(3):
        newcomers = world.students(b, 2, prefix=f"night{night}-")
        assert world.sync().status == "held"
        assert set(newcomers) <= world.active()
        assert len(world.holds()) == 1
    world.approve()
    assert world.sync().status == "successful"
    assert not world.active() & set(students["a"][:30])
    assert [row[0] for row in world.holds("used")] == ["district_role"]


def test_a_rejected_hold_stays_rejected_until_its_plan_changes(world: Scenario) -> None:
    """R7.5."""
    students = world.fill({"a": 100})
    world.agree(settings={"brakes": {"school_floor": 1000}})
    world.change.remove_users(students["a"][:30])
    world.sync()
    [hold] = world.holds()
    with world.database.engine.begin() as connection:
        holds.reject(connection, [hold[-1]], holds.Decider("tester"), now=world.clock(connection))
    assert world.sync().status == "held"
    assert world.holds("rejected") == [hold]
    assert not world.holds()
    world.change.restore_users(students["a"][:1])
    assert world.sync().status == "held"
    assert world.holds("superseded") == [hold]
    assert [row[3] for row in world.holds()] == [29]


def test_an_expired_approval_releases_nothing(world: Scenario) -> None:
    """R7.5: after approval_hours the hold expires, and a new one is opened."""
    students = world.fill({"a": 100})
    world.agree(settings={"brakes": {"school_floor": 1000}, "approval_hours": 2})
    world.change.remove_users(students["a"][:30])
    world.sync()
    world.approve()
    later = datetime.now(UTC) + timedelta(hours=2)
    world.clock = lambda _: later
    assert world.sync().status == "held"
    assert len(world.holds("expired")) == len(world.holds()) == 1
    assert set(students["a"]) <= world.active()


def test_a_hold_is_decided_once(world: Scenario) -> None:
    """R7.5: an approved or used hold cannot be approved again. The error says why."""
    students = world.fill({"a": 100})
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


def test_a_hold_without_a_reason_is_superseded(world: Scenario) -> None:
    """R7.5: everybody is back, so no brake trips and no hold waits for a decision."""
    students = world.fill({"a": 100})
    world.change.remove_users(students["a"][:30])
    world.sync()
    world.change.restore_users(students["a"][:30])
    assert world.sync().status == "successful"
    assert not world.holds("open", "approved", "rejected")


def test_an_approval_is_not_used_while_another_hold_covers_the_same_people(world: Scenario) -> None:
    """R7.5: two brakes hold the same students. If they are approved on different nights, the students are deactivated after the second."""
    students = world.fill({"a": 100})
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


def test_a_held_users_name_is_not_given_to_the_person_with_that_clever_id(world: Scenario) -> None:
    """R5.5, R7.4: a person whose Clever id is a held user's username waits for the hold. The sync does not fail, and others are created."""
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


def test_a_teacher_who_would_become_only_a_district_admin_keeps_role_and_username(district: LiveDistrict) -> None:
    """R7.4: a teacher that becomes a district admin at Clever stays a teacher until the new role is approved."""
    boss = district_admin("p9")
    district.sync(clever(teacher("p1", "eva"), teacher("p2"), boss))
    district.agree(settings={"brakes": {"admin_floor": 0, "admin_share": 0}})
    promoted = clever(district_admin("p1"), teacher("p2"), boss)
    assert district.sync(promoted).status == "held"
    assert roles(district, "p1") == {("teacher", "s1")}
    assert usernames(district)["p1"] == "eva"
    approve_open(district)
    assert district.sync(promoted).status == "successful"
    assert roles(district, "p1") == {("district_admin", None)}
    assert usernames(district)["p1"] == "p1"


def test_an_adopted_user_who_would_become_a_district_admin_keeps_the_username(district: LiveDistrict) -> None:
    """R7.4: also a user that this sync matches for the first time."""
    boss = district_admin("p9")
    district.sync(clever(teacher("p2"), boss))
    district.agree(settings={"brakes": {"admin_floor": 0, "admin_share": 0}})
    existing = new_user(district, "p1", role="teacher")
    assert district.sync(clever(teacher("p1", "eva", district_admin=True), teacher("p2"), boss)).status == "held"
    assert user(district, "p1")["user_id"] == existing
    assert usernames(district)["p1"] == "p1"


def test_people_who_move_to_a_held_school_keep_their_old_role(district: LiveDistrict) -> None:
    """R7.4: the new role is held, so the person is left unchanged at the old school."""
    places = [school("s1"), school("s2")]
    here, there = [student(f"p{each}", at="s1") for each in (1, 2)], [student(f"p{each}", at="s2") for each in (3, 4)]
    district.sync(clever(*places, *here, *there))
    district.agree(settings={"brakes": {"school_floor": 0, "school_share": 0}})
    moved = clever(*places, student("p1", at="s2", name="Ana New"), here[1], there[0])
    assert district.sync(moved).status == "held"
    assert roles(district, "p1") == {("student", "s1")}
    assert user(district, "p1")["last_name"] == "Li"
    approve_open(district)
    district.sync(moved)
    assert roles(district, "p1") == {("student", "s2")}


def test_a_held_class_of_a_removed_school_gets_no_new_members(district: LiveDistrict) -> None:
    """R6.1, R6.3, R7.4: the row stays because of a held member. The other listed members are no longer at that school."""
    places, people = [school("s1"), school("s2")], [student("p1", at="s2"), student("p2", at="s2"), student("p3", at="s1")]
    district.sync(clever(*places, *people, section("c1", ["p1", "p2"], at="s2")))
    district.agree(settings={"brakes": {"role_floor": 0, "role_share": 0}})
    moved = clever(school("s1"), student("p1", at="s1"), people[2], section("c1", ["p1", "p2", "p3"], at="s2"))
    assert district.sync(moved).status == "held"
    assert active(district, "classrooms") == {"c1"}
    assert enrolled(district, "c1") == {("p2", "student", False)}


def test_a_name_of_a_person_who_waits_for_a_held_school_is_not_given_away(district: LiveDistrict) -> None:
    """R5.5, R7.4: the newcomer with this Clever id waits too, and the sync does not fail."""
    places = [school("s1"), school("s2")]
    leaver, mover, boss = student("p1", at="s2"), student("p2", "p3", at="s1"), student("p4", at="s2")
    district.sync(clever(*places, leaver, mover, boss))
    district.agree(settings={"brakes": {"school_floor": 0, "school_share": 0}})
    moved = clever(*places, student("p2", "other", at="s2"), boss, student("p3", at="s1"))
    assert district.sync(moved).status == "held"
    assert usernames(district) == {"p1": "p1", "p2": "p3", "p4": "p4"}
    approve_open(district)
    assert district.sync(moved).status == "successful"
    assert usernames(district) == {"p2": "other", "p3": "p3", "p4": "p4"}


def test_a_school_held_for_two_roles_is_one_school(district: LiveDistrict) -> None:
    """R7.4: students and teachers of one school are held. Each of the others there is written once."""
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
    written = [(each["entity"], each["entity_id"]) for each in district.changes(report.sync_id)]
    assert len(written) == len(set(written))
    assert enrolled(district, "c1") == {("p5", "student", False), ("p6", "teacher", True), ("p4", "teacher", False)}


def test_a_brake_that_is_switched_off_is_in_the_message(world: Scenario) -> None:
    """R13.2: in each sync's message, also where nothing changed, until it is set back."""
    world.fill({"a": 10})
    world.agree(settings={"brakes": {"role_share": 1, "relink_floor": 1000}})
    expected = "Switched off, or far above the default: the brakes district_role, relinks."
    assert [world.sync().message.endswith(expected) for _ in range(3)] == [True] * 3
    world.execute("update app.districts set settings = '{}'")
    assert "Switched off" not in world.sync().message
