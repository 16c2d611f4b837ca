"""The sensor `by_day`: it asks Clever, and starts a sync where there is newer data (R17.1)."""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
import sqlalchemy as sa

from roster_pipeline.database.engine import Database
from roster_pipeline.defs import by_day as module
from roster_pipeline.defs.by_day import by_day
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.tags import TRIGGER
from roster_pipeline.sandbox import Sandbox
from roster_pipeline.settings import settings
from roster_pipeline.sync.run import SyncRequest, run_sync

NOON = datetime(2026, 11, 18, 20, tzinfo=UTC)


@pytest.mark.parametrize("is_app_notified", [True, False], ids=["last_clever_sync", "last_sync"])
def test_a_change_at_clever_is_followed(
    environment: None, database: Database, sandbox: Sandbox, clever_id: str, monkeypatch: pytest.MonkeyPatch, *, is_app_notified: bool
) -> None:
    """R17.1: no change, no run; one run for each change, also of sharing where Clever says so. One request for each question."""
    if is_app_notified:
        sandbox.change(clever_id).set_district(last_clever_sync="2026-11-18T10:00:00.000Z")
    with database.engine.begin() as connection:
        connection.execute(sa.text("""update app.districts set settings = '{"freshness": "day"}', active_since = '2026-01-01'"""))
    run_sync(database, settings(), SyncRequest(clever_id), clock=lambda _: NOON)
    now, cursor = NOON, None
    keys: list[str] = []

    def tick() -> list[dg.RunRequest]:
        nonlocal now, cursor
        now += timedelta(minutes=10)
        monkeypatch.setattr(module, "database_time", lambda _: now)
        with dg.DagsterInstance.ephemeral() as instance:
            resources = {"roster_database": RosterDatabase()}
            with dg.build_sensor_context(instance=instance, resources=resources, cursor=cursor) as context:
                result = by_day(context)
        assert isinstance(result, dg.SensorResult)
        cursor = result.cursor
        assert json.loads(cursor or "{}") == {clever_id: now.timestamp()}
        keys.extend(str(each.run_key) for each in result.run_requests or [])
        return list(result.run_requests or [])

    assert tick() == []
    school = sandbox.district(clever_id).shared("schools")[0]
    sandbox.change(clever_id).unshare([school])
    assert len(tick()) == is_app_notified
    sandbox.change(clever_id).night_of_changes(1)
    sandbox.seen.clear()
    (request,) = tick()
    assert [each.uri.split("?")[0] for each in sandbox.seen] == ["/oauth/tokens", f"/v3.0/districts/{clever_id}"]
    assert (request.partition_key, request.tags[TRIGGER]) == (clever_id, "refresh")
    (again,) = tick()
    assert again.run_key == request.run_key, "Dagster starts one run for each mark"
    assert len(set(keys)) == 1 + is_app_notified
    run_sync(database, settings(), SyncRequest(clever_id), clock=lambda _: now)
    assert tick() == []
