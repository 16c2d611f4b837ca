"""`roster health`: what it finds, what counts as unhealthy, and that it says what to do."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorType, SensorInstigatorData
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.types import DaemonHeartbeat
from psycopg import sql

from roster_pipeline.database.engine import Database, ensure_dagster_database
from roster_pipeline.definitions import defs
from roster_pipeline.defs.health import _instance

from .conftest import Roster

Query = Callable[..., list[Any]]
REPOSITORY = RemoteRepositoryOrigin(
    ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(python_file="x"), "roster_pipeline"), "__repository__"
)
AUTOMATIONS = sorted(each.name for each in [*(defs.schedules or ()), *(defs.sensors or ())])


@pytest.fixture
def unused_receiver(monkeypatch: pytest.MonkeyPatch) -> str:
    """A configured receiver that gets no alert."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"json://127.0.0.1:{free.getsockname()[1]}/secret"
    monkeypatch.setenv("ROSTER_ALERT_URLS", url)
    return url


class Dagster:
    """Writes to Dagster's database what a daemon writes."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance

    def beat(self, now: datetime, *, without: str = "") -> None:
        """Adds a heartbeat of every part of the daemon, or of all but one."""
        for kind in self.instance.get_required_daemon_types():
            if kind != without:
                self.instance.add_daemon_heartbeat(DaemonHeartbeat(now.timestamp(), kind, "daemon", []))

    def automation(self, name: str, status: InstigatorStatus, last_tick: datetime) -> None:
        """Adds a schedule or sensor that the daemon has evaluated."""
        origin = RemoteInstigatorOrigin(REPOSITORY, name)
        data = SensorInstigatorData(last_tick.timestamp(), min_interval=30)
        state = InstigatorState(origin, InstigatorType.SENSOR, status, data)
        if self.instance.get_instigator_state(state.instigator_origin_id, state.selector_id):
            self.instance.update_instigator_state(state)
        else:
            self.instance.add_instigator_state(state)


@contextmanager
def opened(database: Database) -> Iterator[Dagster]:
    with _instance(database.dagster_url) as instance:
        yield Dagster(instance)


@pytest.fixture
def dagster(environment: None, database: Database) -> Iterator[None]:
    """A healthy daemon."""
    ensure_dagster_database(database)
    now = datetime.now(UTC)
    try:
        with opened(database) as found:
            found.beat(now)
            for name in AUTOMATIONS:
                found.automation(name, InstigatorStatus.DECLARED_IN_CODE, now)
        yield
    finally:
        url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(str(database.dagster_url.database))))


def findings(roster: Roster, *, status: int) -> dict[str, dict[str, Any]]:
    ended = roster("health", "--json")
    assert ended.status == status, ended.out
    assert ended.document["healthy"] is (status == 0)
    return {each["what"]: each for each in ended.document["findings"]}


@pytest.fixture
def synced(environment: None, query: Query) -> str:
    """A district that has been active for months, and was synced just now. Yields its Clever id."""
    query(
        "insert into app.districts (clever_id, name, domain, profile, status, active_since) "
        "values ('d1', 'Test', 'test.example.org', 'typing_agent', 'active', '2026-01-01')"
    )
    query("insert into ops.token_listings (began_at) values (now())")
    query("insert into ops.syncs (district_id, status, started_at, finished_at) values (1, 'successful', now(), now())")
    return "d1"


def test_all_is_healthy(roster: Roster, dagster: None, synced: str, unused_receiver: str) -> None:
    """One line for each check, and exit status 0. The receiver's URL is not shown, because it is a secret."""
    found = findings(roster, status=0)
    assert list(found) == [
        "daemon", "schedules and sensors", "runs", "shards", "disk", "database", "clock", "districts", "connections",
        "crashed syncs", "night 21:00", "night 00:00", "freshness", "windows", "requests", "locks", "brakes", "holds",
        "alerts",
    ]  # fmt: skip
    assert {each["verdict"] for each in found.values()} == {"ok"}
    assert all(each["says"] and not each["do"] for each in found.values())
    assert (found["night 21:00"]["numbers"]["due"], found["night 00:00"]["numbers"]["due"]) == (1, 0)
    assert found["schedules and sensors"]["numbers"]["expected"] == len(AUTOMATIONS)
    ended = roster("health")
    assert ended.status == 0
    assert "Healthy: 0 problems, 0 warnings." in ended.out
    assert "secret" not in ended.out


