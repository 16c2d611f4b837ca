"""Retention: what is removed, when, and what always stays. The rows are like those that syncs, decisions and alerts write."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from roster_pipeline.commands.explain import _difference
from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.database.migrate import known_tables
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.fleet import retention
from roster_pipeline.fleet.retention import clear_departed, prune_history
from roster_pipeline.support.explain import explain_person
from roster_pipeline.support.explanation import Explanation
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, section, student

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOTHING = dict.fromkeys(("changes_emptied", "alerts", "holds", "syncs", "changes", "quarantine"), 0)

Query = Callable[..., list[Any]]


@pytest.fixture
def query(database: Database) -> Query:
    """Runs a statement and returns its rows; those of a single column as plain values. There are districts 1 and 2."""

    def rows(statement: str, **values: object) -> list[Any]:
        with database.engine.begin() as connection:
            result = connection.execute(sa.text(statement), values)
            found = [tuple(row) for row in result] if result.returns_rows else []
            return [row[0] for row in found] if found and len(found[0]) == 1 else found

    rows("insert into app.districts (clever_id, name) values ('d1', 'D1'), ('d2', 'D2')")
    return rows


def sync(query: Query, days_ago: float, status: str = "successful", *, district: int | None = 1) -> int:
    """A sync that ended (or was requested) so many days ago, with one row of history and one of quarantine."""
    moment = NOW - timedelta(days=days_ago)
    ended = None if status in ("queued", "processing") else moment
    [sync_id] = query(
        "insert into ops.syncs (district_id, status, requested_at, finished_at) values (:d, :status, :moment, :ended) returning sync_id",
        d=district,
        status=status,
        moment=moment,
        ended=ended,
    )
    if district is not None:
        change(query, sync_id, days_ago, district=district)
        query("insert into ops.quarantine values (:sync, :d, 'users', 'x', 'first_name_missing', 'error')", sync=sync_id, d=district)
    return int(sync_id)


def change(query: Query, sync_id: int, days_ago: float, *, district: int = 1) -> None:
    query(
        "insert into ops.changes (sync_id, district_id, entity, entity_id, user_id, action, before, after, changed_at)"
        """ values (:sync, :d, 'users', '7', 7, 'update', '{"first_name": "Ana"}', '{"first_name": "Eva"}', :moment)""",
        sync=sync_id,
        d=district,
        moment=NOW - timedelta(days=days_ago),
    )


def hold(query: Query, sync_id: int, status: str, days_ago: float, *, decided_days_ago: float | None = None) -> int:
    [hold_id] = query(
        "insert into ops.holds (sync_id, district_id, kind, plan_hash, status, created_at, decided_at)"
        " values (:sync, 1, 'relinks', 'h', :status, :moment, :decided) returning hold_id",
        sync=sync_id,
        status=status,
        moment=NOW - timedelta(days=days_ago),
        decided=None if decided_days_ago is None else NOW - timedelta(days=decided_days_ago),
    )
    return int(hold_id)


def alert(query: Query, event: str, closed_days_ago: float | None, *, sync_id: int | None = None) -> None:
    query(
        "insert into ops.alerts (event, kind, sync_id, created_at, closed_at) values (:event, 'sync_failed', :sync, :made, :closed)",
        event=event,
        sync=sync_id,
        made=NOW - timedelta(days=1000),
        closed=None if closed_days_ago is None else NOW - timedelta(days=closed_days_ago),
    )
    query("insert into ops.alert_deliveries (alert_id, receiver) select alert_id, 'r' from ops.alerts where event = :event", event=event)


def prune(database: Database, *, keep_syncs: int = 400, keep_changes: int = 90) -> dict[str, int]:
    return prune_history(database, keep_syncs_days=keep_syncs, keep_changes_days=keep_changes, now=NOW)


def done(**counts: int) -> dict[str, int]:
    return NOTHING | counts


def test_old_values_are_removed_and_the_rest_of_the_row_stays(database: Database, query: Query) -> None:
    """SPEC 12: `ops.changes` keeps old values for as long as it is configured; user, action and time stay."""
    old, young = sync(query, 91), sync(query, 89)
    assert prune(database) == done(changes_emptied=1)
    rows = query("select sync_id, entity, entity_id, user_id, action, before, after, changed_at from ops.changes order by sync_id")
    assert [row[:7] for row in rows] == [
        (old, "users", "7", 7, "update", None, None),
        (young, "users", "7", 7, "update", {"first_name": "Ana"}, {"first_name": "Eva"}),
    ]
    assert rows[0][7] == NOW - timedelta(days=91)
    assert prune(database) == NOTHING


def test_a_change_with_one_value_is_emptied_too(database: Database, query: Query) -> None:
    """A created row has no `before`."""
    sync_id = sync(query, 100)
    query("update ops.changes set before = null")
    change(query, sync_id, 100)
    query("update ops.changes set after = null where before is not null")
    assert prune(database) == done(changes_emptied=2)
    assert query("select count(*) from ops.changes where before is not null or after is not null") == [0]


def test_old_syncs_are_removed_with_their_history(database: Database, query: Query) -> None:
    """However they ended, and also without a district. Their quarantine is removed too."""
    for status in ("successful", "held", "failed", "skipped"):
        sync(query, 401, status)
    sync(query, 401, "failed", district=None)
    young, last = sync(query, 399), sync(query, 398)
    assert prune(database) == done(changes_emptied=6, syncs=5, changes=4, quarantine=4)
    for table in ("syncs", "changes", "quarantine"):
        assert query(f"select sync_id from ops.{table} order by 1") == [young, last]
    assert prune(database) == NOTHING


def test_old_changes_of_imports_are_removed_by_their_time(database: Database, query: Query) -> None:
    """R8.2: they belong to no sync. The act stays in ops.audit."""
    [act] = query("insert into ops.audit (act, principal) values ('import', 'os:tester') returning audit_id")
    for days_ago in (401, 399):
        query(
            "insert into ops.changes (audit_id, district_id, entity, entity_id, action, changed_at)"
            " values (:act, 1, 'users', '7', 'create', :moment)",
            act=act,
            moment=NOW - timedelta(days=days_ago),
        )
    assert prune(database) == done(changes=1)
    assert query("select changed_at from ops.changes") == [NOW - timedelta(days=399)]
    assert query("select count(*) from ops.audit") == [1]


def test_the_findings_of_the_last_applied_sync_stay(database: Database, query: Query) -> None:
    """R4.3: however old that sync is."""
    sync(query, 901)
    last = sync(query, 900)
    query("insert into ops.finding_records values (1, 'username_missing', 'users', 'x', 2)")
    query("insert into ops.audited values (1, :sync)", sync=last)
    assert prune(database)["syncs"] == 1
    assert query("select rule, sync_id from ops.findings") == [("username_missing", last)] * 2


def test_the_last_applied_sync_of_each_district_stays(database: Database, query: Query) -> None:
    """It stays with its quarantine and history, even if later syncs were not applied. Syncs of other districts do not count."""
    sync(query, 900)
    one = sync(query, 800, "held")
    other = sync(query, 700, district=2)
    sync(query, 600, "failed")
    sync(query, 500, "skipped")
    assert prune(database)["syncs"] == 3
    for table in ("syncs", "changes", "quarantine"):
        assert query(f"select sync_id from ops.{table} order by 1") == [one, other]


def test_syncs_that_have_not_ended_stay(database: Database, query: Query) -> None:
    """R11.3, R11.4: a request may wait for any time. Retention does not decide whether a sync in status processing has crashed."""
    waits = {sync(query, 900, "queued"), sync(query, 900, "processing")}
    sync(query, 1)
    assert prune(database) == done(changes_emptied=2)
    assert waits <= set(query("select sync_id from ops.syncs"))


@pytest.mark.parametrize("status", ["open", "approved", "rejected"])
def test_a_hold_that_waits_stays_with_its_sync(database: Database, query: Query, status: str) -> None:
    """R7.5: a rejected hold stays rejected for ever, unless its plan changes."""
    held = sync(query, 900, "held")
    waiting = hold(query, held, status, 900, decided_days_ago=899)
    last = sync(query, 1)
    assert prune(database) == done(changes_emptied=1)
    assert query("select hold_id from ops.holds") == [waiting]
    assert query("select sync_id from ops.syncs order by 1") == query("select sync_id from ops.quarantine order by 1") == [held, last]


@pytest.mark.parametrize("status", ["superseded", "used", "expired"])
def test_a_closed_hold_is_removed_and_then_its_sync(database: Database, query: Query, status: str) -> None:
    """Its age counts from the decision, if there was one."""
    removed, stays = sync(query, 900, "held"), sync(query, 900, "held")
    hold(query, removed, status, 900)
    hold(query, removed, status, 900, decided_days_ago=401)
    young = hold(query, stays, status, 900, decided_days_ago=399)
    last = sync(query, 1)
    assert prune(database) == done(changes_emptied=2, holds=2, syncs=1, changes=1, quarantine=1)
    assert query("select hold_id from ops.holds") == [young]
    assert query("select sync_id from ops.syncs order by 1") == [stays, last]


def test_closed_alerts_are_removed_and_open_ones_keep_their_sync(database: Database, query: Query) -> None:
    """R11.8: an alert that has not been delivered is never removed."""
    failed, unsent = sync(query, 900, "failed"), sync(query, 900, "failed")
    alert(query, "old", 401, sync_id=failed)
    alert(query, "old, of no sync", 401)
    alert(query, "young", 399)
    alert(query, "open", None, sync_id=unsent)
    assert prune(database) == done(changes_emptied=2, alerts=2, syncs=1, changes=1, quarantine=1)
    assert query("select event from ops.alerts order by 1") == ["open", "young"]
    assert query("select count(*) from ops.alert_deliveries") == [2]
    assert query("select sync_id from ops.syncs") == [unsent]


def test_every_batch_is_a_transaction_of_its_own(database: Database, query: Query, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work of a killed run stays done, and the next run does the rest."""
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    monkeypatch.setattr(retention, "BATCH_SYNCS", 2)
    for days_ago in range(905, 900, -1):
        sync_id = sync(query, days_ago)
        for _ in range(4):
            change(query, sync_id, days_ago)
        hold(query, sync_id, "used", days_ago)
        alert(query, f"alert {sync_id}", days_ago, sync_id=sync_id)
    last = sync(query, 1)
    with monkeypatch.context() as patch:
        patch.setattr(retention, "_remove_syncs", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            prune(database)
    assert query("select count(*) from ops.changes where before is not null") == [1]
    assert query("select count(*) from ops.syncs") == [6]
    assert prune(database) == done(syncs=5, changes=25, quarantine=5)
    assert query("select sync_id from ops.syncs") == query("select sync_id from ops.changes") == [last]


def _interrupted(*_: object) -> dict[str, int]:
    raise KeyboardInterrupt


def test_retention_does_not_affect_the_next_sync(database: Database, district: LiveDistrict) -> None:
    """R7.2, SPEC 2: the next sync writes nothing, and `roster explain` shows what is left of the history."""
    people = clever(student("u1", "ana", name="Ana Li"), student("u2", "bo"))
    district.sync(people)
    changed = clever(student("u1", "ana", name="Eva Li"), student("u2", "bo"))
    district.sync(changed)
    emptied = prune_history(database, keep_syncs_days=10, keep_changes_days=1, now=district.clock.now + timedelta(days=5))
    assert emptied["changes_emptied"] > 2
    with database.engine.connect() as connection:
        found = explain_person(connection, find_district(connection, district.clever_id), "u1")
    assert isinstance(found, Explanation)
    assert found.user is not None
    assert [(each.entity, each.action) for each in found.user.changes] == [
        ("users", "update"),
        ("users", "create"),
        ("user_roles", "role_gain"),
    ]
    assert {_difference(each) for each in found.user.changes} == {"(the values are not kept any more)"}

    removed = prune_history(database, keep_syncs_days=10, keep_changes_days=1, now=district.clock.now + timedelta(days=50))
    assert (removed["syncs"], removed["changes_emptied"]) == (1, 0)
    assert district.sync(changed).counts["changes"] == {}


def test_the_snapshot_of_a_departed_district_is_cleared(database: Database, district: LiveDistrict, twig: LiveDistrict) -> None:
    """R18.3: after so many days, its rows in staging and reconcile go, and nothing else. A connected district keeps them."""
    people = clever(student("u1", "ana"), student("u2", "bo"), section("c1", ["u1", "u2"]))
    for each in (district, twig):
        each.sync(people)
    kept = [name for name in known_tables() if name.startswith(("staging.", "reconcile."))]

    def stored(of: LiveDistrict) -> int:
        return sum(len(rows) for rows in of.kept(kept).values())

    def clear(days: float) -> dict[str, int]:
        return clear_departed(database, keep_disconnected_days=60, now=NOW + timedelta(days=days))

    disconnect(district)
    rows = stored(district)
    before = district.rows()
    assert clear(59) == {"departed_districts": 0, "rows_of_departed": 0}
    with district_lock_of(district):
        assert clear(61) == {"departed_districts": 0, "rows_of_departed": 0}
    done = clear(61)
    assert done["departed_districts"] == 1
    assert done["rows_of_departed"] >= rows > 10
    assert (stored(district), stored(twig) > 10) == (0, True)
    assert district.rows() == before
    (act,) = district.execute("select principal, facts from ops.audit where act = 'clear_departed'")
    assert act["principal"] == "schedule:retention"
    assert sum(act["facts"]["removed"].values()) == done["rows_of_departed"]
    assert clear(62) == {"departed_districts": 0, "rows_of_departed": 0}


def test_a_district_that_comes_back_after_it_syncs_right(database: Database, district: LiveDistrict) -> None:
    """R18.3, R7.1: every record is read again. Nobody who is shared is deleted or doubled, who is not is soft-deleted, and then nothing."""
    district.sync(clever(student("u1", "ana"), student("u2", "bo"), student("u3"), section("c1", ["u1", "u2", "u3"])))
    before = district.rows()
    disconnect(district)
    clear_departed(database, keep_disconnected_days=60, now=NOW + timedelta(days=100))
    district.execute("update app.districts set status = 'active' where district_id = :district")
    same = clever(student("u1", "ana"), student("u2", "bo"), student("u3"), section("c1", ["u1", "u2", "u3"]))
    report = district.sync(same)
    assert (report.status, report.counts["changes"]) == ("successful", {})
    assert district.rows() == before
    assert district.sync(same).counts["settled_since"] == report.sync_id
    left = district.sync(clever(student("u1", "ana"), student("u2", "bo"), section("c1", ["u1", "u2"])))
    assert left.counts["changes"]["users"] == {"soft_delete": 1}


def disconnect(district: LiveDistrict) -> None:
    """As a listing does it (R11.7), on the day of NOW."""
    district.execute("update app.districts set status = 'disconnected', updated_at = now() where district_id = :district")
    district.execute(
        "insert into ops.connections values (:clever_id, :district, '2026-01-01', :now, 'active')", clever_id=district.clever_id, now=NOW
    )


@contextmanager
def district_lock_of(district: LiveDistrict) -> Iterator[None]:
    """The lock of the district, held by another session."""
    with district.database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        with district_lock(connection, district.district_id, district.clever_id):
            yield
