"""Districts in which nothing has changed: when a sync repeats the last answer, and that anything the answer was made from makes a new plan.

Does not belong here: single records that are known again (`test_restore.py`).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import sqlglot
from sqlalchemy import URL, Connection
from sqlglot import exp

from roster_pipeline.database.migrate import known_tables
from roster_pipeline.database.runner import Step
from roster_pipeline.districts.agreement import Agreement, record_agreement, set_status
from roster_pipeline.errors import PermanentError, TransientError
from roster_pipeline.fleet.retention import prune_history
from roster_pipeline.sync import run, unchanged
from roster_pipeline.sync.plan import DECIDED
from roster_pipeline.sync.run import SyncReport, project_models
from roster_pipeline.sync.unchanged import find_settled
from roster_pipeline_tests.reference.driver import SETTINGS, LiveDistrict, recorded, untouched
from roster_pipeline_tests.sync.clever import clever, school, section, student, teacher
from roster_pipeline_tests.sync.copies import Copies, copies_of
from roster_pipeline_tests.sync.rows import active, new_school, new_user, user

RECORDS = [
    school("s1"),
    school("s2"),
    section("c1", ["p1", "p2"], ["p3"]),
    section("c2", at="s2"),
    student("p1", "ann"),
    student("p2", "ben"),
    teacher("p3", "eva"),
    student("warned", "cy", grade="fourth"),
    student("refused", "dee", name=" Li"),
]
SNAPSHOT = clever(*RECORDS)


@pytest.fixture(scope="module")
def quiet_districts(database_server: URL, migrated_template: str) -> Iterator[Copies]:
    """Districts whose last sync compared everything and had nothing to write. Some of their rows were made by hand, long ago."""

    def live(district: LiveDistrict) -> None:
        new_school(district, "by hand")
        new_user(district, "by hand", role=None)
        district.agree(schools=[("S1", None), ("S2", 9)])
        assert not is_repeated(district.sync(SNAPSHOT))
        assert not is_repeated(district.sync(SNAPSHOT))

    with copies_of(database_server, migrated_template, live) as copies:
        yield copies


@pytest.fixture
def quiet(quiet_districts: Copies) -> Iterator[LiveDistrict]:
    with quiet_districts() as district:
        yield district


def is_repeated(report: SyncReport) -> bool:
    """Whether the sync made no plan. One way or the other, what it tells has to agree with what it did."""
    was_planned = any(step.name.startswith(("reconcile.", "app.", "audits.")) for step in report.steps)
    assert was_planned == ("settled_since" not in report.counts)
    return not was_planned


def settled_rows(district: LiveDistrict) -> list[tuple[int, int]]:
    rows = district.execute("select sync_id, since_sync_id from ops.settled where district_id = :district")
    return [(row["sync_id"], row["since_sync_id"]) for row in rows]


def is_settled_after(district: LiveDistrict, *acts: str | Callable[[Connection], object]) -> bool:
    """Whether the next sync of the same snapshot would repeat the answer if somebody had done this, in one transaction. It is undone."""
    ours = {"district": district.district_id}
    with district.database.engine.connect() as connection:
        for act in acts:
            connection.execute(sa.text(act), ours) if isinstance(act, str) else act(connection)
        snapshot = connection.execute(sa.text("select snapshot from ops.settled where district_id = :district"), ours).scalar_one()
        found = find_settled(connection, ours["district"])
        connection.rollback()
    return found is not None and found.answers(snapshot)


def test_an_answer_is_repeated(quiet: LiveDistrict) -> None:
    """R7.2: the same status, counts and quarantine, and no row of `app`; since when is told. Repeated as often as one likes."""
    ((compared, _),) = settled_rows(quiet)
    asked = "select status, message, counts from ops.syncs where sync_id = :sync"
    (last,) = quiet.execute(asked, sync=compared)
    found = quiet.quarantine(compared)
    assert {each[1] for each in found} == {"warned", "refused"}
    for _ in range(2):
        with untouched(quiet):
            report = quiet.sync(SNAPSHOT)
        assert is_repeated(report)
        assert (report.status, report.message) == ("successful", "Nothing had changed.") == (last["status"], last["message"])
        assert report.counts == {**last["counts"], "settled_since": compared, "pull": report.counts["pull"]}
        assert {**report.counts["pull"], "known": 0} == {**last["counts"]["pull"], "known": 0}
        (row,) = quiet.execute(asked, sync=report.sync_id)
        assert (row["status"], row["message"], row["counts"]) == (report.status, report.message, report.counts)
        assert quiet.quarantine(report.sync_id) == found
        assert list(quiet.changes(report.sync_id)) == []
        assert settled_rows(quiet) == [(report.sync_id, compared)]


def test_a_repeated_answer_is_a_newer_snapshot(quiet: LiveDistrict) -> None:
    """R11.6: it has been accepted: what was pulled before it is not applied any more."""
    pulled_at = "select pulled_at from staging.districts where district_id = :district"
    before = quiet.execute(pulled_at)[0]["pulled_at"]
    assert is_repeated(quiet.sync(SNAPSHOT))
    assert quiet.execute(pulled_at)[0]["pulled_at"] == quiet.clock.now == before + timedelta(minutes=1)
    quiet.clock.now -= timedelta(minutes=1, seconds=30)
    with pytest.raises(TransientError, match=r"R11\.6"):
        quiet.sync(clever(*RECORDS, student("p9", "new")))


def test_what_retention_removes_is_not_missed(quiet: LiveDistrict) -> None:
    """The sync whose answer is repeated is the last applied one, which stays; the one that compared everything may go."""
    ((compared, _),) = settled_rows(quiet)
    for _ in range(2):
        last = quiet.sync(SNAPSHOT)
        assert is_repeated(last)
        prune_history(quiet.database, keep_syncs_days=1, keep_changes_days=1, now=quiet.clock.now + timedelta(days=99))
        left = [row["sync_id"] for row in quiet.execute("select sync_id from ops.syncs order by sync_id")]
        assert (left[-1], compared in left) == (last.sync_id, False)
        assert settled_rows(quiet) == [(last.sync_id, compared)]
        assert quiet.quarantine(last.sync_id)
    for table in ("alert_deliveries", "alerts", "quarantine", "syncs"):
        quiet.execute(f"delete from ops.{table}")
    assert settled_rows(quiet) == []
    assert not is_repeated(quiet.sync(SNAPSHOT))


def test_a_sync_that_fails_in_between_changes_nothing(quiet: LiveDistrict) -> None:
    """R3.2: neither what is remembered nor what it is compared with."""
    with pytest.raises(PermanentError):
        quiet.sync(clever(*({"id": f"p{each}", "name": 5, "roles": {"student": {}}} for each in range(9))))
    assert is_repeated(quiet.sync(SNAPSHOT))


# What makes a new plan --------------------------------------------------------------------------------------------------------------------

# A row of each table that nothing else refers to.
A_ROW = {
    "agreed_schools": "name = 'S2'",
    "schools": "name = 'by hand'",
    "classrooms": "clever_id = 'c2'",
    "users": "username = 'by hand'",
    "user_roles": "role = 'teacher'",
    "enrollments": "role = 'teacher'",
}
NEW_ROW = {
    "agreed_schools": "(district_id, name) values (:district, 'new')",
    "schools": "(district_id, name) values (:district, 'new')",
    "classrooms": "(district_id, name) values (:district, 'new')",
    "users": "(district_id, username) values (:district, 'new')",
    "user_roles": "(user_id, role) select user_id, 'district_admin' from app.users where district_id = :district limit 1",
    "enrollments": "(classroom_id, user_id, role) select classroom_id, user_id, 'student' from app.classrooms, app.users"
    " where classrooms.clever_id = 'c2' and users.clever_id = 'p1'",
}


def _again(table: str, row: str) -> str:
    columns = ", ".join(each for each in known_tables()[f"app.{table}"] if each != "username_key")  # which is generated
    gone = f"delete from app.{table} where district_id = :district and {row} returning *"
    return f"with gone as ({gone}) insert into app.{table} ({columns}) select {columns} from gone"


def _written(table: str, row: str = "true") -> str:
    return f"update app.{table} set district_id = district_id where district_id = :district and {row}"


WRITES: dict[str, tuple[str | Callable[[Connection], object], ...]] = {
    **{f"{table}: a row is written": (_written(table, row),) for table, row in A_ROW.items()},
    **{f"{table}: every row is written": (_written(table),) for table in (*A_ROW, "districts")},
    **{f"{table}: a row goes": (f"delete from app.{table} where district_id = :district and {row}",) for table, row in A_ROW.items()},
    **{f"{table}: a row comes": (f"insert into app.{table} {row}",) for table, row in NEW_ROW.items()},
    **{f"{table}: a row goes and comes": (_again(table, row),) for table, row in A_ROW.items()},
    "two rows that were written together are written together": (_written("users", "clever_id in ('p1', 'p2')"),),
    "one row comes and another goes": (
        f"insert into app.users {NEW_ROW['users']}",
        f"delete from app.users where district_id = :district and {A_ROW['users']}",
    ),
    **{
        f"a hold is {status}": (
            "insert into ops.holds (sync_id, district_id, kind, plan_hash, status)"
            f" select sync_id, district_id, 'relinks', 'x', '{status}' from ops.settled where district_id = :district",
        )
        for status in ("open", "approved", "rejected")
    },
}


def test_every_write_is_noticed(quiet: LiveDistrict) -> None:
    """R7.2: whatever somebody did to a row that a plan may read; also with the values it had."""
    assert is_settled_after(quiet)
    assert [name for name, acts in WRITES.items() if is_settled_after(quiet, *acts)] == []
    assert {name.partition(":")[0] for name in WRITES if ":" in name} == {each.removeprefix("app.") for each in covered()}
    assert is_settled_after(quiet)


def test_a_write_that_began_long_ago_is_noticed(quiet: LiveDistrict) -> None:
    """By a transaction that is older than the newest row of the table, and ends after the district has settled."""
    with quiet.database.engine.connect() as slow:
        slow.exec_driver_sql("select pg_current_xact_id()")
        newer = clever(*RECORDS, student("p9", "new"))
        assert [is_repeated(quiet.sync(newer)) for _ in range(2)] == [False, False]
        assert is_settled_after(quiet)
        slow.exec_driver_sql("update app.users set first_name = 'Wrong' where clever_id = 'p1'")
        slow.commit()
    assert not is_settled_after(quiet)


def test_every_change_of_the_agreement_is_noticed(quiet: LiveDistrict) -> None:
    """SPEC 2, R6.4, R9: recorded anew, also with what is recorded already; and a district that was paused in between."""
    changes: dict[str, dict[str, Any]] = {
        "settings": {"settings": {"brakes": {"role_floor": 1}}},
        "licenses": {"licenses": 3},
        "policy": {"over_license_policy": "wait"},
        "grades": {"grades": ["4"]},
        "schools": {"schools": [("S1", None)]},
        "nothing": {},
    }

    def agree(fields: Mapping[str, Any]) -> Callable[[Connection], object]:
        agreement = Agreement(quiet.clever_id, "District", "typing_agent", "d.example", **fields)
        return lambda connection: record_agreement(connection, agreement)

    assert [name for name, fields in changes.items() if is_settled_after(quiet, agree(fields))] == []
    assert not is_settled_after(
        quiet,
        lambda each: set_status(each, quiet.clever_id, "active", "paused"),
        lambda each: set_status(each, quiet.clever_id, "paused", "active"),
    )


def test_other_writes_are_not(quiet: LiveDistrict) -> None:
    """What another district's plan is made from, and holds that wait for nothing any more."""
    neighbour = LiveDistrict.sign_up(quiet.database, schools=[("S1", None)])
    for _ in range(2):
        neighbour.sync(SNAPSHOT)
    theirs = [re.sub(":district", str(neighbour.district_id), _written(table)) for table in (*A_ROW, "districts")]
    assert is_settled_after(quiet, *theirs)
    assert is_settled_after(neighbour, *(re.sub(":district", str(quiet.district_id), _written(table)) for table in A_ROW))
    for status in ("superseded", "used", "expired"):
        (hold,) = WRITES["a hold is open"]
        assert is_settled_after(quiet, str(hold).replace("'open'", f"'{status}'"))
    assert is_repeated(quiet.sync(SNAPSHOT))


