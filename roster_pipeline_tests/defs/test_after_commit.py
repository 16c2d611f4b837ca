"""R11.4: what follows the commit of a sync never makes it a failed one, by any entrance: a run, a shard and the command line.

Every function that is called between the commit and the end is made to fail, each at every entrance that calls it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any, NoReturn

import dagster as dg
import psycopg
import pytest
import sqlalchemy as sa

from roster_pipeline.commands import sync as command
from roster_pipeline.database.engine import Database
from roster_pipeline.defs import shards
from roster_pipeline.errors import TransientError
from roster_pipeline.fleet import children
from roster_pipeline.fleet.children import Outcome, sync_here
from roster_pipeline.sandbox import Sandbox, generate_district
from roster_pipeline.settings import Settings, settings
from roster_pipeline.sync import ending
from roster_pipeline.sync.run import SyncRequest, run_sync
from roster_pipeline_tests.commands.conftest import Roster, query, roster
from roster_pipeline_tests.defs.runs import check, outcomes, run, run_shard
from roster_pipeline_tests.defs.test_nightly import add, states

__all__ = ["query", "roster"]

MARKER = "Zzyzxmarker"
# A request that ended without a beginning: answered by another, refused because of the role, refused because of the limit.
SKIPPED = """
    insert into ops.syncs (district_id, status, requested_role, requested_at, finished_at, message)
    select district_id, 'skipped', role, now(), now(), message from app.districts, (values
        ('support', 'Answered by sync 1.'), ('account_owner', 'The role account_owner may not ask for a sync of this district.'),
        ('support', 'The limit of 2 requested syncs an hour is reached.')) as ended (role, message)
"""
# By entrance: what follows the commit there.
RUN = (
    "roster_pipeline.sync.run.analyze",
    "roster_pipeline.defs.sync.summary",
    "roster_pipeline.defs.sync.keep_connections",
    "roster_pipeline.defs.sync.results_of",
    "roster_pipeline.defs.sync.read_numbers",
    "roster_pipeline.defs.sync.metadata_of",
    "roster_pipeline.alerts.delivery.deliver",
)
SHARD = (
    "roster_pipeline.defs.shards.summary",
    "roster_pipeline.defs.shards._last_reported",
    "roster_pipeline.defs.shards._is_unchanged_since",
    "roster_pipeline.defs.shards.results_of",
    "roster_pipeline.alerts.delivery.deliver",
)
COMMAND = (
    "roster_pipeline.sync.run.analyze",
    "roster_pipeline.commands.sync.print_outcome",
    "roster_pipeline.commands.sync._found",
    "roster_pipeline.alerts.delivery.deliver",
)
FAILURES = (KeyError(MARKER), TransientError("the database is away"), psycopg.OperationalError(MARKER), BrokenPipeError(MARKER))


def failing(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


def rows(database: Database, statement: str) -> list[Any]:
    with database.engine.begin() as connection:
        result = connection.execute(sa.text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


def assert_applied(database: Database) -> None:
    """The last sync is applied, and nothing says anything else of it."""
    ((status,),) = rows(database, "select status from ops.syncs order by sync_id desc limit 1")
    assert status == "successful"
    assert rows(database, "select event from ops.alerts where kind in ('sync_failed', 'run_failed')") == []


def logged(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(str(entry.user_message) for entry in instance.all_logs(result.run_id))


@pytest.fixture
def dagster(environment: None) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture(autouse=True)
def everything_is_analyzed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "ANALYZE_FROM_ROWS", 1)


@pytest.mark.parametrize(("place", "error"), zip(RUN, cycle(FAILURES)), ids=str)
def test_a_run(
    dagster: dg.DagsterInstance, database: Database, clever_id: str, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception
) -> None:
    """The run succeeds. If the results cannot be shown, it says so, and reports none; the check `synced` passes."""
    monkeypatch.setattr(place, failing(error))
    result = run(dagster, clever_id)
    assert result.success
    assert_applied(database)
    assert check(result, "synced").passed
    said = logged(dagster, result)
    assert MARKER not in said
    if place.startswith("roster_pipeline.defs"):
        assert "Sync 1 is applied, but not shown in Dagster." in said
        assert not result.asset_materializations_for_node("sync")
    else:
        assert result.asset_materializations_for_node("sync")


@pytest.mark.parametrize(("place", "error"), zip(SHARD, cycle(FAILURES)), ids=str)
def test_a_shard(
    dagster: dg.DagsterInstance, database: Database, sandbox: Sandbox, clever_id: str, monkeypatch: pytest.MonkeyPatch,
    place: str, error: Exception,
) -> None:  # fmt: skip
    """It costs the events of the district, and never the districts after it."""
    other = sandbox.add(generate_district(4, 20)).id
    add(database, other)
    dagster.add_dynamic_partitions("districts", [clever_id, other])
    monkeypatch.setattr(shards, "sync_in_child", lambda _, theirs, request, **__: sync_here(theirs, request))
    monkeypatch.setattr(place, failing(error))
    result = run_shard(dagster, clever_id, other)
    assert result.success
    assert outcomes(result) == {clever_id: ("successful", 1), other: ("successful", 1)}
    assert_applied(database)
    assert MARKER not in logged(dagster, result)
    assert [states(dagster, each)["clever/districts:synced"] for each in (clever_id, other)] == [True, True]


@pytest.mark.parametrize(("place", "error"), zip(COMMAND, cycle(FAILURES)), ids=str)
def test_the_command(
    roster: Roster, environment: None, database: Database, sandbox: Sandbox, clever_id: str, monkeypatch: pytest.MonkeyPatch,
    place: str, error: Exception,
) -> None:  # fmt: skip
    """The exit status is that of the sync, and nothing says that it failed."""
    monkeypatch.setattr(place, failing(error))
    ended = roster("sync", clever_id)
    assert ended.status == 0, ended.err
    assert_applied(database)
    assert MARKER not in ended.out + ended.err
    assert "rolled back" not in ended.out + ended.err
    if place.startswith("roster_pipeline.commands"):
        assert "Sync 1 is applied (successful), but not shown." in ended.err


def test_a_reader_that_closes_the_pipe(environment: None, database: Database, clever_id: str) -> None:
    """`roster sync DISTRICT | head -0`: the exit status is that of the sync."""
    import os
    import subprocess
    import sys

    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "roster_pipeline.cli", "sync", clever_id], stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    assert ended.returncode == 0, ended.stderr
    assert_applied(database)


def test_skipped_requests_are_no_syncs(
    dagster: dg.DagsterInstance, database: Database, clever_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11.4: they have ended without a beginning, in each of three ways. The next syncs are shown, by a run, a shard and an observation."""
    rows(database, SKIPPED)
    first = run(dagster, clever_id)
    assert first.success
    assert "not shown" not in logged(dagster, first)
    dagster.add_dynamic_partitions("districts", [clever_id])
    monkeypatch.setattr(shards, "sync_in_child", lambda _, theirs, request, **__: sync_here(theirs, request))
    for _ in range(2):
        rows(database, SKIPPED)
        shard = run_shard(dagster, clever_id)
        assert outcomes(shard) == {clever_id: ("successful", 1)}
        assert "not shown" not in logged(dagster, shard)
    observed = [event for event in shard.all_events if event.event_type == dg.DagsterEventType.ASSET_OBSERVATION]
    (observation,) = [event.asset_observation_data.asset_observation for event in observed]
    table = observation.metadata["last_syncs"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data["status"] for record in table.records] == ["successful"] * 3


