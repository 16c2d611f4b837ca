"""R9.1, R9.2: seats of the district and of its schools, under each policy."""

from collections.abc import Iterator
from typing import Any

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, school, student, teacher
from roster_pipeline_tests.sync.rows import change_user, new_user, user
from roster_pipeline_tests.sync.scenario import Scenario, scenario


@pytest.fixture
def world(database: Database) -> Iterator[Scenario]:
    with scenario(database) as opened:
        opened.agree(settings={"brakes": {"role_floor": 1000, "school_floor": 1000}})
        yield opened


def _seats(world: Scenario) -> dict[str, str]:
    """Username -> license_status, of active students."""
    return dict(world.rows("select username, license_status from app.users where deleted_at is null order by user_id"))


def _report(world: Scenario, scope: str = "district") -> dict[str, Any]:
    columns = ("licenses", "used", "without_seat", "held", "is_over")
    query = f"select {', '.join(columns)} from reconcile.license_reconciliation where scope = :scope"
    return dict(zip(columns, world.rows(query, scope=scope)[0], strict=True))


def test_without_a_number_there_is_no_cap(world: Scenario) -> None:
    """R9.1: null means no cap. Staff need no seat and never count."""
    school = world.school("a")
    world.students(school, 3)
    world.change.add_user("teacher", "T", "T", schools=[school], username="t")
    world.sync()
    assert _seats(world) == {"s1": "licensed", "s2": "licensed", "s3": "licensed", "t": None}
    assert _report(world) == {"licenses": None, "used": 3, "without_seat": 0, "held": 0, "is_over": False}


def test_warn_rosters_all(world: Scenario) -> None:
    """R9.2 `warn`: everybody is licensed, and the report says that there are too many."""
    world.agree(licenses=2, over_license_policy="warn")
    world.students(world.school("a"), 3)
    assert world.sync().status == "successful"
    assert set(_seats(world).values()) == {"licensed"}
    assert _report(world) == {"licenses": 2, "used": 3, "without_seat": 0, "held": 0, "is_over": True}


def test_wait_gives_seats_in_order_and_a_freed_one_in_the_same_sync(world: Scenario) -> None:
    """R9.2 `wait`: no licensed student loses a seat. A free seat goes to the student who has waited longest."""
    world.agree(licenses=2, over_license_policy="wait")
    school = world.school("a")
    first = world.students(school, 3)
    world.sync()
    assert _seats(world) == {"s1": "licensed", "s2": "licensed", "s3": "waiting"}
    assert _report(world) == {"licenses": 2, "used": 3, "without_seat": 1, "held": 0, "is_over": True}
    world.students(school, 1, prefix="late")
    world.change.remove_users(first[:1])
    world.sync()
    assert _seats(world) == {"s2": "licensed", "s3": "licensed", "late1": "waiting"}
    world.agree(licenses=1)
    world.sync()
    assert _seats(world) == {"s2": "licensed", "s3": "licensed", "late1": "waiting"}, "nobody licensed loses a seat"
    world.agree(licenses=3)
    world.sync()
    assert set(_seats(world).values()) == {"licensed"}


def test_a_seat_is_needed_in_the_district_and_in_the_school(world: Scenario) -> None:
    """R9.2: a student who waits because the school is full takes no seat of the district."""
    world.agree(licenses=3, over_license_policy="wait", schools=[("small", 1), ("big", None)])
    small, big = world.school("small"), world.school("big")
    world.students(small, 2, prefix="small")
    world.students(big, 3, prefix="big")
    world.sync()
    assert _seats(world) == {"small1": "licensed", "small2": "waiting", "big1": "licensed", "big2": "licensed", "big3": "waiting"}
    assert _report(world, small) == {"licenses": 1, "used": 2, "without_seat": 1, "held": 0, "is_over": True}


