"""R11.1-R11.8, R13.2: what `roster health` finds in the application's database and around it."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from roster_pipeline.alerts.delivery import receivers
from roster_pipeline.database import clock
from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.districts.nights import last_scheduled_at
from roster_pipeline.fleet.health import database_health
from roster_pipeline.fleet.surroundings import TIMES, disk_health
from roster_pipeline.settings import Settings
from roster_pipeline_tests.commands.conftest import environment, query
from roster_pipeline_tests.commands.test_cli_health import synced, unused_receiver

__all__ = ["environment", "query", "synced", "unused_receiver"]

Query = Callable[..., list[Any]]


def in_database(database: Database, now: datetime | None = None) -> dict[str, dict[str, Any]]:
    """The findings without those about Dagster, which takes seconds to set up."""
    with database.engine.connect() as session:
        connection = session.execution_options(isolation_level="AUTOCOMMIT")
        found = database_health(connection, Settings(), now=now or datetime.now(UTC))
    return {each.what: asdict(each) for each in found}


def test_a_night_that_is_not_complete(synced: str, query: Query, database: Database) -> None:
    """R11.1: a due district without a sync by morning is a problem. A failed sync is a warning. A district activated later is neither."""
    moment = last_scheduled_at("21:00", datetime.now(UTC))
    midnight, noon = moment + timedelta(hours=3), moment + timedelta(hours=15)
    query("update ops.syncs set started_at = :at, requested_at = :at", at=moment - timedelta(minutes=1))
    night = in_database(database, midnight)["night 21:00"]
    assert (night["verdict"], night["numbers"]["due"], night["numbers"]["ended"]) == ("ok", 1, 0)
    night = in_database(database, noon)["night 21:00"]
    assert (night["verdict"], night["numbers"]["missing"]) == ("problem", [synced])
    query("update app.districts set updated_at = :at, licenses = 7", at=moment + timedelta(minutes=1))
    assert in_database(database, noon)["night 21:00"]["numbers"]["due"] == 1  # A change of the agreement does not excuse the night.
    query("update ops.syncs set status = 'failed', started_at = :at", at=moment + timedelta(minutes=1))
    night = in_database(database, noon)["night 21:00"]
    assert (night["verdict"], night["numbers"]["failed"], night["numbers"]["missing"]) == ("warning", [synced], [])
    query("update app.districts set active_since = :at", at=moment + timedelta(minutes=1))
    assert in_database(database, noon)["night 21:00"]["numbers"]["due"] == 0


def test_a_silent_district(synced: str, query: Query, database: Database) -> None:
    """R11.8: no success for more than 26 hours."""
    query("update ops.syncs set finished_at = now() - interval '27 hours'")
    found = in_database(database)["freshness"]
    assert found["numbers"] == {"active": 1, "silent": [synced], "never_synced": []}
    assert "roster status" in found["do"]


@pytest.mark.parametrize(("seconds", "verdict"), [(10, "ok"), (60, "warning"), (400, "problem")])
def test_requests_that_wait(seconds: int, verdict: str, synced: str, query: Query, database: Database) -> None:
    """R11.3: a request should start within 30 seconds, unless a sync of the district is running."""
    query("insert into ops.syncs (district_id, requested_at) values (1, now() - make_interval(secs => :seconds))", seconds=seconds)
    assert in_database(database)["requests"]["verdict"] == verdict
    with database.engine.connect() as session, district_lock(session.execution_options(isolation_level="AUTOCOMMIT"), 1, synced):
        assert in_database(database)["requests"]["verdict"] == "ok"


def test_holds_and_crashes_are_warnings(synced: str, query: Query, database: Database) -> None:
    """R7.4, R11.4: people have to decide, but everything runs. Crashed syncs are marked as failed."""
    query("insert into ops.syncs (district_id, status, started_at) values (1, 'processing', now())")
    query("insert into ops.holds (sync_id, district_id, kind, plan_hash, status) values (1, 1, 'relinks', 'x', 'open')")
    found = in_database(database)
    assert (found["crashed syncs"]["verdict"], found["crashed syncs"]["numbers"]) == ("warning", {"marked_as_failed": 1})
    assert (found["holds"]["verdict"], found["holds"]["numbers"]["open"]) == ("warning", 1)
    assert query("select count(*) from ops.syncs where status = 'processing'") == [(0,)]


def test_alerts_that_reach_nobody(
    synced: str, query: Query, database: Database, unused_receiver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11.8: having no receiver is a warning, a receiver that refuses is a problem. It is named by position: its URL is a secret."""
    (receiver,) = receivers(Settings())
    failing = "insert into ops.alert_receivers (receiver, failures, next_attempt_at) values (:name, 3, now())"
    query(failing, name=receiver.name)
    assert in_database(database)["alerts"]["numbers"]["refusing"] == [1]
    monkeypatch.setenv("ROSTER_ALERT_URLS", "nothing://secret")
    found = in_database(database)["alerts"]
    assert found["numbers"]["unusable"] == [1]
    assert "secret" not in str(found)
    monkeypatch.delenv("ROSTER_ALERT_URLS")
    assert in_database(database)["alerts"]["verdict"] == "warning"


