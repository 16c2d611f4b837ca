"""The plan of what has been touched: that it is made, and says and leaves what a plan of the whole district would; and when it is not made.

Does not belong here: random histories (`reference/test_model.py`), and syncs that make no plan at all (`test_unchanged.py`).
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from roster_pipeline.errors import PermanentError
from roster_pipeline.fleet.retention import prune_history
from roster_pipeline.sync import incremental, run
from roster_pipeline.sync.apply import apply_plan
from roster_pipeline.sync.run import SyncReport
from roster_pipeline_tests.reference.driver import LiveDistrict, untouched
from roster_pipeline_tests.reference.rows import Record
from roster_pipeline_tests.sync.clever import clever, district_admin, school, section, staff, student, teacher
from roster_pipeline_tests.sync.rows import active, enrolled, new_user, usernames

RECORDS: dict[str, Record] = {
    each["id"]: each
    for each in (
        school("s2"),
        section("c1", ["p1", "p2", "p3"], ["p8", "p9"]),
        section("c2", ["p2", "p4"], ["p9"], at="s2"),
        section("c3", ["p1", "ghost"], ["p8"]),
        section("c4", [], []),
        student("p1", "ann", schools=["s2"]),
        student("p2", "ben", schools=["s2"]),
        student("p3", "cy"),
        student("p4", "dot", at="s2"),
        # Nobody gets it (R5.5).
        student("p5", "same", at="s2"),
        student("p6", "SAME", at="s2"),
        student("p7", "fay", grade="fourth"),
        teacher("p8", "eva"),
        teacher("p9", "gus", schools=["s2"]),
        staff("p10"),
        district_admin("p11"),
        student("refused", "hal", name=" Li"),
    )
}


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every district counts as a large one in which little changes."""
    monkeypatch.setattr(incremental, "FROM_PEOPLE", 1)
    monkeypatch.setattr(incremental, "UP_TO_SHARE", 10)


@pytest.fixture
def quiet(district: LiveDistrict) -> LiveDistrict:
    """A district whose last sync had nothing to write. One of its users was made by hand, one is gone."""
    new_user(district, "handmade")
    district.sync(clever(*RECORDS.values(), student("gone", "ida", sis_id="7")))
    district.sync(changed())
    district.sync(changed())
    return district


def changed(*records: Record, without: Sequence[str] = ()) -> Any:
    """A snapshot in which these are new or other ones."""
    return clever(*({key: each for key, each in RECORDS.items() if key not in without} | {each["id"]: each for each in records}).values())


def is_touched(report: SyncReport) -> bool:
    return "touched" in report.counts


def sync_both(district: LiveDistrict, snapshot: Any) -> SyncReport:
    """Sync, and compare with what a whole plan would have said and left."""
    whole = district.plan(snapshot)
    report = district.sync(snapshot)
    numbered: dict[str, Any] = {"held": None, "passed": None} if report.status == "held" else {}
    assert {each: report.counts[each] for each in whole.counts} | numbered == {**whole.counts, **numbered}
    assert district.kept(whole.kept) == whole.kept
    return report