def test_hold_neither_creates_nor_restores_beyond_the_licenses(world: Scenario) -> None:
    """R9.2 `hold`: other changes are applied. Approval licenses exactly the held students; more students open a new hold."""
    world.agree(licenses=2, over_license_policy="hold")
    school = world.school("a")
    first = world.students(school, 4)
    assert world.sync().status == "held"
    assert _seats(world) == {"s1": "licensed", "s2": "licensed"}
    assert [row[:4] for row in world.holds()] == [("licenses", None, None, 2)]
    assert _report(world) == {"licenses": 2, "used": 2, "without_seat": 0, "held": 2, "is_over": True}
    assert world.sync().status == "held"
    assert len(world.holds()) == 1
    world.approve()
    assert world.sync().status == "successful"
    assert set(_seats(world).values()) == {"licensed"}
    assert len(_seats(world)) == 4
    world.students(school, 1, prefix="late")
    world.change.rename(first[0], first="Renamed")
    assert world.sync().status == "held"
    assert "late1" not in _seats(world)
    assert world.value("select first_name from app.users where clever_id = :id", id=first[0]) == "Renamed"
    assert [row[3] for row in world.holds()] == [1]


def test_more_licenses_release_a_license_hold(world: Scenario) -> None:
    """R9.2: if there are enough seats, no approval is needed, and the hold is superseded."""
    world.agree(licenses=2, over_license_policy="hold")
    world.students(world.school("a"), 3)
    world.sync()
    world.agree(licenses=3)
    assert world.sync().status == "successful"
    assert len(_seats(world)) == 3
    assert not world.holds()
    assert len(world.holds("superseded")) == 1


def test_held_students_keep_their_seat(world: Scenario) -> None:
    """R7.4, R9.1: a held deactivation frees no seat."""
    world.agree(licenses=3, over_license_policy="wait", settings={"brakes": {"role_floor": 0, "role_share": 0}})
    school = world.school("a")
    first = world.students(school, 3)
    world.sync()
    world.change.remove_users(first[:1])
    world.students(school, 1, prefix="late")
    assert world.sync().status == "held"
    assert _seats(world) == {"s1": "licensed", "s2": "licensed", "s3": "licensed", "late1": "waiting"}
    world.approve()
    assert world.sync().status == "successful"
    assert _seats(world) == {"s2": "licensed", "s3": "licensed", "late1": "licensed"}


def test_a_second_sync_writes_nothing_under_any_policy(world: Scenario) -> None:
    """R7.2 with R9.2."""
    world.students(world.school("a"), 3)
    for policy in ("warn", "wait", "hold"):
        world.agree(licenses=2, over_license_policy=policy)
        world.sync()
        before = world.rows("select xmin::text, ctid::text from app.users")
        assert not world.sync().counts["changes"]
        assert before == world.rows("select xmin::text, ctid::text from app.users")


@pytest.mark.parametrize("policy", ["wait", "hold"])
def test_an_adopted_account_without_a_seat_waits_like_others(district: LiveDistrict, policy: str) -> None:
    """R9.2: an account from before Clever has no license. Only its created_at counts."""
    district.sync(clever())  # Not the first sync (R7.6).
    district.agree(licenses=1, over_license_policy=policy)
    for name in ("ann", "ben"):
        new_user(district, name)
    district.sync(clever(student("p1", "ben"), student("p2", "ann")))
    assert [user(district, each)["license_status"] for each in ("p1", "p2")] == ["waiting", "licensed"]


def test_a_held_student_who_waits_does_not_block_a_freed_seat(district: LiveDistrict) -> None:
    """R7.4, R9.2: a held student is left unchanged, also without a seat. The next student gets the seat."""
    people = [student(f"p{each}") for each in range(1, 5)]
    district.agree(licenses=2, over_license_policy="wait")
    district.sync(clever(*people[:2]))
    district.sync(clever(*people))
    assert [user(district, each)["license_status"] for each in ("p1", "p2", "p3", "p4")] == ["licensed", "licensed", "waiting", "waiting"]
    change_user(district, "p3", protected=True)
    district.sync(clever(*people[1:]))
    assert [user(district, each)["license_status"] for each in ("p2", "p3", "p4")] == ["licensed", "waiting", "licensed"]


def test_a_person_who_is_no_student_after_the_sync_takes_no_seat(district: LiveDistrict) -> None:
    """R4.6, R9.1: a student only at a quarantined school, and a teacher elsewhere, is rostered as a teacher."""
    places, people = [school("s1"), school("s2")], [student("p1", at="s1"), student("p2", at="s2")]
    district.agree(licenses=2, over_license_policy="wait")
    district.sync(clever(*places, *people))
    both = {**teacher("p3", at="s1"), "roles": {**teacher("p3", at="s1")["roles"], **student("p3", at="s2")["roles"]}}
    district.sync(clever(places[0], school("s2", " "), *people, both))
    assert user(district, "p3")["license_status"] is None
