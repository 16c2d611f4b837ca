"""Records that are known from the last accepted snapshot: they come back as if they had been read, and what was wrong is found again.

Does not belong here: how they are recognised (`source/test_digests.py`), and syncs that make no plan at all (`test_unchanged.py`).
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
from roster_pipeline.sync import landing, restore, run
from roster_pipeline.sync.plan import Plan, make_plan
from roster_pipeline.sync.preview import PlanReport
from roster_pipeline.sync.run import SyncReport, plan_sync
from roster_pipeline.sync.session import PlanningContext
from roster_pipeline_tests.reference.driver import SETTINGS, LiveDistrict, recorded
from roster_pipeline_tests.reference.rows import Record, Snapshot
from roster_pipeline_tests.sync.clever import clever, district_admin, school, section, student, teacher
from roster_pipeline_tests.sync.rows import active, roles, user, usernames
from roster_pipeline_tests.sync.scenario import DISTRICT, scenario

MONDAY, TUESDAY = "2026-01-05T00:00:00.000Z", "2026-01-06T00:00:00.000Z"
RESOURCES = ("schools", "terms", "courses", "sections", "users")


def known(report: SyncReport) -> int:
    return int(report.counts["pull"]["known"])


def has_digest(district: LiveDistrict, resource: str = "users") -> dict[str, bool]:
    """Whether each record of the last accepted snapshot will be known."""
    rows = district.execute(f"select clever_id, digest is not null as is_known from staging.{resource} where district_id = :district")
    return {row["clever_id"]: row["is_known"] for row in rows}


def staged(district: LiveDistrict) -> dict[str, Any]:
    """The last accepted snapshot, digests included."""
    return {each: district.execute(f"select * from staging.{each} where district_id = :district order by clever_id") for each in RESOURCES}


def test_what_comes_back_is_what_was_read(twig: LiveDistrict) -> None:
    """Every value of every column, whatever is in it: the same as when all of it is read anew."""
    people = [
        student("p1", 'an"a, \\N', name='O"Neil,Zoë \u674e', email="a@b.example", sis_id="007", schools=["s2"], last_modified=MONDAY),
        student("p2", grade=None, at="", name="NULL \\."),
        teacher("p3", "eva", staff=["s1", "s2"], district_admin=True, email="e@b.example"),
        teacher("p4", staff=[]),
        district_admin("p5"),
    ]
    sections = [
        section("c1", ["p1", "{}", 'a"b', "\\"], ["p4", "p3"], name="A, B", course="k", term_id="t"),
        section("c2", last_modified=TUESDAY),
    ]
    records = [school("s2", "\u00dcber \u2014 S2", last_modified=MONDAY), *sections, *people]
    twig.sync(clever(*records))
    before = staged(twig)
    report = twig.sync(clever(*records, student("p6", "new")))
    assert known(report) == 2 + 2 + 8  # p3 is walked three times, p4 twice.
    assert {**staged(twig), "users": before["users"]} == before
    assert staged(twig)["users"][:5] == before["users"]
    assert report.counts["changes"] == {"users": {"create": 1}, "user_roles": {"role_gain": 1}}
    twig.forget()
    again = twig.sync(clever(*records, student("p6", "new")))
    assert known(again) == 0
    assert {**staged(twig), "users": before["users"]} == before
    of_this_pull = {"pull": None, "changes": None, "people": None}
    assert {**again.counts, **of_this_pull} == {**report.counts, **of_this_pull}


def test_every_resource_is_known_over_http(database: Database) -> None:
    """R3.2: schools, terms, courses, sections and users, in pages; what is new among them is read."""
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
def test_a_known_record_and_another_version_of_it(district: LiveDistrict, at: str | None, page_size: int) -> None:
    """R3.8: of two equally new records the later arrival counts, whichever of them is known; and neither is after that."""
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


def test_the_newest_of_two_counts_though_it_is_the_known_one(district: LiveDistrict) -> None:
    """R3.8: wherever it comes."""
    old, new = student("p1", "ann", name="Old Li", last_modified=MONDAY), student("p1", "ann", name="New Li", last_modified=TUESDAY)
    for is_known, versions in ((old, (old, new)), (new, (new, old)), (new, (old, new))):
        district.sync(clever(is_known))
        assert known(district.sync(clever(*versions))) == 2
        assert user(district, "p1")["first_name"] == "New"


def test_a_record_that_comes_twice_alike_stays_known(district: LiveDistrict) -> None:
    """R3.8: counted every time."""
    records = [section("c1", ["p1"]), section("c1", ["p1"]), student("p1", "ann"), student("p1", "ann")]
    for night, expected in enumerate((0, 3, 3)):
        report = district.sync(clever(*records, student("x", name=f"New {night}")), page_size=2)
        assert (known(report), report.counts["audits"]["duplicate_ids"]) == (expected, 2)
    assert has_digest(district) == {"p1": True, "x": True}


def test_what_was_found_is_found_in_every_sync(twig: LiveDistrict) -> None:
    """R4.2, R4.6, R3.6: the same rows of ops.quarantine, the same counts and alerts' numbers; what is sound is known."""
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
    mended = twig.sync(clever(student("p1", "ben"), student("error", "cy", name="Cy Li"), section("c2"), student("p2", name="New 2")))
    assert (known(mended), mended.counts["findings"], active(twig, "users")) == (3, {}, {"error", "p1", "p2"})


