"""R7.4: what is decided before the brakes, and asked again once a school is held.

Belongs here: one test for each of these decisions; "Asked again after the brakes" in docs/architecture.md lists them. Does not belong here:
what else a hold covers (`test_holds.py`).
"""

import pytest

from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.reference.rows import Snapshot
from roster_pipeline_tests.sync.clever import clever, school, section, student, teacher
from roster_pipeline_tests.sync.rows import active, approve_open, enrolled, roles, user

PLACES = [school("s1"), school("s2")]
THERE = [student(f"p{each}", at="s2") for each in range(1, 9)]
IDS = [each["id"] for each in THERE]
HERE = [student("h1"), teacher("h2"), section("c0", ["h1"])]


def a_held_school(district: LiveDistrict, *before: object) -> None:
    """School s2 with eight students, and five of them may leave at once."""
    district.sync(clever(*PLACES, *THERE, *HERE, *before))  # type: ignore[arg-type]
    district.agree(settings={"brakes": {"school_floor": 5, "school_share": 0}})


def held(district: LiveDistrict, left: Snapshot) -> None:
    """Sync without the school: it is held, and nothing more is written the second time."""
    assert district.sync(left).status == "held"
    assert {hold.identity[0] for hold in district.holds().values()} == {"school_role"}
    assert not list(district.changes(district.sync(left).sync_id))


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_teacher_whose_only_school_is_held_keeps_account_role_and_classes(district: LiveDistrict, is_shared: bool) -> None:
    """R7.4: also where Clever still lists the teacher there; then the rest of the row follows Clever."""
    a_held_school(district, teacher("t1", "eva", at="s2", name="Eva Old"), section("c1", IDS, ["t1"], at="s2"))
    left = clever(school("s1"), *HERE, *([teacher("t1", "eva2", at="s2", name="Eva New")] if is_shared else []))
    held(district, left)
    assert {"t1", *IDS} <= active(district, "users")
    assert roles(district, "t1") == {("teacher", "s2")}
    assert ("t1", "teacher", True) in enrolled(district, "c1")
    assert (user(district, "t1")["username"], user(district, "t1")["last_name"]) == (("eva2", "New") if is_shared else ("eva", "Old"))
    if is_shared:
        assert district.reasons()["t1"][:2] == ("link", "held_school")
    approve_open(district)
    assert district.sync(left).status == "successful"
    assert not active(district, "users") & {"t1", *IDS}


def test_a_teacher_who_has_another_school_does_not_stay_because_of_the_held_one(district: LiveDistrict) -> None:
    """R7.4: this deactivation is below every limit. The role at the held school stays as it is."""
    a_held_school(district, teacher("t1", at="s1", schools=["s2"]))
    held(district, clever(school("s1"), *HERE))
    assert "t1" not in active(district, "users")
    assert roles(district, "t1") == {("teacher", "s2")}


def test_a_student_below_the_limit_of_a_school_that_is_held_for_teachers_stays(district: LiveDistrict) -> None:
    """R7.4: whatever role the brake is about."""
    teachers = [teacher(f"t{each}", at="s2") for each in range(3)]
    district.sync(clever(*PLACES, *THERE[:2], *HERE, *teachers))
    district.agree(settings={"brakes": {"school_floor": 2, "school_share": 0}})
    held(district, clever(school("s1"), *HERE))
    assert {"p1", "p2"} <= active(district, "users")


def test_who_is_listed_only_at_a_held_school_waits_where_they_are(district: LiveDistrict) -> None:
    """R7.4: the new school is not shared any more, and held: nothing is decided about the person before that hold is."""
    a_held_school(district, teacher("t1", at="s1", name="Eva Old"), section("c2", ["h1"], ["t1"]))
    held(district, clever(school("s1"), *HERE, teacher("t1", at="s2", name="Eva New"), section("c2", ["h1"], ["t1"])))
    assert roles(district, "t1") == {("teacher", "s1")}
    assert user(district, "t1")["last_name"] == "Old"
    assert ("t1", "teacher", True) in enrolled(district, "c2")


def test_a_school_outside_the_agreement_is_held_in_the_same_way(district: LiveDistrict) -> None:
    """R6.4, R7.4: it is shared, but not agreed any more."""
    a_held_school(district, teacher("t1", at="s2"), section("c1", IDS, ["t1"], at="s2"))
    district.agree(schools=[("S1", None)])
    held(district, clever(*PLACES, *THERE, *HERE, teacher("t1", at="s2"), section("c1", IDS, ["t1"], at="s2")))
    assert active(district, "schools") == {"s1", "s2"}
    assert ("t1", "teacher", True) in enrolled(district, "c1")


def test_a_classroom_whose_section_moves_to_a_held_school_stays(district: LiveDistrict) -> None:
    """R6.1, R7.4: its new school is unknown to the models before the brakes, so it would be soft-deleted."""
    a_held_school(district, section("c2", ["h1"], ["h2"], at="s1"))
    held(district, clever(school("s1"), *HERE, section("c2", ["h1"], ["h2"], at="s2")))
    assert active(district, "classrooms") == {"c0", "c2"}
    assert enrolled(district, "c2") == {("h1", "student", False), ("h2", "teacher", True)}


def test_a_classroom_of_a_held_school_keeps_members_who_are_not_held(district: LiveDistrict) -> None:
    """R7.4: the section has ended with the school. Its member of another school is present, and keeps the place."""
    a_held_school(district, section("c1", IDS, ["h2"], at="s2"))
    held(district, clever(school("s1"), *HERE))
    assert ("h2", "teacher", True) in enrolled(district, "c1")


def test_a_newcomer_whose_only_school_is_held_waits(district: LiveDistrict) -> None:
    """R7.4: every role at a held school stays as it is, so there is none to give. After the decision the person is created."""
    a_held_school(district)
    fewer = clever(*PLACES, *THERE[:1], *HERE, teacher("new", at="s2"), student("other", at="s1"))
    held(district, fewer)
    assert active(district, "users") & {"new", "other"} == {"other"}
    assert district.reasons()["new"][:2] == ("none", "held_role")
    approve_open(district)
    assert district.sync(fewer).status == "successful"
    assert "new" in active(district, "users")