# --- "all of them" over an empty or shrunken set, and times without an upper bound ---


def test_the_lists_of_times_are_complete(database: Database) -> None:
    """R11.6: every time that the pipeline writes can be in the future. A new column is added to TIMES, or here with the reason."""
    others = {
        "ops.changes.changed_at": "as old as its sync, and the table is too large to read all of it",
        "ops.holds.expires_at": "meant to be in the future",
        "ops.alert_receivers.next_attempt_at": "meant to be in the future",
        "staging.districts.last_sync": "Clever's",
    }
    with database.engine.connect() as connection:
        rows = connection.execute(
            text(
                "select table_schema || '.' || table_name || '.' || column_name from information_schema.columns"
                " join information_schema.tables using (table_schema, table_name)"
                " where data_type = 'timestamp with time zone' and table_type = 'BASE TABLE'"
                " and (table_schema = 'ops' or table_name = 'districts')"
            )
        )
        assert set(rows.scalars()) == {f"{table}.{each}" for table, columns in TIMES.items() for each in columns} | set(others)


def test_nobody_is_active_any_more(synced: str, query: Query, database: Database) -> None:
    """R11.7: 0 of 0 is not well. A new installation without districts is."""
    query("update app.districts set status = 'disconnected'")
    query("insert into ops.connections values ('d1', 1, now() - interval '9 days', now() - interval '3 days')")
    found = in_database(database)["districts"]
    assert (found["verdict"], found["says"]) == (
        "problem",
        "No district is active, so none is synced: 1 disconnected. d1 disconnected for 3 days.",
    )
    assert in_database(database)["freshness"]["says"] == "No district is active whose start date has come."
    query("update app.districts set status = 'paused'")
    assert in_database(database)["districts"]["verdict"] == "problem"
    query("delete from ops.syncs")
    query("delete from ops.connections")
    query("delete from app.districts")
    assert in_database(database)["districts"]["verdict"] == "ok"


def test_districts_that_wait(synced: str, query: Query, database: Database) -> None:
    """R11.7: since when each is disconnected or requested."""
    query("insert into app.districts (clever_id, name, status) values ('d2', 'd2', 'requested'), ('d3', 'd3', 'disconnected')")
    query("insert into ops.connections values ('d2', 2, now() - interval '5 days', null)")
    query("insert into ops.connections values ('d3', 3, now() - interval '50 days', now() - interval '2 days')")
    found = in_database(database)["districts"]
    assert (found["verdict"], found["numbers"]) == ("warning", {"active": 1, "requested": 1, "disconnected": 1})
    assert found["says"] == "1 active, 1 requested, 1 disconnected. d2 requested for 5 days, d3 disconnected for 2 days."


