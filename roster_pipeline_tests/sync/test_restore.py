"""Seen records are restored from the last accepted snapshot as if they had been decoded, and findings are found again in every sync.

Does not belong here: which records are seen (`source/test_digests.py`), and syncs without a plan (`test_unchanged.py`).
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.database.engine import Database
from roster_pipeline.database.models import SQL
from roster_pipeline.database.runner import Step
from roster_pipeline.errors import TransientError
from roster_pipeline.support.preview import PlanReport, preview_sync
from roster_pipeline.sync import landing, restore, run
from roster_pipeline.sync.plan import Plan, make_plan
from roster_pipeline.sync.run import SyncReport
from roster_pipeline.sync.session import PlanningContext
from roster_pipeline_tests.reference.driver import SETTINGS, LiveDistrict, recorded
from roster_pipeline_tests.reference.rows import Record, Snapshot
from roster_pipeline_tests.sync.clever import clever, district_admin, school, section, student, teacher
from roster_pipeline_tests.sync.rows import active, roles, user, usernames
from roster_pipeline_tests.sync.scenario import DISTRICT, scenario

MONDAY, TUESDAY = "2026-01-05T00:00:00.000Z", "2026-01-06T00:00:00.000Z"
RESOURCES = ("schools", "terms", "courses", "sections", "users")


def known(report: SyncReport) -> int:
    """The number of seen records."""
    return int(report.counts["pull"]["known"])


def has_digest(district: LiveDistrict, resource: str = "users") -> dict[str, bool]:
    """Whether each record of the last accepted snapshot has a digest. The next pull sees only records that have one."""
    rows = district.execute(f"select clever_id, digest is not null as is_known from staging.{resource} where district_id = :district")
    return {row["clever_id"]: row["is_known"] for row in rows}


def staged(district: LiveDistrict) -> dict[str, Any]:
    """The last accepted snapshot, with its digests."""
    return {each: district.execute(f"select * from staging.{each} where district_id = :district order by clever_id") for each in RESOURCES}


def test_restored_records_equal_decoded_ones(twig: LiveDistrict) -> None:
    """Every value of every column is the same as if all records were decoded again."""
    people = [
        student("p1", 'an"a, \\N', name='O"Neil,Zoë \u674e', email="a@b.example", sis_id="007", schools=["s2"], last_modified=MONDAY),
        student("p2", grade=None, name="NULL \\."),
        teacher("p3", "eva", staff=["s1", "s2"], district_admin=True, email="e@b.example"),
        teacher("p4", staff=[]),
        district_admin("p5"),
    ]
    sections = [
        section("c1", ["p1", "nobody"], ["p4", "p3"], name="A, B", course="k", term_id="t"),
        section("c2", last_modified=TUESDAY),
    ]
    records = [school("s2", "\u00dcber \u2014 S2", last_modified=MONDAY), *sections, *people]
    twig.sync(clever(*records))
    before = staged(twig)
    report = twig.sync(clever(*records, student("p6", "new")))
    assert known(report) == 2 + 2 + 8  # p3 is in three collections, p4 in two.
    assert {**staged(twig), "users": before["users"]} == before
    assert staged(twig)["users"][:5] == before["users"]
    assert report.counts["changes"] == {"users": {"create": 1}, "user_roles": {"role_gain": 1}}
    twig.forget()
    again = twig.sync(clever(*records, student("p6", "new")))
    assert known(again) == 0
    assert {**staged(twig), "users": before["users"]} == before
    of_this_pull = {"pull": None, "changes": None, "people": None}
    assert {**again.counts, **of_this_pull} == {**report.counts, **of_this_pull}


def test_records_of_every_resource_are_seen_over_http(database: Database) -> None:
    """R3.2: schools, terms, courses, sections and users, in pages. Only unseen records are decoded."""
    with scenario(database) as world:
        place = world.school("A")
        students = world.students(place, 5)
        world.change.add_user("teacher", "T", "T", schools=[place], username="t")
        world.change.replace("terms", "t1", {"id": "t1", "district": DISTRICT, "name": "T"})
        world.change.replace("courses", "k1", {"id": "k1", "district": DISTRICT, "name": "C", "number": "1"})
        members = {"school": place, "students": students[:3], "teachers": [], "course": "k1", "term_id": "t1"}
        world.change.replace("sections", "c1", {"id": "c1", "district": DISTRICT, "name": "N", **members})
        world.settings = world.settings.model_copy(update={"clever_page_limit": 2})
        first = world.sync()
        assert known(first) == 0
        world.change.rename(students[0], last="New")
        second = world.sync()
        assert known(second) == 1 + 1 + 1 + 1 + 5
        assert second.counts["pull"]["records"] == first.counts["pull"]["records"]
        assert second.counts["changes"] == {"users": {"update": 1}}
        assert world.value("select count(*) from staging.terms where digest is not null") == 1
        third, fourth = world.sync(), world.sync()
        assert known(third) == known(fourth) == 10
        assert (third.counts["changes"], fourth.counts["settled_since"]) == ({}, third.sync_id)


@pytest.mark.parametrize(("at", "page_size"), [(None, 1), (MONDAY, 10)])
def test_a_seen_record_and_another_version_of_it(district: LiveDistrict, at: str | None, page_size: int) -> None:
    """R3.8: the later of two equally new records counts, whichever of them is seen. Afterwards neither has a digest."""
    old, new = (student("p1", "ann", name=f"{name} Li", last_modified=at) for name in ("Old", "New"))
    rest = student("p0", "ben"), student("p2", "cy")
    for versions, first_name in (((old, new), "New"), ((new, old), "Old")):
        district.sync(clever(rest[0], old, rest[1]))
        assert has_digest(district) == {"p0": True, "p1": True, "p2": True}
        report = district.sync(clever(rest[0], *versions, rest[1]), page_size=page_size)
        assert known(report) == 1 + 3
        assert user(district, "p1")["first_name"] == first_name
        assert has_digest(district) == {"p0": True, "p1": False, "p2": True}
        assert report.counts["audits"]["duplicate_ids"] == 1


def test_the_newest_of_two_records_counts_also_if_it_is_the_seen_one(district: LiveDistrict) -> None:
    """R3.8: whatever their order is."""
    old, new = student("p1", "ann", name="Old Li", last_modified=MONDAY), student("p1", "ann", name="New Li", last_modified=TUESDAY)
    for before, versions in ((old, (old, new)), (new, (new, old)), (new, (old, new))):
        district.sync(clever(before))
        assert known(district.sync(clever(*versions))) == 2
        assert user(district, "p1")["first_name"] == "New"


def test_a_record_that_is_sent_twice_keeps_its_digest(district: LiveDistrict) -> None:
    """R3.8: the audit counts it in every sync."""
    records = [section("c1", ["p1"]), section("c1", ["p1"]), student("p1", "ann"), student("p1", "ann")]
    for night, expected in enumerate((0, 3, 3)):
        report = district.sync(clever(*records, student("x", name=f"New {night}")), page_size=2)
        assert (known(report), report.counts["audits"]["duplicate_ids"]) == (expected, 2)
    assert has_digest(district) == {"p1": True, "x": True}


def test_findings_are_found_in_every_sync(twig: LiveDistrict) -> None:
    """R4.2, R4.6, R3.6: the same rows in ops.quarantine and the same counts. Only records without findings are seen."""
    broken = [
        student("warn", "ann", email="not an address"),
        student("type", "bea", sis_id=7),
        student("error", "cy", name=" Li"),
        student("foreign", "dee", district="another"),
        section("c1", name=" "),
        section("c2", course="not an id!"),
    ]
    reports = [twig.sync(clever(student("p1", "ben"), *broken, student("p2", name=f"New {night}"))) for night in range(3)]
    assert [known(each) for each in reports] == [0, 2, 2]
    assert has_digest(twig) == {"warn": False, "type": False, "p1": True, "p2": True}
    assert has_digest(twig, "sections") == {"c2": False}
    found = [twig.quarantine(each.sync_id) for each in reports]
    assert {each[1] for each in found[0]} == {"warn", "type", "error", "foreign", "c1", "c2"}
    assert found[1] == found[2] == found[0]
    assert reports[1].counts["findings"] == reports[2].counts["findings"] == reports[0].counts["findings"]
    fixed = twig.sync(clever(student("p1", "ben"), student("error", "cy", name="Cy Li"), section("c2"), student("p2", name="New 2")))
    assert (known(fixed), fixed.counts["findings"], active(twig, "users")) == (3, {}, {"error", "p1", "p2"})


def test_a_person_in_two_collections_is_restored_in_both(district: LiveDistrict) -> None:
    """R3.8, R7.3: the person has one digest and is in two collections. The teachers are not empty, although all of them are seen."""
    both = student("p1", "ann")
    both = {**both, "roles": {**both["roles"], **teacher("p1", "ann", schools=["s2"])["roles"]}}
    records = [school("s2"), both, student("p2", "ben")]
    district.sync(clever(*records))
    before = roles(district, "p1")
    assert before == {("student", "s1"), ("teacher", "s1"), ("teacher", "s2")}
    report = district.sync(clever(*records, student("p3", "new")))
    assert (report.status, known(report)) == ("successful", 2 + 3)
    assert report.counts["pull"]["records"]["teachers"] == 1
    assert (roles(district, "p1"), has_digest(district)["p1"]) == (before, True)
    assert report.counts["audits"]["duplicate_ids"] == 0
    without_teachers = district.sync(clever(*records[:1], student("p1", "ann"), student("p2", "ben"), student("p3", "new")))
    assert [each["kind"] for each in without_teachers.counts["held"]] == ["empty_collection"]


def test_records_that_are_not_in_the_pull_are_not_restored(district: LiveDistrict) -> None:
    """R7.1: a record of the last snapshot is not present unless the pull has it."""
    district.sync(clever(section("c1", ["p1"]), section("c2"), student("p1", "ann"), student("p2", "ben")))
    report = district.sync(clever(section("c2"), student("p2", "ben")))
    assert known(report) == 3
    assert (active(district, "users"), active(district, "classrooms")) == ({"p2"}, {"c2"})
    assert set(has_digest(district)) == {"p2"}


def test_after_a_change_of_the_profile_no_record_is_seen(district: LiveDistrict) -> None:
    """R3.4: if a student's e-mail is stored, the same bytes become another row. The e-mail is added, and removed again."""
    snapshot = clever(student("p1", "ann", email="a@b.example"), student("p2", "ben"))
    for keeps, expected in ((False, None), (True, "a@b.example"), (False, None)):
        district.agree(settings={"student_email": keeps})
        assert known(district.sync(snapshot)) == 0
        assert [row["email"] for row in district.execute("select email from staging.users where clever_id = 'p1'")] == [expected]
        assert user(district, "p1")["email"] == expected
    assert known(district.sync(snapshot)) == 3