# One after the other: each differs from the one before in what both are about.
NIGHTS = {
    "somebody comes": changed(student("p12", "new")),
    "somebody comes who was listed already": changed(student("ghost", "new")),
    "somebody changes": changed(student("p1", "ann", name="Other Li", schools=["s2"])),
    "somebody changes schools": changed(student("p3", "cy", at="s2")),
    "somebody becomes a teacher": changed(teacher("p3", "cy")),
    "a grade that is not known": changed(student("p4", "dot", at="s2", grade="fifth")),
    "a record that cannot be used": changed(student("p1", "ann", name=" Li")),
    "a record that can be used again": changed(student("refused", "hal")),
    "a name that somebody has": changed(student("p12", "ANN")),
    "a name that is free now": changed(student("p1", "other", schools=["s2"]), student("p12", "ann")),
    "names change hands": changed(student("p1", "ben", schools=["s2"]), student("p2", "ann", schools=["s2"])),
    "a contested name is free for the other": changed(student("p5", "joe", at="s2")),
    "a name that is somebody's Clever id": changed(student("p1", "P4", schools=["s2"])),
    "a name of the user made by hand": changed(student("p12", "Handmade")),
    "the same person under another Clever id": changed(student("p12", "ida", sis_id="7")),
    "somebody comes back": changed(student("gone", "ida", sis_id="7")),
    "a district admin more": changed(teacher("p8", "eva", district_admin=True)),
    "a section comes": changed(section("c5", ["p1", "p4"], ["p8"])),
    "a section with nobody": changed(section("c1", [], [])),
    "a member leaves": changed(section("c1", ["p1", "p3"], ["p8", "p9"])),
    "a member comes": changed(section("c2", ["p2", "p4", "p1"], ["p9"], at="s2")),
    "another teacher is first": changed(section("c1", ["p1", "p2", "p3"], ["p9", "p8"])),
    "a section changes its name": changed(section("c1", ["p1", "p2", "p3"], ["p8", "p9"], name="Other")),
    "a section changes schools": changed(section("c1", ["p1", "p2", "p3"], ["p8", "p9"], at="s2")),
    "a section of a school that is not shared": changed(section("c1", ["p1", "p2", "p3"], ["p8", "p9"], at="s9")),
    "a section that cannot be used": changed(section("c1", ["p1", "p2", "p3"], ["p8", "p9"], name="")),
    "a section that can be used again": changed(section("c1", ["p1"], ["p8"])),
    "once more it cannot": changed(section("c1", ["p1", "p2", "p3"], ["p8", "p9"], name="")),
    "a section goes that could not be used": changed(without=["c1"]),
}
NIGHTS_OF_LOSS = {
    "somebody goes": changed(without=["p3"]),
    "a teacher goes": changed(without=["p9"]),
    "who has a contested name goes": changed(without=["p5"]),
    "a section goes": changed(without=["c1"]),
    "a section goes, with somebody in it": changed(without=["c1", "p1"]),
    "who was refused goes": changed(without=["refused"]),
}


@pytest.mark.parametrize("nights", [NIGHTS, NIGHTS_OF_LOSS])
def test_nights(quiet: LiveDistrict, nights: dict[str, Any]) -> None:
    """R7.2: the same counts, decisions and snapshot as of a whole plan; and each time the next sync has nothing to do."""
    for night, snapshot in nights.items():
        report = sync_both(quiet, snapshot)
        assert is_touched(report), night
        again = sync_both(quiet, snapshot)
        assert (again.counts["changes"], is_touched(again)) == ({}, bool(report.counts["changes"])), night
        # What Clever has sent once more is planned once.
        assert "touched as it was" not in {step.name for step in again.steps}, night


def test_little_is_planned(quiet: LiveDistrict) -> None:
    """One person changes: of the others only those without a digest, one of each collection, and who shares a name are looked at."""
    report = quiet.sync(changed(student("p3", "cy", name="Other Li")))
    assert report.counts["touched"]["people"] < len(RECORDS) / 2
    assert (
        report.counts["touched"]["since"]
        == quiet.execute("select since_sync_id from ops.settled where district_id = :district")[0]["since_sync_id"]
    )
    assert report.counts["changes"] == {"users": {"update": 1}}
    assert any(step.name == "touched as it was" for step in report.steps)
    assert not any(step.name == "reconcile.readiness" for step in report.steps)


def test_what_it_leaves_is_right(quiet: LiveDistrict) -> None:
    """R5.6, R6.2: a name that becomes free, and a section of which only one member is looked at."""
    assert is_touched(quiet.sync(changed(student("p5", "joe", at="s2"), section("c1", ["p1", "p2"], ["p9"]))))
    assert {key: name for key, name in usernames(quiet).items() if key in ("p5", "p6")} == {"p5": "joe", "p6": "SAME"}
    assert enrolled(quiet, "c1") == {("p1", "student", False), ("p2", "student", False), ("p9", "teacher", True)}
    assert enrolled(quiet, "c2") == {("p4", "student", False), ("p9", "teacher", True)}


def approve_nothing(district: LiveDistrict) -> None:
    district.agree(settings={"brakes": {"role_floor": 0, "role_share": 0}})
    district.sync(changed())


def let_time_pass(district: LiveDistrict) -> None:
    district.clock.now += incremental.WHOLE_EVERY


