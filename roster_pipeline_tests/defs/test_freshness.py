"""The sensors `connections`, `refresh` and `freshness`, and the check `fresh`: which runs they request, and what they report."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from roster_pipeline.database.engine import Database
from roster_pipeline.definitions import defs
from roster_pipeline.defs import connections as connections_module
from roster_pipeline.defs import freshness as freshness_module
from roster_pipeline.defs.connections import connections
from roster_pipeline.defs.freshness import freshness, refresh
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.tags import LANE, TRIGGER
from roster_pipeline.districts.agreement import Agreement, record_agreement
from roster_pipeline.fleet.freshness import ask_marks
from roster_pipeline.sandbox import District, Sandbox, generate_district
from roster_pipeline.settings import settings
from roster_pipeline.sync.run import SyncRequest, run_sync

CHECK = dg.AssetCheckKey(dg.AssetKey(["ops", "syncs"]), "fresh")
# 21:30 in Los Angeles.
NIGHT = datetime(2026, 11, 20, 5, 30, tzinfo=UTC)
OLD, NEW, NEWEST = (f"2026-11-20T0{hour}:00:00.000Z" for hour in (4, 5, 6))

At = Callable[[datetime], None]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> At:
    """Sets the time at which the sensors tick."""

    def set_time(now: datetime) -> None:
        for module in (connections_module, freshness_module):
            monkeypatch.setattr(module, "database_time", lambda _: now)

    set_time(NIGHT)
    return set_time


def tick(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    with dg.build_sensor_context(instance=instance, resources={"roster_database": RosterDatabase()}, cursor=cursor) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def requested(result: dg.SensorResult | dg.SkipReason) -> list[dg.RunRequest]:
    return list(result.run_requests or []) if isinstance(result, dg.SensorResult) else []


def rows(database: Database, query: str) -> list[Any]:
    with database.engine.begin() as connection:
        found = connection.execute(sa.text(query))
        return [tuple(row) for row in found] if found.returns_rows else []


def synced(database: Database, clever_id: str, now: datetime) -> None:
    """Sync the district now; its agreement was recorded long ago."""
    rows(database, "update app.districts set active_since = '2026-01-01'")
    run_sync(database, settings(), SyncRequest(clever_id), clock=lambda _: now)


# --- connections ---


def test_new_and_lost_tokens(environment: None, database: Database, sandbox: Sandbox, clever_id: str, at: At) -> None:
    """R11.7: a district with an agreement stays active as long as the listing has its token."""
    sandbox.add(generate_district(4, 5))
    with dg.DagsterInstance.ephemeral() as instance:
        said = tick(connections, instance)
        assert isinstance(said, dg.SkipReason)
        assert said.skip_message == "2 connected; 1 new, 0 lost."
        assert sorted(rows(database, "select status from app.districts")) == [("active",), ("requested",)]
        sandbox.change(clever_id).disconnect()
        # A listing counts only if it began after the one before.
        at(NIGHT + timedelta(minutes=10))
        tick(connections, instance)
    assert rows(database, f"select status from app.districts where clever_id = '{clever_id}'") == [("disconnected",)]
    assert rows(database, "select kind from ops.alerts order by alert_id") == [("connected",), ("disconnected",)]


def test_a_listing_that_fails_changes_nothing(environment: None, database: Database, sandbox: Sandbox, at: At) -> None:
    """R11.7: the tick fails, with a message for people."""
    sandbox.misbehave("status", "/oauth/tokens", status=403)
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure, match="Clever refused the client id/secret"):
        tick(connections, instance)
    assert rows(database, "select count(*) from app.districts where status <> 'active'") == [(0,)]
    assert rows(database, "select * from ops.token_listings") == []


def test_without_credentials_nothing_is_listed(environment: None, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> None:
    monkeypatch.delenv("CLEVER_CLIENT_ID")
    settings.cache_clear()
    with dg.DagsterInstance.ephemeral() as instance:
        assert isinstance(tick(connections, instance), dg.SkipReason)
    assert list(sandbox.seen) == []


# --- refresh ---


def test_a_district_is_pulled_again_when_clever_has_newer_data(
    environment: None, database: Database, sandbox: Sandbox, clever_id: str, at: At
) -> None:
    """R3.7: once for each load of Clever, in the lane of the night; not during the day."""
    sandbox.change().set_district(last_sync=OLD)
    synced(database, clever_id, NIGHT)
    with dg.DagsterInstance.ephemeral() as instance:
        assert requested(tick(refresh, instance)) == []
        sandbox.change().set_district(last_sync=NEW)
        (first,) = requested(tick(refresh, instance))
        assert (first.partition_key, first.tags[TRIGGER], first.tags[LANE]) == (clever_id, "refresh", "night")
        (again,) = requested(tick(refresh, instance))
        assert again.run_key == first.run_key
        sandbox.change().set_district(last_sync=NEWEST)
        (second,) = requested(tick(refresh, instance))
        assert second.run_key != first.run_key
        asked = len(sandbox.seen)
        at(NIGHT + timedelta(hours=9))
        assert isinstance(tick(refresh, instance), dg.SkipReason)
    assert len(sandbox.seen) == asked


def test_the_run_of_a_refresh(instance: dg.DagsterInstance, database: Database, sandbox: Sandbox, clever_id: str, at: At) -> None:
    """R3.7: its sync has the trigger `refresh` and the newer data."""
    sandbox.change().set_district(last_sync=OLD)
    synced(database, clever_id, NIGHT)
    sandbox.change().set_district(last_sync=NEW)
    instance.add_dynamic_partitions("districts", [clever_id])
    (request,) = requested(tick(refresh, instance))
    job = defs.resolve_job_def("sync_district")
    assert job.execute_in_process(partition_key=request.partition_key, instance=instance, tags=request.tags).success
    found = rows(database, "select trigger, requested_role, counts ->> 'last_sync' from ops.syncs order by sync_id desc limit 1")
    assert found == [("refresh", None, NEW)]


def test_a_tick_continues_where_the_last_one_ended(
    environment: None, database: Database, sandbox: Sandbox, clever_id: str, at: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3.7: if there is no time for all districts in one tick, several ticks ask about them in turn."""
    others = [f"5f00000000000000000000a{number}" for number in range(4)]
    for other in others:
        sandbox.add(District({"id": other, "name": "Other", "last_sync": NEW}))
    with database.engine.begin() as connection:
        for other in others:
            record_agreement(connection, Agreement(other, "Other", "typing_agent", "test.example"))
    rows(
        database,
        f"""insert into ops.syncs (district_id, status, started_at, finished_at, counts)
        select district_id, 'successful', '{NIGHT}', '{NIGHT}', '{{"last_sync": "{OLD}"}}' from app.districts""",
    )
    monkeypatch.setattr(
        freshness_module,
        "ask_marks",
        lambda settings, tokens, ids, *, deadline: ask_marks(settings, tokens, ids[:2], deadline=deadline),
    )
    asked, cursor = [], None
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(3):
            result = tick(refresh, instance, cursor)
            assert isinstance(result, dg.SensorResult)
            asked.append([each.partition_key for each in requested(result)])
            cursor = result.cursor
    assert asked == [[clever_id, others[0]], others[1:3], [others[3], clever_id]]


