"""The incremental plan: when it is made, that its result equals that of a full plan, and when a full plan is made instead.

Does not belong here: random histories (`reference/test_model.py`), models that look further (`test_incremental_models.py`), and syncs
without a plan (`test_unchanged.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from roster_pipeline.database.migrate import known_tables
from roster_pipeline.database.models import Models
from roster_pipeline.errors import PermanentError
from roster_pipeline.fleet.retention import prune_history
from roster_pipeline.sync import incremental, run
from roster_pipeline.sync.apply import apply_plan
from roster_pipeline.sync.run import SyncReport, project_models
from roster_pipeline.sync.session import PlanningContext
from roster_pipeline_tests.reference.driver import LiveDistrict, leaves_unchanged
from roster_pipeline_tests.reference.rows import Record
from roster_pipeline_tests.sync.clever import clever, district_admin, school, section, staff, student, teacher
from roster_pipeline_tests.sync.copies import Copies, copies_of
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


# Models of the project that look further than an incremental plan can follow. Each of them makes every plan of a large district a full
# plan, which takes more than twice as long: name one here only if its rule is worth that. The tests of the incremental plan run without
# these models, so no other model may read one of them.
PLANNED_IN_FULL: frozenset[str] = frozenset()


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every district counts as a large one in which little changes."""
    count_as_large(monkeypatch)


def count_as_large(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(incremental, "FROM_PEOPLE", 1)
    patch.setattr(incremental, "UP_TO_SHARE", 10)
    models = followed_models()
    patch.setattr(run, "project_models", lambda: models)


def followed_models() -> Models:
    """The models of the project without those that make every plan a full plan."""
    models = project_models()
    return replace(models, ordered=tuple(each for each in models if each.name not in PLANNED_IN_FULL))


@pytest.fixture(scope="module")
def quiet_districts(database_server: URL, migrated_template: str) -> Iterator[Copies]:
    """Districts whose last sync had nothing to write. One of their users was made by hand, and one is soft-deleted."""

    def live(district: LiveDistrict) -> None:
        with pytest.MonkeyPatch.context() as patch:
            count_as_large(patch)
            new_user(district, "handmade")
            district.sync(clever(*RECORDS.values(), student("left", "ida", sis_id="7")))
            district.sync(changed())
            district.sync(changed())

    with copies_of(database_server, migrated_template, live) as copies:
        yield copies


@pytest.fixture
def quiet(quiet_districts: Copies) -> Iterator[LiveDistrict]:
    with quiet_districts() as district:
        yield district


def changed(*records: Record, without: Sequence[str] = ()) -> Any:
    """The usual snapshot with these records added or replaced."""
    return clever(*({key: each for key, each in RECORDS.items() if key not in without} | {each["id"]: each for each in records}).values())


def is_incremental(report: SyncReport) -> bool:
    return "touched" in report.counts


def sync_both(district: LiveDistrict, snapshot: Any) -> SyncReport:
    """Sync, and compare the counts and the tables with those of a full plan."""
    full = district.plan(snapshot)
    report = district.sync(snapshot)
    numbered: dict[str, Any] = {"held": None, "passed": None} if report.status == "held" else {}
    assert {each: report.counts[each] for each in full.counts} | numbered == {**full.counts, **numbered}
    assert district.kept(full.kept) == full.kept
    assert district.findings() == full.findings
    return report


# One after the other. Each night also undoes the change of the night before.
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
    "once more, with another username": changed(student("p13", "idalia", sis_id="7")),
    "once more, with another SIS id": changed(student("p14", "idalia", sis_id="17")),
    "a second record of the same person": changed(student("p14", "idalia", sis_id="17"), student("p15", "ida2", sis_id="17")),
    "the second record is in a section": changed(
        student("p14", "idalia", sis_id="17"), student("p15", "ida2", sis_id="17"), section("c3", ["p1", "p15"], ["p8"])
    ),
    "the first record gets another name": changed(
        student("p14", "idalia", sis_id="17", name="Ida Other"), student("p15", "ida2", sis_id="17")
    ),
    "the first record is removed": changed(student("p15", "ida2", sis_id="17")),
    "a teacher becomes a school admin under another id": changed(teacher("p16", "eva", staff=["s1"]), without=["p8"]),
    "somebody comes back": changed(student("left", "ida", sis_id="7")),
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
    "a section is removed that could not be used": changed(without=["c1"]),
    "teachers are not sent": changed({**RECORDS["c1"], "teachers": None}),
    "a teacher who stayed has another role": changed({**RECORDS["c1"], "teachers": None}, staff("p8")),
    "teachers are sent again, without one who stayed": changed({**RECORDS["c1"], "teachers": ["p8"]}),
    "roles that cannot be read": replace(changed(without=["p8"]), odd=(("teachers", {"data": {**RECORDS["p8"], "roles": {}}}),)),
    "roles that can be read again": changed(teacher("p8", "eva", schools=["s2"])),
}
NIGHTS_OF_LOSS = {
    "somebody leaves": changed(without=["p3"]),
    "a teacher leaves": changed(without=["p9"]),
    "a person with a contested name leaves": changed(without=["p5"]),
    "a section is removed": changed(without=["c1"]),
    "a section is removed, with one of its members": changed(without=["c1", "p1"]),
    "a quarantined person leaves": changed(without=["refused"]),
}


