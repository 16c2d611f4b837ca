"""R11.4: everything that reads `ops.syncs` accepts every row that its constraints allow: each status, each column null that may be."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from roster_pipeline.alerts.delivery import deliver
from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.database.tables import syncs
from roster_pipeline.defs import alerts, shards
from roster_pipeline.defs.sync import observation_of, results_of
from roster_pipeline.errors import SyncRunningError
from roster_pipeline.fleet import children
from roster_pipeline.fleet.by_day import due_by_day
from roster_pipeline.fleet.freshness import alert_silent, freshness, synced_this_night
from roster_pipeline.fleet.recovery import mark_crashed_syncs
from roster_pipeline.fleet.requests import startable
from roster_pipeline.fleet.retention import prune_history
from roster_pipeline.sandbox import District
from roster_pipeline.settings import Settings
from roster_pipeline.sync import ledger
from roster_pipeline.sync.ledger import Origin
from roster_pipeline.sync.run import SyncRequest, run_sync
from roster_pipeline_tests.commands.conftest import Roster, clever, district, environment, query, roster

__all__ = ["clever", "district", "environment", "query", "roster"]

ROOT = Path(__file__).parents[2] / "roster_pipeline"
# Module -> what calls it in the test below.
READERS = {
    "alerts/delivery.py": "deliver",
    "database/lock.py": "district_lock",
    "defs/alerts.py": "_has_reported",
    "defs/report.py": "results_of, observation_of",
    "defs/shards.py": "_done_before, _is_unchanged_since, _counts",
    "fleet/by_day.py": "due_by_day",
    "fleet/children.py": "_applied",
    "fleet/freshness.py": "freshness, synced_this_night",
    "fleet/health.py": "roster health",
    "fleet/recovery.py": "mark_crashed_syncs",
    "fleet/requests.py": "startable, roster request",
    "fleet/retention.py": "prune_history",
    "support/explain.py": "roster explain",
    "support/offboarding.py": "roster district offboard",
    "sync/ending.py": "run_sync, where the answer of the commit is lost (defs/test_after_commit.py)",
    "sync/incremental.py": "run_sync",
    "sync/ledger.py": "roster status, run_sync",
    "sync/unchanged.py": "run_sync",
}
STATUSES = ("queued", "processing", "successful", "held", "failed", "skipped")
# A row of each status in which every column is null that may be, of the district and of none.
ROWS = """
    insert into ops.syncs (district_id, status, requested_role, requested_at, finished_at)
    select :district, status, null, now() - interval '1 minute', case when status not in ('queued', 'processing') then now() end
    from unnest(cast(:statuses as text[])) as status
"""


def test_every_reader_is_listed() -> None:
    """A new one is added here, and called below."""
    reads = re.compile(r"\bsyncs\.c\.|(from|join|update) ops\.syncs|ledger\.status_of")
    found = {file.relative_to(ROOT).as_posix() for file in ROOT.rglob("*.py") if reads.search(file.read_text(encoding="utf-8"))}
    assert found == READERS.keys()


def test_the_rows_have_every_null_that_is_allowed(database: Database) -> None:
    """A column that becomes nullable is null in them too."""
    with database.engine.begin() as connection:
        connection.execute(sa.text(ROWS), {"district": None, "statuses": list(STATUSES)})
        columns = {each["name"]: each["nullable"] for each in sa.inspect(connection).get_columns("syncs", schema="ops")}
        for row in connection.execute(sa.select(syncs)).mappings():
            ended = row["status"] not in ("queued", "processing")
            # The database fills the principal of every new row.
            expected = {name for name, nullable in columns.items() if nullable} - {"principal"} - ({"finished_at"} if ended else set())
            assert {name for name, value in row.items() if value is None} == expected


def insert(database: Database) -> None:
    """Rows of every status, of the district and of none."""
    with database.engine.begin() as connection:
        for district_id in (1, None):
            connection.execute(sa.text(ROWS), {"district": district_id, "statuses": list(STATUSES)})


COMMANDS = [
    ("status",), ("status", "1"), ("status", "--json"), ("health",), ("holds", "--all"), ("explain", "1", "1"), ("plan", "1"),
    ("readiness", "1"), ("district", "list"), ("district", "show", "1"), ("request", "1", "--requested-by", "me"), ("sync", "1"),
    ("district", "offboard", "1", "--export", "exported", "--by", "me"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands(roster: Roster, database: Database, district: District, command: tuple[str, ...]) -> None:
    """Each ends as documented, with a sentence if it refuses."""
    assert roster("sync", district.id).status == 0
    insert(database)
    ended = roster(*command)
    assert ended.status in (0, 1)
    assert "Internal error" not in ended.err
    assert ended.out or ended.err.startswith("Error: ")


def test_functions(database: Database, roster: Roster, district: District, query: Callable[..., list[Any]]) -> None:
    """The sensors, a run, a shard and an observation."""
    settings, now = Settings(), datetime.now(UTC)
    assert roster("sync", district.id).status == 0
    insert(database)
    with database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        mark_crashed_syncs(connection, now=now)
        insert_again = sa.text("update ops.syncs set status = 'queued', finished_at = null where message is null and status = 'skipped'")
        connection.execute(insert_again)
        startable(connection, now=now)
        synced_this_night(connection, now)
        connection.execute(sa.text("""update app.districts set settings = '{"freshness": "day"}'"""))
        due_by_day(connection, now, {})
        alert_silent(connection, freshness(connection, now), now=now)
        alerts._has_reported(connection, "run")
        connection.execute(sa.text("select * from ops.recent_syncs")).all()
    deliver(database, settings, now=now)
    insert_failed = "insert into ops.syncs (district_id, status, requested_role, finished_at) values (1, 'failed', null, now())"
    query(insert_failed)
    report = run_sync(database, settings, SyncRequest(district.id))
    assert list(results_of(database, report))
    with database.engine.connect() as connection:
        assert observation_of(connection, report)
        assert isinstance(shards._is_unchanged_since(connection, report, 1), bool)
        for (sync_id,) in connection.execute(sa.select(syncs.c.sync_id)).all():
            assert isinstance(shards._counts(connection, report, sync_id), dict)
            assert ledger.status_of(connection, sync_id) in STATUSES
    query("update ops.syncs set dagster_run_id = 'run'")
    assert children._applied(database, SyncRequest(district.id, Origin(dagster_run_id="run"))) is not None
    prune_history(database, keep_syncs_days=0, keep_changes_days=0, now=datetime.now(UTC))
    query("insert into ops.syncs (district_id, status) values (1, 'processing')")
    with (
        database.engine.connect() as one,
        database.engine.connect() as other,
        district_lock(one, 1, district.id),
        pytest.raises(SyncRunningError),
        district_lock(other, 1, district.id),
    ):
        pass