def test_a_success_in_the_future_is_none(synced: str, query: Query, database: Database) -> None:
    """R11.6: neither for freshness nor for the night, and the clock's finding names the table. A later success counts."""
    query("update ops.syncs set started_at = now() + interval '400 days', finished_at = now() + interval '400 days'")
    found = in_database(database)
    assert (found["freshness"]["verdict"], found["freshness"]["numbers"]["silent"]) == ("problem", [synced])
    assert found["night 21:00"]["numbers"]["ended"] == 0
    assert (found["clock"]["verdict"], found["clock"]["numbers"]["in_the_future"]) == ("warning", {"ops.syncs": 1})
    query("insert into ops.syncs (district_id, status, started_at, finished_at) values (1, 'successful', now(), now())")
    found = in_database(database)
    assert (found["freshness"]["verdict"], found["night 21:00"]["numbers"]["ended"]) == ("ok", 1)


def test_a_district_that_became_active_in_the_future(synced: str, query: Query, database: Database) -> None:
    """R11.6: it is due every night, and silent until its first sync."""
    query("update app.districts set active_since = now() + interval '400 days'")
    query("delete from ops.syncs")
    found = in_database(database)
    assert (found["freshness"]["verdict"], found["night 21:00"]["numbers"]["due"]) == ("problem", 1)


def test_a_machine_with_another_time(synced: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """R11.6: a problem, because this machine does not sync."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            del tz
            return datetime.now(UTC) + timedelta(hours=5)

    now = datetime.now(UTC)
    monkeypatch.setattr(clock, "datetime", Wrong)
    found = in_database(database, now)["clock"]
    assert (found["verdict"], found["says"]) == ("problem", "This machine's clock is 5 hours ahead of the database's. It does not sync.")


def test_a_district_that_has_never_synced_is_counted(synced: str, query: Query, database: Database) -> None:
    """R11.8: on its first day by name, afterwards as silent. Last night was before it became active."""
    query(
        "insert into app.districts (clever_id, name, profile, status) values ('d2', 'New', 'typing_agent', 'active')",
    )
    found = in_database(database)
    assert found["freshness"]["says"] == "1 of 2 active districts synced within 26 hours. Never synced: d2."
    assert found["night 21:00"]["numbers"]["due"] == 1
    query("update app.districts set active_since = now() - interval '27 hours', updated_at = now() where clever_id = 'd2'")
    later = in_database(database)["freshness"]
    assert (later["verdict"], later["numbers"]["silent"], later["numbers"]["never_synced"]) == ("problem", ["d2"], ["d2"])


def test_a_night_in_which_all_failed(synced: str, query: Query, database: Database) -> None:
    """R11.1: one failed sync is the district's, most of a night are not."""
    for number in (2, 3, 4):
        query(
            "insert into app.districts (clever_id, name, profile, status, active_since)"
            " values (:id, 'x', 'typing_agent', 'active', '2026-01-01')",
            id=f"d{number}",
        )
    query(
        "insert into ops.syncs (district_id, status, started_at, finished_at) select n, 'failed', now(), now() from generate_series(2, 4) n"
    )
    assert in_database(database)["night 21:00"]["verdict"] == "problem"
    query("insert into ops.syncs (district_id, status, started_at, finished_at) values (2, 'successful', now(), now())")
    assert in_database(database)["night 21:00"]["verdict"] == "warning"


def test_the_list_of_connections(synced: str, query: Query, database: Database) -> None:
    """R11.7: not read for an hour (Clever is down), in the future, never read, or not believed."""
    for began, verdict in (("- interval '50 minutes'", "ok"), ("- interval '61 minutes'", "problem"), ("+ interval '400 days'", "problem")):
        query(f"update ops.token_listings set began_at = now() {began}")
        assert in_database(database)["connections"]["verdict"] == verdict
    doubt = """{"missing": 40, "connected": 50, "reason": "It lacks 40 of 50."}"""
    query("update ops.token_listings set began_at = now(), doubted_since = now(), doubt = cast(:doubt as jsonb)", doubt=doubt)
    found = in_database(database)["connections"]
    assert found["verdict"] == "problem"
    assert found["says"].startswith("It lacks 40 of 50. Nothing has been changed since ")
    assert "roster connections accept" in found["do"]
    query("delete from ops.token_listings")
    assert in_database(database)["connections"]["verdict"] == "warning"


def test_a_server_that_only_reads(synced: str, query: Query, database: Database) -> None:
    """R11.4: health itself works there, and writes nothing."""
    query("insert into ops.syncs (district_id, status, started_at) values (1, 'processing', now())")
    with database.engine.connect() as session:
        connection = session.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("set default_transaction_read_only = on")
        found = {each.what: each for each in database_health(connection, Settings(), now=datetime.now(UTC))}
        connection.invalidate()
    assert found["database"].verdict == "problem"
    assert "only reads" in found["database"].says
    assert found["crashed syncs"].numbers == {"found": 1}
    assert in_database(database)["database"]["verdict"] == "ok"


def test_a_lock_that_a_stranger_holds(synced: str, database: Database) -> None:
    """R11.2: any role can take a district's lock. The finding names the process; the pipeline's own locks are no finding."""
    url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, application_name="psql", autocommit=True) as stranger:
        stranger.execute("select pg_advisory_lock(21081::bigint << 48 | 1)")
        found = in_database(database)["locks"]
        assert found["verdict"] == "problem"
        assert found["numbers"] == {"held": 1, "strangers": [{"district_id": 1, "pid": stranger.info.backend_pid}]}
        assert "district 1: process" in found["says"]
        stranger.execute("select pg_advisory_unlock_all()")
    with database.engine.connect() as session, district_lock(session.execution_options(isolation_level="AUTOCOMMIT"), 1, synced):
        assert in_database(database)["locks"]["says"] == "1 districts are being synced."