def test_what_was_changed_by_hand_is_set_right(quiet: LiveDistrict) -> None:
    """R7.2: by the next sync, though nothing has changed at Clever; the one after that settles, and the next repeats."""
    by_hand = {
        "schools": "name = 'Wrong' where clever_id = 's1'",
        "classrooms": "name = 'Wrong' where clever_id = 'c1'",
        "users": "first_name = 'Wrong' where clever_id = 'p1'",
        "user_roles": "deleted_at = now() where role = 'teacher'",
        "enrollments": "deleted_at = now() where role = 'student'",
    }
    right = quiet.state()
    for table, change in by_hand.items():
        quiet.execute(f"update app.{table} set {change} and district_id = :district")
    assert quiet.state() != right
    report = quiet.sync(SNAPSHOT)
    assert (is_repeated(report), report.counts["changes"].keys()) == (False, by_hand.keys())
    assert quiet.state() == right
    assert [is_repeated(quiet.sync(SNAPSHOT)) for _ in range(2)] == [False, True]


def test_a_new_agreement_is_carried_out(quiet: LiveDistrict) -> None:
    """R6.4: by the next sync, though nothing has changed at Clever."""
    quiet.agree(grades=["4"])
    assert not is_repeated(quiet.sync(SNAPSHOT))
    assert active(quiet, "users") == {"p3", "warned"}