def test_who_is_walked_twice_is_recalled_twice(district: LiveDistrict) -> None:
    """R3.8, R7.3: one digest, two collections: the teachers have not come back empty, though every one of them is known."""
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
    gone = district.sync(clever(*records[:1], student("p1", "ann"), student("p2", "ben"), student("p3", "new")))
    assert [each["kind"] for each in gone.counts["held"]] == ["empty_collection"]


def test_what_is_not_in_the_pull_does_not_come_back(district: LiveDistrict) -> None:
    """R7.1: that it is remembered does not make it present."""
    district.sync(clever(section("c1", ["p1"]), section("c2"), student("p1", "ann"), student("p2", "ben")))
    report = district.sync(clever(section("c2"), student("p2", "ben")))
    assert known(report) == 3
    assert (active(district, "users"), active(district, "classrooms")) == ({"p2"}, {"c2"})
    assert set(has_digest(district)) == {"p2"}


def test_another_profile_knows_nothing(district: LiveDistrict) -> None:
    """R3.4: the same bytes become other rows where a student's e-mail is stored: it appears, and it goes."""
    snapshot = clever(student("p1", "ann", email="a@b.example"), student("p2", "ben"))
    for keeps, expected in ((False, None), (True, "a@b.example"), (False, None)):
        district.agree(settings={"student_email": keeps})
        assert known(district.sync(snapshot)) == 0
        assert [row["email"] for row in district.execute("select email from staging.users where clever_id = 'p1'")] == [expected]
        assert user(district, "p1")["email"] == expected
    assert known(district.sync(snapshot)) == 3


def test_another_release_knows_nothing(district: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = clever(student("p1", "ann"), student("p2", "ben"))
    district.sync(snapshot)
    monkeypatch.setattr(restore, "code_digest", lambda _source: b"another release")
    assert [known(district.sync(snapshot)) for _ in range(2)] == [0, 3]


def test_another_district_knows_nothing(database: Database, district: LiveDistrict) -> None:
    """R3.6: whether a record is foreign depends on whose pull it is in."""
    snapshot = clever(student("p1", "ann"), student("p2", "ben"))
    district.sync(snapshot)
    neighbour = LiveDistrict.sign_up(database)
    assert known(neighbour.sync(snapshot)) == 0
    assert known(district.sync(snapshot)) == 3


def test_a_release_is_everything_between_clever_and_the_last_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recalled row is what older code made of the record: code that would make another row of it must not know it."""
    read: set[Path] = set()
    read_bytes = Path.read_bytes

    def noted(path: Path) -> bytes:
        read.add(path.resolve())
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    restore.code_digest.__wrapped__(DistrictPull.code)
    package = Path(run.__file__).parents[1]
    ours = ("contracts.py", "source/vocabulary.py", "clever/records.py", "clever/decode.py", "clever/columns.py", "sync/frames.py")
    assert read >= {*(package / each for each in ours), Path(landing.__file__), *(SQL / "staging").glob("*.sql")}


def test_a_plan_that_is_made_again_recalls_again(district: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else changed a row in the meantime: what the first attempt recalled went with its transaction."""
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


# Dry runs take no lock: another sync may be accepted between their pull and their plan ---------------------------------------------------


def plan_during(district: LiveDistrict, snapshot: Snapshot, meanwhile: Callable[[], object], *, minutes: int = 1) -> PlanReport:
    """A dry run that begins so many minutes after the last sync, and during which something happens between its pull and its plan."""
    now = district.clock.now + timedelta(minutes=minutes)

    def on_step(step: Step) -> None:
        if step.name == "clever.district_admins":
            meanwhile()

    source = recorded(snapshot, page_size=2)
    return plan_sync(district.database, SETTINGS, district.clever_id, open_source=source, on_step=on_step, clock=lambda: now)


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
def test_a_dry_run_that_is_overtaken_makes_no_plan(district: LiveDistrict, accepted: list[Record]) -> None:
    """R11.6: what it read is the past. To plan that over what is there now would delete, and report, who has just been accepted."""
    district.sync(clever(*PEOPLE))
    with pytest.raises(TransientError):
        plan_during(district, clever(*PEOPLE), lambda: district.sync(clever(*accepted)))
    assert active(district, "users") == {each["id"] for each in accepted if "roles" in each}


def test_a_dry_run_that_misses_what_it_knew_makes_no_plan(district: LiveDistrict) -> None:
    """R3.2: a sync that began before it was accepted during it. Records that cannot come back any more are not absent."""
    district.sync(clever(*PEOPLE))
    with pytest.raises(TransientError, match="while it was read"):
        plan_during(district, clever(*PEOPLE), lambda: district.sync(clever(*MEANWHILE["somebody changed"])), minutes=9)


def test_a_dry_run_that_is_not_overtaken(district: LiveDistrict) -> None:
    """It plans what a sync would do, and changes nothing of what is remembered. Nor does a sync of another district disturb it."""
    district.sync(clever(*PEOPLE))
    neighbour = LiveDistrict.sign_up(district.database)
    before = staged(district)
    report = plan_during(district, clever(*PEOPLE, student("p6", "new")), lambda: neighbour.sync(clever(student("p1", "ann"))))
    assert report.plan.changes == {"users": {"create": 1}, "user_roles": {"role_gain": 1}}
    assert staged(district) == before
    assert usernames(district)["p1"] == "ann"
    assert known(district.sync(clever(*PEOPLE))) == 6
