"""R14.3, R14.4: what a sync does in a window of additions only and in a rollover, and in the night after it.

Belongs here: single cases, with numbers. Does not belong here: which window is on (`districts/test_windows.py`), a freeze
(`fleet/test_freeze.py`), and random histories with windows (`reference/test_model.py`).
"""

from datetime import timedelta

import pytest

from roster_pipeline.contracts import GRADES
from roster_pipeline.sync import incremental
from roster_pipeline.sync.run import project_models
from roster_pipeline_tests.reference.driver import NO_BRAKES, LiveDistrict
from roster_pipeline_tests.reference.rows import Record, Snapshot
from roster_pipeline_tests.sync.clever import clever, school, section, student, teacher
from roster_pipeline_tests.sync.rows import active, enrolled, roles, user
from roster_pipeline_tests.sync.test_losses import open_holds

TIGHT = {
    **NO_BRAKES,
    "role_floor": 0,
    "role_share": 0.1,
    "school_floor": 0,
    "school_share": 0.1,
    "enrollment_floor": 0,
    "enrollment_share": 0.1,
}


def pupils(*numbers: int, grade: str = "3", at: str = "s1") -> list[Record]:
    return [student(f"p{each}", grade=grade, at=at) for each in numbers]


def members(district: LiveDistrict, clever_id: str) -> set[str]:
    return {person for person, _, _ in enrolled(district, clever_id)}


def the_night_after(district: LiveDistrict) -> None:
    """The window is over."""
    district.clock.now = district.windows[-1].ends_at


TEN = clever(*pupils(*range(10)), section("c1", [f"p{each}" for each in range(10)], ["t1"]), teacher("t1"))
SIX = clever(*pupils(*range(6)), pupils(11)[0], section("c1", ["p0", "p1", "p11"], ["t1"]), teacher("t1"))


# Additions only -----------------------------------------------------------------------------------------------------------------


def test_nothing_is_taken_away(district: LiveDistrict) -> None:
    """R14.3: four students leave and four change nothing but a class. The newcomer is created, the rest waits, and nothing is held."""
    district.sync(TEN)
    district.agree(settings={"brakes": TIGHT})
    district.agree_on("additions_only", 0, 1)
    report = district.sync(SIX)
    assert (report.status, report.counts["deferred"], open_holds(district)) == ("successful", 4 + 4 + 8, [])
    assert report.counts["window"] == {"window_id": 1, "kind": "additions_only", "last_night": district.windows[0].last_night.isoformat()}
    assert report.counts["changes"] == {"users": {"create": 1}, "user_roles": {"role_gain": 1}, "enrollments": {"create": 1}}
    assert "Deferred until the window is over: 16 rows." in report.message
    assert active(district, "users") == {*(f"p{each}" for each in range(10)), "p11", "t1"}
    assert district.execute("select count(*) as n from ops.alerts where district_id = :district")[0]["n"] == 0


@pytest.mark.parametrize("is_incremental", [False, True])
def test_the_night_after_does_the_rest_under_the_ordinary_brakes(
    district: LiveDistrict, monkeypatch: pytest.MonkeyPatch, is_incremental: bool
) -> None:
    """R14.3: though Clever sends what it sent before. The unchanged nights in the window make no plan, the one after it does."""
    if is_incremental:
        monkeypatch.setattr(incremental, "FROM_PEOPLE", 0)
        monkeypatch.setattr(incremental, "UP_TO_SHARE", 100)
    district.sync(TEN)
    district.agree(settings={"brakes": TIGHT})
    district.agree_on("additions_only", 0, 1)
    first, second, third = (district.sync(SIX) for _ in range(3))
    assert [each.counts["deferred"] for each in (first, second, third)] == [16] * 3
    assert "settled_since" in third.counts
    the_night_after(district)
    after = district.sync(SIX)
    assert (after.status, "settled_since" in after.counts, "deferred" in after.counts) == ("held", False, False)
    assert open_holds(district) == [("district_role", "student", 4), ("enrollments", "student", 4), ("school_role", "student", 4)]
    district.agree(settings={"brakes": NO_BRAKES})
    done = district.sync(SIX)
    assert done.counts["changes"] == {
        "users": {"soft_delete": 4},
        "user_roles": {"role_loss": 4},
        "enrollments": {"soft_delete": 8},
    }
    assert not list(district.changes(district.sync(SIX).sync_id))


