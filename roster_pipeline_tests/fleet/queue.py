"""Requests of syncs for the tests: making them, and what is next.

Does not belong here: tests.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import Agreement, record_agreement
from roster_pipeline.fleet.requests import Queued, request_sync, startable
from roster_pipeline.sync.ledger import Origin
from roster_pipeline.sync.run import SyncRequest, run_sync
from roster_pipeline_tests.sync.scenario import DISTRICT, Scenario

NOW = datetime(2026, 11, 22, 5, tzinfo=UTC)
PLAIN = "insert into ops.syncs (district_id, requested_by) values (1, 'the application')"
OWNERS = "insert into ops.syncs (district_id, requested_by, requested_role) values (1, 'owner 7', 'account_owner')"
PROCESSING = "insert into ops.syncs (district_id, status, started_at) values (1, 'processing', now())"


def agree(database: Database, clever_id: str = "d1", profile: str = "typing_agent", **settings: Any) -> None:
    with database.engine.begin() as connection:
        record_agreement(connection, Agreement(clever_id, "Test", profile, "test.example", settings=settings))


def rows(database: Database, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    with database.engine.begin() as connection:
        result = connection.execute(sa.text(statement), values)
        return [tuple(row) for row in result] if result.returns_rows else []


def statuses(database: Database) -> list[str]:
    return [status for (status,) in rows(database, "select status from ops.syncs order by sync_id")]


def ask(database: Database, district: str = "d1", *, role: str = "support", now: datetime = NOW) -> tuple[int, bool]:
    with database.engine.begin() as connection:
        queued, already = request_sync(connection, district, Origin(requested_by="WHO", reason="WHY", requested_role=role), now=now)
    return queued.sync_id, already


def next_up(database: Database) -> list[Queued]:
    with database.engine.connect() as opened:
        return startable(opened.execution_options(isolation_level="AUTOCOMMIT"), now=NOW)


def answer(world: Scenario, sync_id: int, *, run: str | None = None, on_step: Callable[[Any], None] = lambda _: None) -> None:
    request = SyncRequest(DISTRICT, Origin(sync_id=sync_id, dagster_run_id=run))
    run_sync(world.database, world.settings, request, on_step=on_step)