@contextmanager
def lost_at_the_commit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server commits, and its answer does not arrive."""
    from roster_pipeline.sync import run as module

    original = vars(module)["one_state"]

    @contextmanager
    def one_state(connection: Any, **options: Any) -> Iterator[None]:
        with original(connection, **options):
            yield
        raise psycopg.OperationalError("the connection is closed")

    with monkeypatch.context() as patching:
        patching.setattr(module, "one_state", one_state)
        yield


def test_an_answer_that_is_lost_at_the_commit(
    environment: None, database: Database, clever_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11.4: the row says that the sync was applied, so it is reported as applied."""
    with lost_at_the_commit(monkeypatch):
        report = run_sync(database, settings(), SyncRequest(clever_id))
    assert report.status == "successful"
    assert_applied(database)


def test_a_commit_that_did_not_arrive(environment: None, database: Database, clever_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """R11.4: the connection is cut just before it."""
    from roster_pipeline.sync import run as module

    original = vars(module)["_plan_and_apply"]

    def cut(context: Any, *arguments: Any) -> Any:
        outcome = original(context, *arguments)
        rows(database, "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted")
        return outcome

    monkeypatch.setattr(module, "_plan_and_apply", cut)
    with pytest.raises(TransientError):
        run_sync(database, settings(), SyncRequest(clever_id))
    assert rows(database, "select status from ops.syncs") == [("failed",)]
    assert rows(database, "select count(*) from app.users") == [(0,)]


def die_after_the_commit(theirs: Settings, request: SyncRequest) -> Outcome:
    """Runs in the child."""
    import os

    sync_here(theirs, request)
    os._exit(9)


def test_a_child_that_dies_after_the_commit(
    dagster: dg.DagsterInstance, database: Database, clever_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11.4: the shard says that the sync is applied. `Nothing of it was applied` would not be true."""
    dagster.add_dynamic_partitions("districts", [clever_id])
    original = children.sync_in_child
    monkeypatch.setattr(shards, "sync_in_child", lambda *each, stop, **_: original(*each, stop=stop, work=die_after_the_commit))
    result = run_shard(dagster, clever_id)
    assert outcomes(result) == {clever_id: ("successful", 1)}
    assert states(dagster, clever_id) == {"clever/districts:synced": True}
    assert "Sync 1 is applied, but not shown in Dagster. Its process ended before it reported." in logged(dagster, result)
    assert_applied(database)


@pytest.mark.parametrize("table", ["users", "enrollments"])
def test_a_table_that_somebody_maintains(environment: None, database: Database, clever_id: str, table: str) -> None:
    """R11.4: VACUUM, CREATE INDEX CONCURRENTLY and VALIDATE CONSTRAINT hold this lock for as long as they run. The sync waits for none."""
    with database.engine.connect() as connection:
        connection.exec_driver_sql(f"lock table app.{table} in share update exclusive mode")
        report = run_sync(database, settings(), SyncRequest(clever_id))
    assert report.status == "successful"
    assert rows(database, "select count(*) from pg_stats where schemaname = 'app' and tablename = 'user_roles'") != [(0,)]


def test_the_command_shows_a_sync_that_is_held(roster: Roster, environment: None, database: Database, clever_id: str) -> None:
    """The exit status of a held sync is 3, also if it cannot be shown."""
    rows(database, "insert into app.users (district_id, username) select district_id, 'existing' from app.districts")
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(command, "print_outcome", failing(KeyError(MARKER)))
        ended = roster("sync", clever_id)
    assert ended.status == 3
    assert "Sync 1 is applied (held), but not shown." in ended.err