def test_after_another_release_no_record_is_seen(district: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = clever(student("p1", "ann"), student("p2", "ben"))
    district.sync(snapshot)
    monkeypatch.setattr(restore, "code_digest", lambda _source: b"another release")
    assert [known(district.sync(snapshot)) for _ in range(2)] == [0, 3]


def test_records_of_another_district_are_not_seen(database: Database, district: LiveDistrict) -> None:
    """R3.6: whether a record is foreign depends on the district of the pull."""
    snapshot = clever(student("p1", "ann"), student("p2", "ben"))
    district.sync(snapshot)
    neighbour = LiveDistrict.sign_up(database)
    assert known(neighbour.sync(snapshot)) == 0
    assert known(district.sync(snapshot)) == 3


def test_a_release_is_everything_between_clever_and_the_last_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restored row was made by older code. If the new code would make another row of the record, the record must be unseen."""
    read: set[Path] = set()
    read_bytes = Path.read_bytes

    def recorded_read(path: Path) -> bytes:
        read.add(path.resolve())
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", recorded_read)
    restore.code_digest.__wrapped__(DistrictPull.code)
    package = Path(run.__file__).parents[1]
    ours = ("contracts.py", "source/vocabulary.py", "clever/records.py", "clever/decode.py", "clever/columns.py", "sync/frames.py")
    assert read >= {*(package / each for each in ours), Path(landing.__file__), *(SQL / "staging").glob("*.sql")}


def test_records_are_restored_again_for_a_second_attempt(district: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else changed a row in the meantime. The rows that the first attempt restored are rolled back with it."""
    people = [section("c1", ["p1"]), student("p1", "ann"), student("p2", "ben")]
    district.sync(clever(*people))
    conflicts = [psycopg.errors.SerializationFailure("the first time")]

    def plan(context: PlanningContext) -> Plan:
        made = make_plan(context)
        if conflicts:
            raise conflicts.pop()
        return made

    monkeypatch.setattr(run, "make_plan", plan)
    report = district.sync(clever(*people, student("p3", "new")))
    assert not conflicts
    assert known(report) == 4
    assert report.counts["audits"]["duplicate_ids"] == 0
    assert report.counts["changes"] == {"users": {"create": 1}, "user_roles": {"role_gain": 1}}


# A dry run has no lock: a sync of the district may commit between its pull and its plan ---------------------------------------------------


def plan_during(district: LiveDistrict, snapshot: Snapshot, meanwhile: Callable[[], object]) -> PlanReport:
    """A dry run that begins a minute after the last sync. `meanwhile` is called between its pull and its plan."""
    now = district.clock.now + timedelta(minutes=1)

    def on_step(step: Step) -> None:
        if step.name == "clever.district_admins":
            meanwhile()

    source = recorded(snapshot, page_size=2)
    return preview_sync(district.database, SETTINGS, district.clever_id, open_source=source, on_step=on_step, clock=lambda _: now)


PEOPLE: list[Record] = [section("c1", ["p1"]), student("p1", "ann"), student("p2", "ben"), student("p3", "cy"), teacher("p4", "dee")]
MEANWHILE: dict[str, list[Record]] = {
    "somebody changed": [*PEOPLE[:-1], teacher("p4", "dee", name="New Ma")],
    "somebody left": [each for each in PEOPLE if each["id"] != "p3"],
    "somebody came": [*PEOPLE, student("p5", "eve")],
    "everybody changed": [
        section("c1", ["p1"], name="New"),
        *(student(f"p{each}", "new", name=f"New {each}") for each in range(1, 4)),
        teacher("p4"),
    ],
}


@pytest.mark.parametrize("accepted", MEANWHILE.values(), ids=MEANWHILE)
def test_a_dry_run_makes_no_plan_if_a_newer_snapshot_is_accepted_meanwhile(district: LiveDistrict, accepted: list[Record]) -> None:
    """R11.6: a plan of its older snapshot would delete, and report, people who have just been created."""
    district.sync(clever(*PEOPLE))
    with pytest.raises(TransientError):
        plan_during(district, clever(*PEOPLE), lambda: district.sync(clever(*accepted)))
    assert active(district, "users") == {each["id"] for each in accepted if "roles" in each}


def test_a_dry_run_makes_no_plan_if_seen_records_cannot_be_restored(district: LiveDistrict) -> None:
    """R3.2: a sync that began before it commits during it. Records that cannot be restored are not absent."""
    district.sync(clever(*PEOPLE))

    def commit() -> None:
        district.sync(clever(*MEANWHILE["somebody changed"]))
        district.execute("update ops.syncs set pull_no = 1")

    with pytest.raises(TransientError, match="during this dry run"):
        plan_during(district, clever(*PEOPLE), commit)


def test_a_dry_run_during_a_sync_of_another_district(district: LiveDistrict) -> None:
    """It plans what a sync would do, and leaves the last snapshot unchanged."""
    district.sync(clever(*PEOPLE))
    neighbour = LiveDistrict.sign_up(district.database)
    before = staged(district)
    report = plan_during(district, clever(*PEOPLE, student("p6", "new")), lambda: neighbour.sync(clever(student("p1", "ann"))))
    assert report.plan.changes == {"users": {"create": 1}, "user_roles": {"role_gain": 1}}
    assert staged(district) == before
    assert usernames(district)["p1"] == "ann"
    assert known(district.sync(clever(*PEOPLE))) == 6
