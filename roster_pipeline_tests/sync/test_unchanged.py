"""Unchanged districts: when a sync repeats the result of the last one, and that any change of its inputs leads to a new plan.

Does not belong here: which tables and parameters a plan has (`test_unchanged_inputs.py`), and single seen records (`test_restore.py`).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import URL, Connection

from roster_pipeline.database.migrate import known_tables
from roster_pipeline.database.runner import Step
from roster_pipeline.districts.agreement import Agreement, record_agreement, set_status
from roster_pipeline.errors import PermanentError
from roster_pipeline.fleet.retention import prune_history
from roster_pipeline.sync import run, unchanged
from roster_pipeline.sync.run import SyncReport
from roster_pipeline.sync.unchanged import find_last_state
from roster_pipeline_tests.reference.driver import SETTINGS, LiveDistrict, leaves_unchanged, recorded
from roster_pipeline_tests.sync.clever import clever, school, section, student, teacher
from roster_pipeline_tests.sync.copies import Copies, copies_of
from roster_pipeline_tests.sync.rows import active, new_school, new_user, user
from roster_pipeline_tests.sync.test_unchanged_inputs import covered

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
    """Districts whose last sync made a full plan and had nothing to write. Some of their rows were made by hand before."""

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
    """Whether the sync made no plan. Its counts have to agree with its steps."""
    was_planned = any(step.name.startswith(("reconcile.", "app.", "audits.")) for step in report.steps)
    assert was_planned == ("settled_since" not in report.counts)
    return not was_planned


def recorded_states(district: LiveDistrict) -> list[tuple[int, int]]:
    rows = district.execute("select sync_id, since_sync_id from ops.settled where district_id = :district")
    return [(row["sync_id"], row["since_sync_id"]) for row in rows]


def is_unchanged_after(district: LiveDistrict, *writes: str | Callable[[Connection], object]) -> bool:
    """Whether the next sync of the same snapshot would make no plan after these writes in one transaction. They are rolled back."""
    ours = {"district": district.district_id}
    with district.database.engine.connect() as connection:
        for write in writes:
            connection.execute(sa.text(write), ours) if isinstance(write, str) else write(connection)
        snapshot = connection.execute(sa.text("select snapshot from ops.settled where district_id = :district"), ours).scalar_one()
        found = find_last_state(connection, ours["district"])
        connection.rollback()
    return found is not None and found.is_repeated_by(snapshot)


def test_a_result_is_repeated(quiet: LiveDistrict) -> None:
    """R7.2: the same status, counts and quarantine, and no row of `app`. The counts name the sync with the last full plan."""
    ((compared, _),) = recorded_states(quiet)
    query = "select status, message, counts from ops.syncs where sync_id = :sync"
    (last,) = quiet.execute(query, sync=compared)
    found = quiet.quarantine(compared)
    assert {each[1] for each in found} == {"warned", "refused"}
    for _ in range(2):
        with leaves_unchanged(quiet):
            report = quiet.sync(SNAPSHOT)
        assert is_repeated(report)
        assert (report.status, report.message) == ("successful", last["message"]) == (last["status"], last["message"])
        assert report.message.startswith("No changes.")
        assert report.counts == {**last["counts"], "settled_since": compared, "pull": report.counts["pull"]}
        assert {**report.counts["pull"], "known": 0} == {**last["counts"]["pull"], "known": 0}
        (row,) = quiet.execute(query, sync=report.sync_id)
        assert (row["status"], row["message"], row["counts"]) == (report.status, report.message, report.counts)
        assert quiet.quarantine(report.sync_id) == found
        assert list(quiet.changes(report.sync_id)) == []
        assert recorded_states(quiet) == [(report.sync_id, compared)]


def test_a_repeated_result_accepts_the_newer_snapshot(quiet: LiveDistrict) -> None:
    """R11.6: the time of the last snapshot is that of the newer pull."""
    pulled_at = "select pulled_at from staging.districts where district_id = :district"
    before = quiet.execute(pulled_at)[0]["pulled_at"]
    assert is_repeated(quiet.sync(SNAPSHOT))
    assert quiet.execute(pulled_at)[0]["pulled_at"] == quiet.clock.now == before + timedelta(minutes=1)


def test_retention_does_not_disturb(quiet: LiveDistrict) -> None:
    """Retention never removes the last applied sync, whose result is repeated. It may remove the sync with the full plan."""
    ((compared, _),) = recorded_states(quiet)
    for _ in range(2):
        last = quiet.sync(SNAPSHOT)
        assert is_repeated(last)
        prune_history(quiet.database, keep_syncs_days=1, keep_changes_days=1, now=quiet.clock.now + timedelta(days=99))
        left = [row["sync_id"] for row in quiet.execute("select sync_id from ops.syncs order by sync_id")]
        assert (left[-1], compared in left) == (last.sync_id, False)
        assert recorded_states(quiet) == [(last.sync_id, compared)]
        assert quiet.quarantine(last.sync_id)
    for table in ("alert_deliveries", "alerts", "quarantine", "syncs"):
        quiet.execute(f"delete from ops.{table}")
    assert recorded_states(quiet) == []
    assert not is_repeated(quiet.sync(SNAPSHOT))


def test_a_failed_sync_in_between_changes_nothing(quiet: LiveDistrict) -> None:
    """R3.2: neither the recorded state nor the data."""
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
    removed = f"delete from app.{table} where district_id = :district and {row} returning *"
    return f"with removed as ({removed}) insert into app.{table} ({columns}) select {columns} from removed"


def _written(table: str, row: str = "true") -> str:
    return f"update app.{table} set district_id = district_id where district_id = :district and {row}"


WRITES: dict[str, tuple[str | Callable[[Connection], object], ...]] = {
    **{f"{table}: a row is written": (_written(table, row),) for table, row in A_ROW.items()},
    **{f"{table}: every row is written": (_written(table),) for table in (*A_ROW, "districts")},
    **{f"{table}: a row is deleted": (f"delete from app.{table} where district_id = :district and {row}",) for table, row in A_ROW.items()},
    **{f"{table}: a row is inserted": (f"insert into app.{table} {row}",) for table, row in NEW_ROW.items()},
    **{f"{table}: a row is deleted and inserted again": (_again(table, row),) for table, row in A_ROW.items()},
    "two rows that were written together are written together": (_written("users", "clever_id in ('p1', 'p2')"),),
    "one row is inserted and another deleted": (
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
    """R7.2: any write to a row that a plan may read, also if the values are the same."""
    assert is_unchanged_after(quiet)
    assert [name for name, writes in WRITES.items() if is_unchanged_after(quiet, *writes)] == []
    assert {name.partition(":")[0] for name in WRITES if ":" in name} == {each.removeprefix("app.") for each in covered()}
    assert is_unchanged_after(quiet)


def test_a_write_that_began_long_ago_is_noticed(quiet: LiveDistrict) -> None:
    """Its transaction is older than the newest row of the table, and commits after the state was recorded."""
    with quiet.database.engine.connect() as slow:
        slow.exec_driver_sql("select pg_current_xact_id()")
        newer = clever(*RECORDS, student("p9", "new"))
        assert [is_repeated(quiet.sync(newer)) for _ in range(2)] == [False, False]
        assert is_unchanged_after(quiet)
        slow.exec_driver_sql("update app.users set first_name = 'Wrong' where clever_id = 'p1'")
        slow.commit()
    assert not is_unchanged_after(quiet)


def test_every_change_of_the_agreement_is_noticed(quiet: LiveDistrict) -> None:
    """SPEC 2, R6.4, R9: also if the same agreement is recorded again, and if a district was paused in between."""
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

    assert [name for name, fields in changes.items() if is_unchanged_after(quiet, agree(fields))] == []
    assert not is_unchanged_after(
        quiet,
        lambda each: set_status(each, quiet.clever_id, "active", "paused"),
        lambda each: set_status(each, quiet.clever_id, "paused", "active"),
    )


def test_other_writes_make_no_difference(quiet: LiveDistrict) -> None:
    """Writes to rows of another district, and holds that are no longer pending."""
    neighbour = LiveDistrict.sign_up(quiet.database, schools=[("S1", None)])
    for _ in range(2):
        neighbour.sync(SNAPSHOT)
    theirs = [re.sub(":district", str(neighbour.district_id), _written(table)) for table in (*A_ROW, "districts")]
    assert is_unchanged_after(quiet, *theirs)
    assert is_unchanged_after(neighbour, *(re.sub(":district", str(quiet.district_id), _written(table)) for table in A_ROW))
    for status in ("superseded", "used", "expired"):
        (hold,) = WRITES["a hold is open"]
        assert is_unchanged_after(quiet, str(hold).replace("'open'", f"'{status}'"))
    assert is_repeated(quiet.sync(SNAPSHOT))


def test_a_change_by_hand_is_corrected(quiet: LiveDistrict) -> None:
    """R7.2: by the next sync, although nothing has changed at Clever. The second sync has nothing to write, and the third repeats that."""
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


def test_a_new_agreement_is_applied(quiet: LiveDistrict) -> None:
    """R6.4: by the next sync, although nothing has changed at Clever."""
    quiet.agree(grades=["4"])
    assert not is_repeated(quiet.sync(SNAPSHOT))
    assert active(quiet, "users") == {"p3", "warned"}


def test_an_agreement_that_changes_during_a_pull_is_applied(quiet: LiveDistrict) -> None:
    """R5.9: at the latest by the next sync. The result of a plan with the old rules is not repeated under the new ones."""

    def on_step(step: Step) -> None:
        if step.name == "clever.schools":
            quiet.agree(settings={"login_methods": ["clever"]})

    now = quiet.clock.tick()
    source = recorded(SNAPSHOT, page_size=100)
    request = run.SyncRequest(quiet.clever_id)
    run.run_sync(quiet.database, SETTINGS, request, open_source=source, on_step=on_step, clock=lambda _: now)
    quiet.sync(SNAPSHOT)
    assert user(quiet, "p1")["login_methods"] == ["clever"]


def test_what_changes_at_clever_is_noticed(quiet: LiveDistrict) -> None:
    """Also if it makes no difference, like the order of records and pages; and also a change back."""
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
    without = quiet.sync(clever(*[each for each in RECORDS if each["id"] != "p2"]))
    assert (is_repeated(without), "p2" in active(quiet, "users")) == (False, False)


def test_another_release_makes_a_new_plan(quiet: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have other rules."""
    monkeypatch.setattr(unchanged, "code_digest", lambda: "another release")
    assert [is_repeated(quiet.sync(SNAPSHOT)) for _ in range(2)] == [False, True]