def write_by_hand(district: LiveDistrict) -> None:
    district.execute("update app.users set first_name = 'By hand' where district_id = :district and clever_id = 'p2'")


def lose_history(district: LiveDistrict) -> None:
    district.sync(changed(student("p12", "new")))
    prune_history(district.database, keep_syncs_days=1, keep_changes_days=1, now=district.clock.now + timedelta(days=2))


def sell_too_few(district: LiveDistrict) -> None:
    district.agree(licenses=7, over_license_policy="wait")
    district.sync(changed())
    district.sync(changed())


WHOLE: dict[str, tuple[Callable[[LiveDistrict], object] | None, Any]] = {
    "a school changes": (None, changed(school("s2", "Other"))),
    "a school goes": (None, changed(without=["s2"])),
    "a school cannot be used": (None, changed(school("s2", ""))),
    "a brake holds": (approve_nothing, changed(without=["p3"])),
    "a collection comes back empty": (None, changed(without=["p10"])),
    "somebody else has written": (write_by_hand, changed(student("p12", "new"))),
    "the last whole plan is a week ago": (let_time_pass, changed(student("p12", "new"))),
    "the history of the last sync is gone": (lose_history, changed()),
    "seats run short": (sell_too_few, changed(student("p12", "new"))),
}


@pytest.mark.parametrize("case", WHOLE)
def test_the_whole_district_is_planned(quiet: LiveDistrict, case: str) -> None:
    """Where anything speaks against it; and nothing of the attempt stays."""
    prepare, snapshot = WHOLE[case]
    if prepare:
        prepare(quiet)
    assert not is_touched(sync_both(quiet, snapshot))


def test_much_is_planned_as_a_whole(quiet: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incremental, "UP_TO_SHARE", 0.8)
    assert is_touched(quiet.sync(changed(student("p12", "new"))))
    assert not is_touched(sync_both(quiet, changed(*(student(f"p{each}", f"new {each}") for each in range(20, 30)))))
    monkeypatch.setattr(incremental, "FROM_PEOPLE", 100)
    assert not is_touched(sync_both(quiet, changed(student("p12", "new"))))


def test_a_part_that_is_not_what_it_should_be(quiet: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the last sync left has to plan to nothing. Here the part lacks the teachers of a section, so that their order is not known."""
    whole = incremental._SCRIPT
    monkeypatch.setattr(incremental, "_SCRIPT", whole.replace("sections.teachers,\n", "array[sections.teachers[2]],\n"))
    assert whole != incremental._SCRIPT
    assert not is_touched(sync_both(quiet, changed(teacher("p9", "gus", schools=["s2"], name="Other Ng"))))


def test_a_part_that_is_not_closed_is_refused(quiet: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 5: nobody gets a name twice; here those of one name are not looked for. After a failure the whole district is planned."""
    for _ in range(2):
        quiet.sync(changed(student("p5", "joe", at="s2")))
    whole = incremental._SCRIPT
    monkeypatch.setattr(incremental, "_SCRIPT", whole.replace("= names.key", "= names.key || '?'"))
    assert whole != incremental._SCRIPT
    with untouched(quiet), pytest.raises(PermanentError, match="users_one_active_username"):
        quiet.sync(changed(student("p5", "joe", at="s2"), student("p12", "Same")))
    assert not is_touched(sync_both(quiet, changed(student("p5", "joe", at="s2"), student("p12", "Same"))))


def test_a_part_is_planned_again(quiet: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else changed a row in the meantime: the second attempt finds what the first one did."""
    conflicts = [psycopg.errors.SerializationFailure("the first time")]

    def apply(*arguments: Any) -> None:
        if conflicts:
            raise conflicts.pop()
        apply_plan(*arguments)

    monkeypatch.setattr(run, "apply_plan", apply)
    assert is_touched(sync_both(quiet, changed(student("p12", "new"))))
    assert not conflicts


def test_a_dry_run_plans_all(quiet: LiveDistrict) -> None:
    """Its readiness report is of the whole district."""
    plan = quiet.plan(changed(student("p12", "new")))
    assert plan.counts["changes"]["users"] == {"create": 1}
    assert "touched" not in plan.counts
    assert "p12" not in active(quiet, "users")