def test_a_state_from_before_the_window_is_still_right_in_it(district: LiveDistrict) -> None:
    """R14.3: nothing was left to do, so nothing is deferred, and after it nothing is done."""
    district.sync(TEN)
    district.sync(TEN)
    district.agree_on("additions_only", 0, 0)
    inside = district.sync(TEN)
    assert ("settled_since" in inside.counts, inside.counts["deferred"], inside.counts["window"]["kind"]) == (True, 0, "additions_only")
    the_night_after(district)
    after = district.sync(TEN)
    assert ("settled_since" in after.counts, "deferred" in after.counts, "window" in after.counts) == (True, False, False)


def test_a_change_in_the_window_is_planned_incrementally(district: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    """R14.3: what was deferred before stays counted; a person who comes back is no longer."""
    monkeypatch.setattr(incremental, "FROM_PEOPLE", 0)
    monkeypatch.setattr(incremental, "UP_TO_SHARE", 100)
    district.sync(TEN)
    district.agree_on("additions_only", 0, 5)
    district.sync(SIX)
    back = clever(*pupils(*range(7)), pupils(11)[0], section("c1", ["p0", "p1", "p11"], ["t1"]), teacher("t1"))
    report = district.sync(back)
    assert ("touched" in report.counts, report.counts["deferred"]) == (True, 3 + 3 + 8)


def test_a_move_to_another_school_is_an_update(district: LiveDistrict) -> None:
    """R14.3: role and classes at the old school end. Another class of the same school is no move, nor is one school of two."""
    old = [section("c1", ["p1", "p2"], ["t1"]), section("c2", [], ["t1"]), section("c3", [], [], at="s2")]
    district.sync(clever(school("s2"), *pupils(1, 2), teacher("t1", schools=["s2"]), *old))
    district.agree_on("additions_only", 0, 1)
    new = [section("c1", [], []), section("c2", ["p2"], ["t1"]), section("c3", ["p1"], [], at="s2")]
    report = district.sync(clever(school("s2"), *pupils(1, at="s2"), *pupils(2), teacher("t1"), *new))
    assert roles(district, "p1") == {("student", "s2")}
    assert roles(district, "t1") == {("teacher", "s1"), ("teacher", "s2")}
    assert members(district, "c1") == {"p2", "t1"}
    assert (members(district, "c2"), members(district, "c3")) == ({"p2", "t1"}, {"p1"})
    # One role of the teacher, and two enrollments in c1.
    assert report.counts["deferred"] == 3
    assert report.counts["changes"]["users"] == {"update": 1}


def test_an_empty_collection_holds_nothing(district: LiveDistrict) -> None:
    """R14.3: in an empty July Clever shares no section. Nothing ends, so there is nothing to decide."""
    district.sync(TEN)
    district.agree_on("additions_only", 0, 1)
    report = district.sync(clever(*pupils(*range(10)), teacher("t1")))
    assert (report.status, report.counts["deferred"], report.counts["changes"]) == ("successful", 1 + 11, {})
    the_night_after(district)
    assert district.sync(clever(*pupils(*range(10)), teacher("t1"))).status == "held"


def test_a_classroom_with_a_member_who_stays_follows_clever(district: LiveDistrict) -> None:
    """R14.3: only the leaver is kept, not the name of the classroom. The leaver keeps the username."""
    district.sync(clever(student("p1", "ann"), student("p2", "bea"), section("c1", ["p1", "p2"])))
    district.agree_on("additions_only", 0, 1)
    district.sync(clever(student("p2", "bea"), student("p3", "ann", name="Another One"), section("c1", ["p2"], name="Renamed")))
    assert district.execute("select name from app.classrooms where district_id = :district") == [{"name": "Renamed"}]
    assert (user(district, "p1")["username"], user(district, "p3")["username"]) == ("ann", "p3")


def test_a_first_sync_has_its_own_rule(district: LiveDistrict) -> None:
    """R14.3, R7.6: in a window too, what was there before is held as a whole, and an approval ends it."""
    district.agree(settings={"auto_initial": False})
    district.execute("insert into app.users (district_id, username) values (:district, 'old')")
    district.agree_on("additions_only", 0, 3)
    report = district.sync(TEN)
    assert (report.status, report.counts["writes_nothing"], "deferred" in report.counts) == ("held", True, False)
    district.approve(next(iter(district.holds())))
    assert district.sync(TEN).counts["changes"]["users"]["soft_delete"] == 1


# Rollover -----------------------------------------------------------------------------------------------------------------------


def classes_of(count: int, *, size: int = 10) -> list[Record]:
    return [section(f"c{each}", [f"p{number}" for number in range(size)]) for each in range(count)]


@pytest.fixture
def rolling(district: LiveDistrict) -> LiveDistrict:
    """A district with 20 students of grade 3, with limits of 10 %; a rollover is on."""
    district.sync(clever(*pupils(*range(20)), *classes_of(5)))
    district.agree(settings={"brakes": {**TIGHT, "classroom_floor": 0, "classroom_share": 0.1, "identity_floor": 0, "identity_share": 0.1}})
    district.agree_on("rollover", 0, 1)
    return district


@pytest.mark.parametrize(("leave", "status"), [(10, "successful"), (11, "held")])
def test_half_of_a_role_may_leave(rolling: LiveDistrict, leave: int, status: str) -> None:
    """R14.4: 50 % of the district and all of a school; at the limit and one above it. (Below 80 %, so nobody graduates.)"""
    report = rolling.sync(clever(*pupils(*range(leave, 20)), *classes_of(5)))
    assert (report.status, report.counts["graduated"]) == (status, 0)
    assert open_holds(rolling) == ([] if status == "successful" else [("district_role", "student", 11)])


def test_classrooms_enrollments_and_names_have_no_limit(rolling: LiveDistrict) -> None:
    """R14.4: every classroom ends, and everybody has another name."""
    renamed = [student(f"p{each}", name="New Name") for each in range(20)]
    assert rolling.sync(clever(*renamed, section("c9", ["p0"]))).status == "successful"
    assert active(rolling, "classrooms") == {"c9"}
    the_night_after(rolling)
    assert rolling.sync(clever(*pupils(*range(20)), section("c9", ["p0"]))).status == "held"


def test_the_limits_that_a_window_names(district: LiveDistrict) -> None:
    """R14.4: they count instead of the defaults, also where they are tighter."""
    district.sync(clever(*pupils(*range(20))))
    district.agree(settings={"brakes": TIGHT})
    district.agree_on("rollover", 0, 0, role_share=0.25, role_floor=0)
    assert district.sync(clever(*pupils(*range(6, 20)))).status == "held"
    assert district.sync(clever(*pupils(*range(5, 20)))).status == "successful"


def test_a_default_is_never_tighter_than_the_districts_own(district: LiveDistrict) -> None:
    """R14.4: a window loosens."""
    district.sync(clever(*pupils(*range(20))))
    district.agree(settings={"brakes": {**TIGHT, "role_share": 0.7}})
    district.agree_on("rollover")
    assert district.sync(clever(*pupils(*range(14, 20)))).status == "successful"


def test_other_kinds_never_loosen(rolling: LiveDistrict) -> None:
    """R14.4: an empty collection is held in a rollover, and holds graduates too."""
    report = rolling.sync(clever(teacher("t1")))
    assert report.status == "held"
    assert [kind for kind, *_ in open_holds(rolling)] == ["empty_collection"] * 2
    assert len(active(rolling, "users")) == 21
    rolling.agree(settings={"brakes": {**NO_BRAKES, "relink_floor": 0, "relink_share": 0.1}})
    moved = [student(f"q{each}", sis_id=str(each)) for each in range(20)]
    rolling.sync(clever(*[student(f"p{each}", sis_id=str(each)) for each in range(20)], *classes_of(5)))
    assert rolling.sync(clever(*moved, section("c1", ["q1"]))).status == "held"
    assert ("relinks", None, 20) in open_holds(rolling)


def graduating(left: int, *, top: int = 10, grade: str = "5") -> tuple[Snapshot, Snapshot]:
    """Before: `top` students of the highest grade and ten of grade 3. After: so many of the highest are left, and the others are in 4."""
    before = [*pupils(*range(top), grade=grade), *pupils(*range(100, 110))]
    return clever(*before), clever(*pupils(*range(top - left, top), grade=grade), *pupils(*range(100, 110), grade="4"))


@pytest.mark.parametrize(("left", "graduated"), [(0, 10), (2, 8), (3, 0)])
def test_graduates_are_counted_apart(district: LiveDistrict, left: int, graduated: int) -> None:
    """R14.4: at 80 % they graduate, which no brake counts; below, all seven count."""
    before, after = graduating(left)
    district.sync(before)
    district.agree(settings={"brakes": TIGHT})
    district.agree_on("rollover", 0, 0, role_share=0.1, school_share=0.1, role_floor=0, school_floor=0)
    report = district.sync(after)
    assert report.counts["graduated"] == graduated
    assert report.status == ("successful" if graduated else "held")
    assert len(active(district, "users")) == (10 + left if graduated else 20)
    assert ("Graduated" in report.message) == bool(graduated)


def test_graduates_stay_in_n_and_are_never_held(district: LiveDistrict) -> None:
    """R14.4: n is 20, so of a limit of 10 % two others may leave; a third is held, and the graduates leave all the same."""
    before, _ = graduating(0)
    district.sync(before)
    district.agree(settings={"brakes": TIGHT})
    district.agree_on("rollover", 0, 3, role_share=0.1, school_share=0.1, role_floor=0, school_floor=0)
    report = district.sync(clever(*pupils(*range(103, 110), grade="4")))
    assert (report.status, report.counts["graduated"]) == ("held", 10)
    assert open_holds(district) == [("district_role", "student", 3), ("school_role", "student", 3)]
    assert active(district, "users") == {f"p{each}" for each in range(100, 110)}
    assert not list(district.changes(district.sync(clever(*pupils(*range(103, 110), grade="4"))).sync_id))


def test_outside_of_a_window_nobody_graduates(district: LiveDistrict) -> None:
    """R14.4."""
    before, after = graduating(0)
    district.sync(before)
    district.agree(settings={"brakes": TIGHT})
    report = district.sync(after)
    assert (report.status, "graduated" in report.counts) == ("held", False)


@pytest.mark.parametrize(("grade", "graduates"), [("PostGraduate", True), ("13", True), ("Ungraded", False), ("Other", False)])
def test_the_order_of_the_grades(district: LiveDistrict, grade: str, graduates: bool) -> None:
    """R14.4: Clever's list, with PostGraduate as the highest; two entries of it are no grade that one can leave."""
    before, after = graduating(0, grade=grade)
    district.sync(before)
    district.agree_on("rollover")
    assert district.sync(after).counts["graduated"] == (10 if graduates else 0)


def test_the_sql_has_clevers_grades() -> None:
    """R14.4: the model's list is that of the contract."""
    listed = project_models().by_name["reconcile.graduates"].sql.split("unnest(array[")[1].split("]")[0]
    assert [each.strip(" \n'") for each in listed.split(",")] == [each for each in GRADES if each not in ("Ungraded", "Other")]


def test_a_night_after_is_ordinary(rolling: LiveDistrict) -> None:
    """R14.4: what a rollover has let pass stays so; the next loss meets the ordinary limits."""
    assert rolling.sync(clever(*pupils(*range(10, 20)), *classes_of(5))).status == "successful"
    rolling.clock.now += timedelta(days=3)
    assert not list(rolling.changes(rolling.sync(clever(*pupils(*range(10, 20)), *classes_of(5))).sync_id))
    assert rolling.sync(clever(*pupils(*range(12, 20)), *classes_of(5))).status == "held"