# Districts that never count as unchanged --------------------------------------------------------------------------------------------------


def test_a_result_with_something_to_write_is_not_repeated(district: LiveDistrict) -> None:
    """R7.2: the next sync has to check that nothing is left to do."""
    district.sync(SNAPSHOT)
    assert recorded_states(district) == []
    for snapshot in (SNAPSHOT, clever(*RECORDS, student("p9", "new"))):
        assert [is_repeated(district.sync(snapshot)) for _ in range(3)] == [False, snapshot is SNAPSHOT, True]


def test_a_district_with_a_hold_is_planned_every_time(district: LiveDistrict) -> None:
    """R7.5: whether the hold is open, rejected or approved. An approved hold is released by the next sync."""
    district.agree(settings={"brakes": {"role_floor": 0, "role_share": 0}})
    district.sync(SNAPSHOT)
    assert not is_repeated(district.sync(SNAPSHOT))
    less = clever(*[each for each in RECORDS if each["id"] != "p2"])

    def sync() -> tuple[str, bool, int]:
        report = district.sync(less)
        return report.status, is_repeated(report), len(recorded_states(district))

    assert [sync(), sync()] == [("held", False, 0)] * 2
    (hold_id,) = district.holds()
    district.reject(hold_id)
    assert [sync(), sync()] == [("held", False, 0)] * 2
    district.approve(hold_id)
    assert sync() == ("successful", False, 0)
    assert "p2" not in active(district, "users")
    assert [sync(), sync()] == [("successful", False, 1), ("successful", True, 1)]


def test_the_second_sync_does_not_repeat_an_empty_first_one(district: LiveDistrict) -> None:
    """R7.3: nothing is repeated of a sync that was held, though it had nothing to write."""
    made = new_school(district, "S1", clever_id="s1", source="clever")
    eva = new_user(district, "eva", role=None, clever_id="p1", source="clever")
    district.execute(
        "insert into app.user_roles (user_id, role, school_id, source) values (:user, 'teacher', :school, 'clever')", user=eva, school=made
    )
    snapshot = clever(student("p1", "eva", name=" Li"))
    first, second = district.sync(snapshot), district.sync(snapshot)
    assert (first.status, first.counts["changes"]) == ("held", {})
    assert (second.status, [each["kind"] for each in second.counts["held"]]) == ("held", ["empty_collection"])