def test_dagster_has_never_run(roster: Roster) -> None:
    """If Dagster's database does not exist, the daemon does not run, and the command does not create the database."""
    found = findings(roster, status=1)
    assert "nothing runs by itself" in found["daemon"]["says"]
    assert "roster dev" in found["daemon"]["do"]
    assert "schedules and sensors" not in found
    assert "Unhealthy: 1 problems" in roster("health").out


def test_a_dead_daemon_and_one_that_hangs(roster: Roster, dagster: None, database: Database) -> None:
    """Two causes with two messages."""
    now = datetime.now(UTC)
    with opened(database) as found:
        found.beat(now - timedelta(minutes=6))
    dead = findings(roster, status=1)["daemon"]
    assert dead["says"].startswith("Not running")
    with opened(database) as found:
        found.beat(now, without="SENSOR")
    hangs = findings(roster, status=1)["daemon"]
    assert hangs["says"] == "Parts of it hang: SENSOR."


def test_automations_that_do_not_run(roster: Roster, dagster: None, database: Database) -> None:
    """The message names automations that a person has switched off, or that do not run any more. Those of an older release do not count."""
    now = datetime.now(UTC)
    with opened(database) as found:
        found.automation("of_an_older_release", InstigatorStatus.STOPPED, now)
        assert findings(roster, status=0)["schedules and sensors"]["verdict"] == "ok"
        found.automation("requests", InstigatorStatus.DECLARED_IN_CODE, now - timedelta(minutes=11))
    assert findings(roster, status=1)["schedules and sensors"]["says"] == "Not running: requests."
    with opened(database) as found:
        found.automation("refresh", InstigatorStatus.STOPPED, now)
    assert findings(roster, status=1)["schedules and sensors"]["says"] == "Switched off: refresh."


def test_a_queue_that_does_not_move(roster: Roster, dagster: None, database: Database) -> None:
    """It is a problem only if no run is in progress. A long queue that drains is normal at night."""

    def run(status: str) -> None:
        with opened(database) as found:
            found.instance.add_run(
                dg.DagsterRun(
                    job_name="freshness", status=dg.DagsterRunStatus[status], remote_job_origin=RemoteJobOrigin(REPOSITORY, "freshness")
                )
            )

    def wait(minutes: int) -> None:
        url = database.url.set(drivername="postgresql", database=database.dagster_url.database).render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("update runs set create_timestamp = create_timestamp - make_interval(mins => %s)", (minutes,))

    run("QUEUED")
    wait(14)
    assert findings(roster, status=0)["runs"]["says"] == "1 queued, 0 in progress."
    wait(2)
    assert findings(roster, status=1)["runs"]["says"] == "1 queued, 0 in progress. The queue does not move."
    run("STARTED")
    assert findings(roster, status=0)["runs"]["says"] == "1 queued, 1 in progress."


def test_a_shard_that_ended_early(roster: Roster, dagster: None, synced: str, database: Database) -> None:
    """R11.2: the districts after the end were not synced. A second attempt that succeeded replaces the first."""

    def shard(status: str, first: str | None = None) -> str:
        with opened(database) as found:
            run = dg.DagsterRun(
                job_name="sync_shard",
                status=dg.DagsterRunStatus[status],
                remote_job_origin=RemoteJobOrigin(REPOSITORY, "sync_shard"),
                root_run_id=first,
                parent_run_id=first,
            )
            return found.instance.add_run(run).run_id

    shard("SUCCESS")
    first = shard("FAILURE")
    found = findings(roster, status=1)["shards"]
    assert found["numbers"] == {"shards": 2, "ended_early": [first]}
    shard("SUCCESS", first)
    assert findings(roster, status=0)["shards"]["numbers"] == {"shards": 2, "ended_early": []}