def test_an_agreement_that_changes_during_a_pull_is_carried_out(quiet: LiveDistrict) -> None:
    """R5.9: at the latest by the next sync. A plan that was made by the old rules is no answer under the new ones."""

    def on_step(step: Step) -> None:
        if step.name == "clever.schools":
            quiet.agree(settings={"login_methods": ["clever"]})

    now = quiet.clock.tick()
    source = recorded(SNAPSHOT, page_size=100)
    request = run.SyncRequest(quiet.clever_id)
    run.run_sync(quiet.database, SETTINGS, request, open_source=source, on_step=on_step, clock=lambda: now)
    quiet.sync(SNAPSHOT)
    assert user(quiet, "p1")["login_methods"] == ["clever"]


def test_what_changes_at_clever_is_noticed(quiet: LiveDistrict) -> None:
    """Also where it makes no difference, such as the order of records and pages; and when it is as before, that is a change too."""
    unlike = {
        "order": clever(*reversed(RECORDS)),
        "back again": SNAPSHOT,
        "one more, of no use": clever(*RECORDS, student("x", "x", district="another")),
        "twice": clever(*RECORDS, RECORDS[-4]),
    }
    for name, snapshot in unlike.items():
        report = quiet.sync(snapshot)
        assert (name, is_repeated(report), report.counts["changes"]) == (name, False, {})
    assert is_repeated(quiet.sync(unlike["twice"]))
    assert not is_repeated(quiet.sync(unlike["twice"], page_size=2))
    assert is_repeated(quiet.sync(unlike["twice"], page_size=2))
    changed = quiet.sync(clever(*RECORDS[:-2], student("warned", "cy", grade="4"), RECORDS[-1]))
    assert (is_repeated(changed), changed.counts["changes"]) == (False, {"users": {"update": 1}})
    gone = quiet.sync(clever(*[each for each in RECORDS if each["id"] != "p2"]))
    assert (is_repeated(gone), "p2" in active(quiet, "users")) == (False, False)