# --- fresh ---


def evaluations(instance: dg.DagsterInstance) -> list[tuple[str | None, bool]]:
    """The district and whether it was fresh, oldest evaluation first."""
    records = instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=100)
    found = []
    for record in reversed(records):
        assert record.event is not None
        assert record.event.dagster_event is not None
        found.append(record.event.dagster_event.asset_check_evaluation_data)
    return [(each.partition, each.passed) for each in found]


def tick_and_run(instance: dg.DagsterInstance, cursor: str | None) -> str | None:
    """One tick, and the run that it requests. Returns the next cursor."""
    result = tick(freshness, instance, cursor)
    for request in requested(result):
        job = defs.resolve_job_def("freshness")
        assert job.execute_in_process(run_config=request.run_config, instance=instance, tags=request.tags).success
    return result.cursor or cursor if isinstance(result, dg.SensorResult) else cursor


def test_the_check_changes_with_the_district(instance: dg.DagsterInstance, database: Database, clever_id: str, at: At) -> None:
    """R11.8: one evaluation of the district for each change, and one alert for each silence."""
    instance.add_dynamic_partitions("districts", [clever_id])
    synced(database, clever_id, NIGHT)
    cursor = None
    for hours in (1, 2, 27, 28):
        at(NIGHT + timedelta(hours=hours))
        cursor = tick_and_run(instance, cursor)
    assert evaluations(instance) == [(clever_id, True), (clever_id, False)]
    assert rows(database, "select kind, facts from ops.alerts") == [("district_silent", {"hours": 27})]
    synced(database, clever_id, NIGHT + timedelta(hours=29))
    at(NIGHT + timedelta(hours=29))
    cursor = tick_and_run(instance, cursor)
    at(NIGHT + timedelta(hours=60))
    tick_and_run(instance, cursor)
    assert evaluations(instance)[2:] == [(clever_id, True), (clever_id, False)]


def test_the_check_can_be_run(instance: dg.DagsterInstance, database: Database, clever_id: str, at: At) -> None:
    """From the UI, for one district. It is not part of a sync."""
    instance.add_dynamic_partitions("districts", [clever_id])
    synced(database, clever_id, NIGHT - timedelta(hours=30))
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(), asset_check_selection={CHECK})
    result = job.execute_in_process(partition_key=clever_id, instance=instance)
    (found,) = result.get_asset_check_evaluations()
    assert (found.passed, found.severity, found.partition) == (False, dg.AssetCheckSeverity.WARN, clever_id)
    assert found.metadata["hours"].value == 30
    assert [node.name for node in defs.resolve_job_def("sync_district").nodes] == ["sync"]


@pytest.mark.parametrize("name", ["connections", "refresh", "freshness"])
def test_the_sensors_run_from_the_start(name: str) -> None:
    assert defs.resolve_sensor_def(name).default_status is dg.DefaultSensorStatus.RUNNING
