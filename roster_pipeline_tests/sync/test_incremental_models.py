"""Models that look further than the affected subset: they are declared, and a wrong header is noticed.

Does not belong here: what the incremental plan does with the other models (`test_incremental.py`).
"""

from dataclasses import replace

import pytest

from roster_pipeline.database import models as database_models
from roster_pipeline.database.migrate import known_tables
from roster_pipeline.database.models import SQL, Models
from roster_pipeline.sync import run
from roster_pipeline.sync.incremental import FOLLOWED, LOOK_FURTHER, OF_PAGES, looking_too_far
from roster_pipeline.sync.run import project_models
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.reference.rows import Record
from roster_pipeline_tests.sync.clever import school, section, student, teacher
from roster_pipeline_tests.sync.test_incremental import PLANNED_IN_FULL, changed, count_as_large, followed_models, is_incremental


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every district counts as a large one in which little changes."""
    count_as_large(monkeypatch)


# What to do about a model that looks further than an incremental plan can follow.
ADVICE = (
    "Let it look at fewer records; or declare it in LOOK_FURTHER (roster_pipeline/sync/incremental.py), with the reason why an incremental "
    "plan is right; or name it in PLANNED_IN_FULL (roster_pipeline_tests/sync/test_incremental.py), and every plan becomes a full plan."
)


def test_models_that_look_further_are_declared() -> None:
    """Both ways: a new one has to be named in LOOK_FURTHER, with a reason, or in PLANNED_IN_FULL; and neither names another model."""
    models = project_models().of("reconcile", "audits")
    further = {each.name for each in models if each.decides_by not in FOLLOWED}
    pages = {each.name for each in models if any(read.startswith("clever.") for read in each.reads)}
    declared = LOOK_FURTHER.keys() | PLANNED_IN_FULL
    both = sorted(LOOK_FURTHER.keys() & PLANNED_IN_FULL)
    assert not both, f"In LOOK_FURTHER and in PLANNED_IN_FULL: {both}. Remove each from one of them."
    assert not further - declared, f"Not declared: {sorted(further - declared)}. {ADVICE}"
    unseen = pages - OF_PAGES - declared
    assert not unseen, f"They read clever.*, which an incremental plan does not have in full: {sorted(unseen)}. Read staging.*."
    assert pages >= OF_PAGES
    assert not declared - further - pages, f"Declared without need: {sorted(declared - further - pages)}. Remove the names."
    assert {each.name for each in looking_too_far(project_models())} == PLANNED_IN_FULL


def test_no_model_reads_one_that_is_planned_in_full() -> None:
    """The tests of the incremental plan run without the models of PLANNED_IN_FULL."""
    readers = {each.name: sorted(each.reads & PLANNED_IN_FULL) for each in project_models() if each.reads & PLANNED_IN_FULL}
    assert not readers, f"Other models read what is planned in full: {readers}. Let the incremental plan answer it, as LOOK_FURTHER says."


def duplicates_of(table: str, column: str) -> str:
    """An audit on equal values, made as docs/architecture.md ("Add a rule") says: from `audits/duplicate_usernames.sql`."""
    audit = (SQL / "audits" / "duplicate_usernames.sql").read_text(encoding="utf-8")
    audit = audit.replace("app.normalize_username(username)", column).replace("username is not null", f"{column} is not null")
    return audit.replace("staging.users", f"staging.{table}").replace("decides by: name", "decides by: district")


def with_audits(monkeypatch: pytest.MonkeyPatch, audits: dict[str, str], *, is_header_right: bool) -> None:
    """Syncs run these audits too. If the header is wrong, it says `itself`, and the check that would refuse it is off."""
    models = followed_models()
    parsed = [database_models._parse("audits", name, sql) for name, sql in audits.items()]
    added = tuple(each if is_header_right else replace(each, decides_by="itself") for each in parsed)
    more = Models((*models.ordered, *added), models.decided)
    monkeypatch.setattr(run, "project_models", lambda: more)


def quiet_with(district: LiveDistrict, *records: Record) -> None:
    """The last sync had nothing to write, with these records beside the others."""
    for _ in range(2):
        district.sync(changed(*records))


@pytest.mark.parametrize("is_header_right", [True, False])
def test_an_audit_on_equal_state_ids(district: LiveDistrict, monkeypatch: pytest.MonkeyPatch, *, is_header_right: bool) -> None:
    """R4.3: somebody comes with the state_id of somebody who has not changed. Only a full plan finds both; the header asks for it."""
    with_audits(monkeypatch, {"duplicate_state_ids": duplicates_of("users", "state_id")}, is_header_right=is_header_right)
    kim, lou = student("p12", "kim"), student("p13", "lou")
    for each in (kim, lou):
        each["roles"]["student"]["state_id"] = "8"
    quiet_with(district, kim)
    snapshot = changed(kim, lou)
    assert district.plan(snapshot).counts["audits"]["duplicate_state_ids"] == 2
    report = district.sync(snapshot)
    assert is_incremental(report) is not is_header_right
    assert report.counts["audits"]["duplicate_state_ids"] == (2 if is_header_right else 0)


# Nobody else has any of these values.
ALIKE: dict[str, Record] = {
    "a student": student(
        "p12",
        "kim",
        at="s3",
        name="Kim Ro",
        email="kim@x.example",
        sis_id="8",
        grade="7",
        last_modified="2026-01-01T00:00:00Z",
    ),
    "a teacher": teacher("p14", "max", at="s4", name="Max Su", email="max@x.example", staff=["s4"], last_modified="2026-01-02T00:00:00Z"),
    "a section": section("c9", name="Only here", at="s3", course="k9", term_id="t9", last_modified="2026-01-03T00:00:00Z"),
}
ALIKE["a student"]["roles"]["student"] |= {"state_id": "9", "student_number": "10"}
ALIKE["a student"]["name"]["middle"] = "Q"
# What a newcomer cannot have too: the key, the digest of bytes with another Clever id; and what the subset is closed under.
NOT_ALIKE = {"district_id", "clever_id", "digest", "username", "sis_id", "students", "teachers", "is_district_admin"}


@pytest.mark.parametrize("is_header_right", [True, False])
def test_newcomers_collide_in_every_column(district: LiveDistrict, monkeypatch: pytest.MonkeyPatch, *, is_header_right: bool) -> None:
    """Newcomers have every value of people and sections that have not changed. A wrong header is noticed whatever column it is about."""
    columns = [(table, each) for table in ("users", "sections") for each in known_tables()[f"staging.{table}"] if each not in NOT_ALIKE]
    audits = {f"duplicate_{table}_{column}": duplicates_of(table, column) for table, column in columns}
    with_audits(monkeypatch, audits, is_header_right=is_header_right)
    before = [school("s3"), school("s4"), *ALIKE.values()]
    quiet_with(district, *before)
    after = changed(*before, *(_newcomer(each, f"{each['id']}x") for each in ALIKE.values()))
    full = district.plan(after)
    report = district.sync(after)
    assert is_incremental(report) is not is_header_right
    wrong = {each for each in audits if report.counts["audits"][each] != full.counts["audits"][each]}
    assert wrong == (set() if is_header_right else audits.keys())


def _newcomer(like: Record, clever_id: str) -> Record:
    """Another person or section with the same values, but for a username and a SIS id that nobody has."""
    other = {"credentials": {"district_username": f"{clever_id} new"}, "sis_id": f"{clever_id} new"}
    roles = {
        name: {**role, **{each: value for each, value in other.items() if each in role}} for name, role in like.get("roles", {}).items()
    }
    return {**like, "id": clever_id, **({"roles": roles} if roles else {})}