@pytest.mark.parametrize("nights", [NIGHTS, NIGHTS_OF_LOSS])
def test_nights(quiet: LiveDistrict, nights: dict[str, Any]) -> None:
    """R7.2: the same counts, decisions and snapshot as with a full plan. After each, the next sync has nothing to write."""
    for night, snapshot in nights.items():
        report = sync_both(quiet, snapshot)
        assert is_incremental(report), night
        again = sync_both(quiet, snapshot)
        assert (again.counts["changes"], is_incremental(again)) == ({}, bool(report.counts["changes"])), night
        # If the snapshot is unchanged, one plan is enough.
        assert "baseline plan" not in {step.name for step in again.steps}, night


def test_few_people_are_planned(quiet: LiveDistrict) -> None:
    """One person changes. The subset also has people without a digest, people who share a name, and one of each collection."""
    report = quiet.sync(changed(student("p3", "cy", name="Other Li")))
    assert report.counts["touched"]["people"] < len(RECORDS) / 2
    assert (
        report.counts["touched"]["since"]
        == quiet.execute("select since_sync_id from ops.settled where district_id = :district")[0]["since_sync_id"]
    )
    assert report.counts["changes"] == {"users": {"update": 1}}
    assert any(step.name == "baseline plan" for step in report.steps)
    assert not any(step.name == "reconcile.readiness" for step in report.steps)


def test_the_rows_it_writes_are_right(quiet: LiveDistrict) -> None:
    """R5.5, R6.2: a name that becomes free, and a section that has only one member in the subset."""
    assert is_incremental(quiet.sync(changed(student("p5", "joe", at="s2"), section("c1", ["p1", "p2"], ["p9"]))))
    assert {key: name for key, name in usernames(quiet).items() if key in ("p5", "p6")} == {"p5": "joe", "p6": "SAME"}
    assert enrolled(quiet, "c1") == {("p1", "student", False), ("p2", "student", False), ("p9", "teacher", True)}
    assert enrolled(quiet, "c2") == {("p4", "student", False), ("p9", "teacher", True)}


def approve_nothing(district: LiveDistrict) -> None:
    district.agree(settings={"brakes": {"role_floor": 0, "role_share": 0}})
    district.sync(changed())


def let_time_pass(district: LiveDistrict) -> None:
    district.clock.now += incremental.FULL_PLAN_EVERY


def go_back_in_time(district: LiveDistrict) -> None:
    """R11.6: the clock was wrong until now."""
    district.clock.now -= timedelta(days=400)


def write_by_hand(district: LiveDistrict) -> None:
    district.execute("update app.users set first_name = 'By hand' where district_id = :district and clever_id = 'p2'")


def lose_history(district: LiveDistrict) -> None:
    district.sync(changed(student("p12", "new")))
    prune_history(district.database, keep_syncs_days=1, keep_changes_days=1, now=district.clock.now + timedelta(days=2))


def send_an_element_without_an_id(district: LiveDistrict) -> None:
    new_user(district, "by hand")
    for _ in range(2):
        district.sync(UNREADABLE)


def sell_too_few(district: LiveDistrict) -> None:
    district.agree(licenses=7, over_license_policy="wait")
    district.sync(changed())
    district.sync(changed())


# Somebody else leaves, and an element has no id (R4.8).
UNREADABLE = replace(changed(without=["p3"]), odd=(("students", None),))
FULL: dict[str, tuple[Callable[[LiveDistrict], object] | None, Any]] = {
    "a school changes": (None, changed(school("s2", "Other"))),
    "a school is removed": (None, changed(without=["s2"])),
    "a school cannot be used": (None, changed(school("s2", ""))),
    "a brake holds": (approve_nothing, changed(without=["p3"])),
    "a collection comes back empty": (None, changed(without=["p10"])),
    "somebody else has written": (write_by_hand, changed(student("p12", "new"))),
    "the last full plan is a week ago": (let_time_pass, changed(student("p12", "new"))),
    "the last full plan is in the future": (go_back_in_time, changed(student("p12", "new"))),
    "the history of the last sync is removed": (lose_history, changed()),
    "an element has no id": (None, UNREADABLE),
    "an element had no id": (send_an_element_without_an_id, changed(without=["p3"])),
    "seats run short": (sell_too_few, changed(student("p12", "new"))),
}