def test_another_release_asks_anew(quiet: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rules may be others."""
    monkeypatch.setattr(unchanged, "code_digest", lambda: "another release")
    assert [is_repeated(quiet.sync(SNAPSHOT)) for _ in range(2)] == [False, True]


# Who is not settled -----------------------------------------------------------------------------------------------------------------------


def test_an_answer_with_something_to_write_is_not_repeated(district: LiveDistrict) -> None:
    """R7.2: that nothing is left to do after it, the next sync has to find out."""
    district.sync(SNAPSHOT)
    assert settled_rows(district) == []
    for snapshot in (SNAPSHOT, clever(*RECORDS, student("p9", "new"))):
        assert [is_repeated(district.sync(snapshot)) for _ in range(3)] == [False, snapshot is SNAPSHOT, True]


def test_a_district_with_a_hold_is_planned_every_time(district: LiveDistrict) -> None:
    """R7.5: whether it waits, is refused, or is approved until some day; and it is carried out as soon as it may be."""
    district.agree(settings={"brakes": {"role_floor": 0, "role_share": 0}})
    district.sync(SNAPSHOT)
    assert not is_repeated(district.sync(SNAPSHOT))
    less = clever(*[each for each in RECORDS if each["id"] != "p2"])

    def sync() -> tuple[str, bool, int]:
        report = district.sync(less)
        return report.status, is_repeated(report), len(settled_rows(district))

    assert [sync(), sync()] == [("held", False, 0)] * 2
    (hold_id,) = district.holds()
    district.reject(hold_id)
    assert [sync(), sync()] == [("held", False, 0)] * 2
    district.approve(hold_id)
    assert sync() == ("successful", False, 0)
    assert "p2" not in active(district, "users")
    assert [sync(), sync()] == [("successful", False, 1), ("successful", True, 1)]


def test_an_empty_first_sync_is_not_the_answer_of_the_second(district: LiveDistrict) -> None:
    """R7.3, R7.6: a first sync has no brake but one. What it had nothing to write for, the second one may have to hold."""
    made = new_school(district, "S1", clever_id="s1", source="clever")
    eva = new_user(district, "eva", role=None, clever_id="p1", source="clever")
    district.execute(
        "insert into app.user_roles (user_id, role, school_id, source) values (:user, 'teacher', :school, 'clever')", user=eva, school=made
    )
    snapshot = clever(student("p1", "eva", name=" Li"))
    first, second = district.sync(snapshot), district.sync(snapshot)
    assert (first.status, first.counts["changes"]) == ("successful", {})
    assert (second.status, [each["kind"] for each in second.counts["held"]]) == ("held", ["empty_collection"])


# What the fingerprint has to cover --------------------------------------------------------------------------------------------------------

# Of the lasting tables that decide a plan, those that `unchanged.sql` leaves out, and why it may.
ASKED_APART = {"ops.holds"}  # with a pending one no district is settled, and no other is ever asked for

# What models may name beside tables.
PARAMETERS = {
    "district_id": "the same row of ops.settled",
    "student_multi_school": "from the row of app.districts, and from profiles.py, which is in the digest of the code",
    "student_email": "as above",
    "login_methods": "as above",
    "is_first": "a first sync settles nothing",
    "synced_at": "goes into rows that are written, and there is none",
}


def covered() -> set[str]:
    """The lasting tables of which `unchanged.sql` reads every row version."""
    tree = sqlglot.parse_one(str(unchanged._STATE), dialect="postgres")
    return {f"{each.db}.{each.name}" for each in tree.find_all(exp.Table) if each.db}


def test_the_fingerprint_covers_every_table_that_a_plan_is_made_from() -> None:
    """A model that reads another lasting table has to be answered for: in unchanged.sql, or above with the reason."""
    deciding = project_models().of("staging", "reconcile", "audits")
    # What this sync makes itself: `runner.localize` turns every one of these names into a table of its own.
    made = {f"clever.{each}" for each in ("schools", "terms", "courses", "sections", "users", "districts", "findings")}
    made |= {model.name for model in deciding} | set(DECIDED)
    lasting = {table for model in deciding for table in model.reads} - made
    assert lasting - covered() - ASKED_APART == set()
    assert covered() - lasting == set()


def test_a_plan_depends_on_nothing_else_that_could_change() -> None:
    """Neither on other parameters nor on the time or on chance."""
    named: set[str] = set()
    for model in project_models().of("staging", "reconcile", "audits"):
        code = re.sub(r"--.*", "", model.sql)
        named |= set(re.findall(r"(?<!:):(\w+)", code))
        assert not re.search(r"\b(now|random|clock_timestamp|statement_timestamp|gen_random_uuid|current_\w+|localtime\w*)\b", code), (
            model.name
        )
    assert named == PARAMETERS.keys()


def test_a_release_is_every_file_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no rule can change unnoticed: Python, the models, and unchanged.sql and the migrations, where functions are defined."""

    def digest_with(changed: str | None) -> str:
        monkeypatch.setattr(Path, "read_bytes", lambda path: b"new" if path.name == changed else path.name.encode())
        return unchanged.code_digest.__wrapped__()

    assert len({digest_with(each) for each in (None, "brakes.py", "people.sql", "unchanged.sql", "0001_foundation.sql")}) == 5
