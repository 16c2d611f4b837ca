"""`roster health`: what it finds, what makes it unhealthy, and that it says what to do."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
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

from roster_pipeline.alerts.delivery import receivers
from roster_pipeline.database.engine import Database, ensure_dagster_database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.definitions import defs
from roster_pipeline.defs.health import _instance
from roster_pipeline.districts.nights import last_scheduled_at
from roster_pipeline.fleet.health import database_health
from roster_pipeline.settings import Settings

from .conftest import Roster

Query = Callable[..., list[Any]]
REPOSITORY = RemoteRepositoryOrigin(
    ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(python_file="x"), "roster_pipeline"), "__repository__"
)
AUTOMATIONS = sorted(each.name for each in [*(defs.schedules or ()), *(defs.sensors or ())])


@pytest.fixture
def nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> str:
    """A receiver that nothing is sent to."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"json://127.0.0.1:{free.getsockname()[1]}/secret"
    monkeypatch.setenv("ROSTER_ALERT_URLS", url)
    return url


class Dagster:
    """Dagster's database as a daemon leaves it."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance

    def beat(self, now: datetime, *, but: str = "") -> None:
        """Every part of the daemon lives, but one."""
        for kind in self.instance.get_required_daemon_types():
            if kind != but:
                self.instance.add_daemon_heartbeat(DaemonHeartbeat(now.timestamp(), kind, "daemon", []))

    def automation(self, name: str, status: InstigatorStatus, last_tick: datetime) -> None:
        """A schedule or sensor that the daemon has looked at."""
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
    """A daemon that is well."""
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
    """A district that has been active for long, synced now. Its Clever id."""
    query(
        "insert into app.districts (clever_id, name, domain, profile, status, updated_at) "
        "values ('d1', 'Test', 'test.example.org', 'typing_agent', 'active', '2026-01-01')"
    )
    query("insert into ops.syncs (district_id, status, started_at, finished_at) values (1, 'successful', now(), now())")
    return "d1"


def test_all_is_well(roster: Roster, dagster: None, synced: str, nobody_is_told: str) -> None:
    """One line for everything that is looked at; exit status 0; the receiver's URL is a secret."""
    found = findings(roster, status=0)
    assert list(found) == [
        "daemon", "schedules and sensors", "runs",
        "crashed syncs", "night 21:00", "night 00:00", "freshness", "requests", "holds", "alerts",
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
    """Where its database does not exist, nothing is made: the daemon does not run."""
    found = findings(roster, status=1)
    assert "nothing runs by itself" in found["daemon"]["says"]
    assert "roster dev" in found["daemon"]["do"]
    assert "schedules and sensors" not in found
    assert "Unhealthy: 1 problems" in roster("health").out


def test_a_dead_daemon_and_one_that_hangs(roster: Roster, dagster: None, database: Database) -> None:
    """Two causes, two things to do."""
    now = datetime.now(UTC)
    with opened(database) as found:
        found.beat(now - timedelta(minutes=6))
    dead = findings(roster, status=1)["daemon"]
    assert dead["says"].startswith("Not running")
    with opened(database) as found:
        found.beat(now, but="SENSOR")
    hangs = findings(roster, status=1)["daemon"]
    assert hangs["says"] == "Parts of it hang: SENSOR."


def test_automations_that_do_not_run(roster: Roster, dagster: None, database: Database) -> None:
    """Switched off by somebody, or not looked at any more: each by its name. One of an older release does not count."""
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
    """Only where no run is in progress: a long queue that is worked off is a night."""

    def run(status: str) -> None:
        with opened(database) as found:
            found.instance.add_run(
                dg.DagsterRun(
                    job_name="freshness", status=dg.DagsterRunStatus[status], remote_job_origin=RemoteJobOrigin(REPOSITORY, "freshness")
                )
            )

    def wait(minutes: int) -> None:
        url = database.dagster_url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("update runs set create_timestamp = create_timestamp - make_interval(mins => %s)", (minutes,))

    run("QUEUED")
    wait(14)
    assert findings(roster, status=0)["runs"]["says"] == "1 queued, 0 in progress."
    wait(2)
    assert findings(roster, status=1)["runs"]["says"] == "1 queued, 0 in progress. The queue does not move."
    run("STARTED")
    assert findings(roster, status=0)["runs"]["says"] == "1 queued, 1 in progress."


# --- what the application's database knows ---


def known(database: Database, now: datetime | None = None) -> dict[str, dict[str, Any]]:
    """Without Dagster, which takes seconds to set up."""
    with database.engine.connect() as session:
        connection = session.execution_options(isolation_level="AUTOCOMMIT")
        found = database_health(connection, Settings(), now=now or datetime.now(UTC))
    return {each.what: asdict(each) for each in found}


def test_a_night_that_is_not_complete(synced: str, query: Query, database: Database) -> None:
    """R11.1: a district that was due and had no sync by morning is a problem, one that failed a warning, one that began later neither."""
    moment = last_scheduled_at("21:00", datetime.now(UTC))
    midnight, noon = moment + timedelta(hours=3), moment + timedelta(hours=15)
    query("update ops.syncs set started_at = :at, requested_at = :at", at=moment - timedelta(minutes=1))
    night = known(database, midnight)["night 21:00"]
    assert (night["verdict"], night["numbers"]["due"], night["numbers"]["ended"]) == ("ok", 1, 0)
    night = known(database, noon)["night 21:00"]
    assert (night["verdict"], night["numbers"]["missing"]) == ("problem", [synced])
    query("update app.districts set updated_at = :at", at=moment + timedelta(minutes=1))
    assert known(database, noon)["night 21:00"]["numbers"]["due"] == 0
    query("update ops.syncs set status = 'failed', started_at = :at", at=moment + timedelta(minutes=1))
    night = known(database, noon)["night 21:00"]
    assert (night["verdict"], night["numbers"]["failed"], night["numbers"]["missing"]) == ("warning", [synced], [])


def test_a_silent_district(synced: str, query: Query, database: Database) -> None:
    """R11.8: over 26 hours."""
    query("update ops.syncs set finished_at = now() - interval '27 hours'")
    found = known(database)["freshness"]
    assert found["numbers"] == {"active": 1, "silent": [synced]}
    assert "roster status" in found["do"]


@pytest.mark.parametrize(("seconds", "verdict"), [(10, "ok"), (60, "warning"), (400, "problem")])
def test_requests_that_wait(seconds: int, verdict: str, synced: str, query: Query, database: Database) -> None:
    """R11.3: later than 30 seconds; not where the district is being synced meanwhile."""
    query("insert into ops.syncs (district_id, requested_at) values (1, now() - make_interval(secs => :seconds))", seconds=seconds)
    assert known(database)["requests"]["verdict"] == verdict
    with database.engine.connect() as session, district_lock(session.execution_options(isolation_level="AUTOCOMMIT"), 1, synced):
        assert known(database)["requests"]["verdict"] == "ok"


def test_holds_and_crashes_are_warnings(synced: str, query: Query, database: Database) -> None:
    """R7.4, R11.4: people have to look, but everything runs; what has crashed is marked."""
    query("insert into ops.syncs (district_id, status, started_at) values (1, 'processing', now())")
    query("insert into ops.holds (sync_id, district_id, kind, plan_hash, status) values (1, 1, 'relinks', 'x', 'open')")
    found = known(database)
    assert (found["crashed syncs"]["verdict"], found["crashed syncs"]["numbers"]) == ("warning", {"marked_as_failed": 1})
    assert (found["holds"]["verdict"], found["holds"]["numbers"]["open"]) == ("warning", 1)
    assert query("select count(*) from ops.syncs where status = 'processing'") == [(0,)]


def test_alerts_that_reach_nobody(
    synced: str, query: Query, database: Database, nobody_is_told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11.8: none to tell is a warning, one that refuses a problem; named by position, because the URLs hold secrets."""
    (receiver,) = receivers(Settings())
    failing = "insert into ops.alert_receivers (receiver, failures, next_attempt_at) values (:name, 3, now())"
    query(failing, name=receiver.name)
    assert known(database)["alerts"]["numbers"]["refusing"] == [1]
    monkeypatch.setenv("ROSTER_ALERT_URLS", "nothing://secret")
    found = known(database)["alerts"]
    assert found["numbers"]["unusable"] == [1]
    assert "secret" not in str(found)
    monkeypatch.delenv("ROSTER_ALERT_URLS")
    assert known(database)["alerts"]["verdict"] == "warning"