@pytest.mark.parametrize("case", FULL)
def test_a_full_plan_is_made(quiet: LiveDistrict, case: str) -> None:
    """If an incremental plan could be wrong. Nothing of the attempt stays."""
    prepare, snapshot = FULL[case]
    if prepare:
        prepare(quiet)
    assert not is_incremental(sync_both(quiet, snapshot))


def test_a_full_plan_is_made_if_much_has_changed(quiet: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incremental, "UP_TO_SHARE", 0.8)
    assert is_incremental(quiet.sync(changed(student("p12", "new"))))
    assert not is_incremental(sync_both(quiet, changed(*(student(f"p{each}", f"new {each}") for each in range(20, 30)))))
    monkeypatch.setattr(incremental, "FROM_PEOPLE", 100)
    assert not is_incremental(sync_both(quiet, changed(student("p12", "new"))))


def test_a_wrong_subset_is_noticed(quiet: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    """The baseline plan has to be empty. Here the subset lacks the first teacher of a section, so the second one looks primary."""
    script = incremental._script

    def without_first_teacher(columns: tuple[str, ...]) -> str:
        return script(columns).replace("sections.teachers, sections.last", "array[sections.teachers[2]], sections.last")

    assert without_first_teacher(known_tables()["staging.sections"]) != script(known_tables()["staging.sections"])
    monkeypatch.setattr(incremental, "_script", without_first_teacher)
    assert not is_incremental(sync_both(quiet, changed(teacher("p9", "gus", schools=["s2"], name="Other Ng"))))


def test_a_subset_that_is_not_closed_is_refused(quiet: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 5: no name is given twice. Here the subset lacks people with the same name. After the failed sync a full plan is made."""
    for _ in range(2):
        quiet.sync(changed(student("p5", "joe", at="s2")))
    script = incremental._SCRIPT
    monkeypatch.setattr(incremental, "_SCRIPT", script.replace("= reached.key", "= reached.key || '?'"))
    assert script != incremental._SCRIPT
    with leaves_unchanged(quiet), pytest.raises(PermanentError, match="users_one_active_username"):
        quiet.sync(changed(student("p5", "joe", at="s2"), student("p12", "Same")))
    assert not is_incremental(sync_both(quiet, changed(student("p5", "joe", at="s2"), student("p12", "Same"))))


def test_a_conflict_is_planned_again(quiet: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else changed a row in the meantime. The second attempt makes the same plan."""
    conflicts = [psycopg.errors.SerializationFailure("the first time")]

    def apply(*arguments: Any) -> None:
        if conflicts:
            raise conflicts.pop()
        apply_plan(*arguments)

    monkeypatch.setattr(run, "apply_plan", apply)
    assert is_incremental(sync_both(quiet, changed(student("p12", "new"))))
    assert not conflicts


def test_a_dry_run_makes_a_full_plan(quiet: LiveDistrict) -> None:
    """The readiness report of a dry run is about the whole district."""
    plan = quiet.plan(changed(student("p12", "new")))
    assert plan.counts["changes"]["users"] == {"create": 1}
    assert "touched" not in plan.counts
    assert "p12" not in active(quiet, "users")


def test_newcomers_with_ids_of_other_things(quiet: LiveDistrict) -> None:
    """A student who has the Clever id of a section or of a school, and a section that has a student's."""
    there = changed()
    users = [*there.users, student("c1", "kim"), student("s2", "lou")]
    report = sync_both(quiet, replace(there, users=users, sections=[*there.sections, section("p3", ["p4"], ["p8"])]))
    assert is_incremental(report)
    assert report.counts["changes"]["users"] == {"create": 2}
    assert report.counts["changes"]["classrooms"] == {"create": 1}


class SeenError(Exception):
    """The test has checked what it needs."""


def test_a_new_column_of_sections_is_in_the_subset(quiet: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a section of which only one member is in the subset."""
    quiet.execute("alter table staging.sections add column period text")
    quiet.execute("update staging.sections set period = 'third' where district_id = :district")
    tables = {**known_tables(), "staging.sections": (*known_tables()["staging.sections"], "period")}
    monkeypatch.setattr(run, "known_tables", lambda: tables)

    def look(context: PlanningContext, *_arguments: object) -> None:
        rows = context.connection.exec_driver_sql('select clever_id, period from pg_temp."subset.staging.sections"').all()
        assert len(rows) > 1
        assert {row.period for row in rows} == {"third"}
        raise SeenError

    monkeypatch.setattr(incremental, "restore_seen", look)
    with pytest.raises(SeenError):
        quiet.sync(changed(student("p1", "ann", name="Other Li", schools=["s2"])))