@pytest.mark.parametrize(
    ("brakes", "kinds"),
    [
        ({}, None),
        ({"role_floor": 20, "role_share": 0.2}, None),
        ({"role_share": 1}, ["district_role"]),
        ({"school_share": 1, "role_floor": 51}, ["district_role", "school_role"]),
        ({"admin_share": 1}, ["new_admins"]),
        ({"role_floor": 0, "role_share": 0}, None),
    ],
)
def test_a_brake_that_is_switched_off(
    brakes: dict[str, float], kinds: list[str] | None, synced: str, query: Query, database: Database
) -> None:
    """R13.2: a share of 1, or a limit of more than five times the default. Tighter limits are no finding."""
    query("update app.districts set settings = cast(:settings as jsonb)", settings=json.dumps({"brakes": brakes}))
    found = in_database(database)["brakes"]
    assert found["numbers"] == {"loosened": {synced: kinds} if kinds else {}}
    assert found["verdict"] == ("warning" if kinds else "ok")


@pytest.mark.parametrize(
    ("total", "free", "verdict"),
    [(20, 6, "ok"), (20, 1.5, "warning"), (100, 6, "ok"), (100, 4, "warning"), (100, 0.5, "problem"), (4, 0.9, "ok"), (2000, 300, "ok")],
)
def test_a_disk_that_is_nearly_full(total: float, free: float, verdict: str, tmp_path: Path) -> None:
    """By share and by size, each for itself: a small disk is not full, and 10 % of a large one is much."""
    asked = []

    def usage(path: Path) -> tuple[int, int, int]:
        asked.append(path)
        return int(total * 2**30), 0, int(free * 2**30)

    found = disk_health({"ROSTER_HOME": tmp_path / "not" / "there yet"}, usage)
    assert (found.verdict, asked) == (verdict, [tmp_path])
