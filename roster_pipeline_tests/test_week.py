"""Several nights over the end of daylight-saving time, with an outage, a hold and a crash, compared with the reference model.

It is a short form of `benchmarks/week.py`: the same schedules, sensors and jobs, but without the daemon, and with a clock of the test.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from benchmarks import fleet
from roster_pipeline.database.engine import Database
from roster_pipeline.definitions import defs
from roster_pipeline.defs import freshness, requests
from roster_pipeline.defs import sync as sync_module
from roster_pipeline.defs.nightly import nightly_schedules
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.districts.nights import NIGHTLY_TIMES, PACIFIC
from roster_pipeline.sandbox import Sandbox
from roster_pipeline.settings import settings
from roster_pipeline.support import holds
from roster_pipeline.sync import run
from roster_pipeline.sync.ledger import Origin
from roster_pipeline_tests.defs import runs
from roster_pipeline_tests.defs.conftest import environment
from roster_pipeline_tests.faults import processes

__all__ = ["environment"]

EVENINGS = [date(2026, 10, 31), date(2026, 11, 1), date(2026, 11, 2)]
# Students of each district. The second one is synced at midnight.
SIZES = (20, 45, 20)
SCHEDULED = Origin(trigger="scheduled", requested_role=None)


class Clock:
    """The clock of all code in these tests. Each call is one second later."""

    def __init__(self) -> None:
        self.now = datetime(2026, 10, 31, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def until(self, moment: datetime) -> None:
        assert moment >= self.now
        self.now = moment


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the sensors and syncs in Dagster."""
    time = Clock()

    for module in (freshness, requests):
        monkeypatch.setattr(module, "database_time", lambda _: time())
    monkeypatch.setattr(sync_module, "run_sync", partial(run.run_sync, clock=lambda _: time()))
    return time


@pytest.fixture
def sandbox(clock: Clock) -> Sandbox:
    return Sandbox(clock=lambda: clock().timestamp(), rate_limit=None)


@pytest.fixture
def dagster(environment: None) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_nights_in_a_row(database: Database, sandbox: Sandbox, clock: Clock, dagster: dg.DagsterInstance) -> None:
    """R11.1, R11.2, R11.4, R3.7, R7.4, R7.5, R11.8: at the end, every district equals the model, and every sync and alert is expected."""
    crashing, held, failing = fleet.sign_up(database, sandbox, SIZES)

    # The first night: everything is new. Afterwards, Clever loads newer data of the first district.
    sync_night(dagster, clock, EVENINGS[0])
    sandbox.change(crashing).night_of_changes(0)
    assert refresh(dagster) == [crashing]
    assert refresh(dagster) == []
    assert statuses(database, EVENINGS[0]) == {
        crashing: [("initial", "successful"), ("refresh", "successful")],
        held: [("initial", "successful")],
        failing: [("initial", "successful")],
    }

    # The second night: a token is revoked, and one district does not share a school any more.
    for number, district in enumerate((crashing, held, failing)):
        sandbox.change(district).night_of_changes(number + 1)
    sandbox.change(failing).revoke_token()
    (school, *_) = sandbox.district(held).shared("schools")
    sandbox.change(held).unshare([school])
    sync_night(dagster, clock, EVENINGS[1])
    assert statuses(database, EVENINGS[1]) == {
        crashing: [("scheduled", "successful")],
        held: [("scheduled", "held")],
        failing: [("scheduled", "failed")],
    }
    assert held not in fleet.up_to_date(database)
    approve_all(database, clock)
    sandbox.change(failing).rotate_token()

    # The third night: a process is killed in the middle of its sync, and Dagster starts the sync again.
    sandbox.change(crashing).night_of_changes(4)
    clock.until(fleet.moment_of("21:00", EVENINGS[2]))
    killed_while_syncing(database, crashing, clock)
    assert requests_tick(dagster) == []
    sync_night(dagster, clock, EVENINGS[2])
    assert statuses(database, EVENINGS[2]) == {
        crashing: [("scheduled", "failed"), ("scheduled", "successful")],
        held: [("scheduled", "successful")],
        failing: [("scheduled", "successful")],
    }

    syncs = fleet.recorded_syncs(database)
    assert fleet.up_to_date(database) == [crashing, held, failing]
    assert fleet.differences_from_model(database, sandbox, clock()) == []
    assert fleet.wrong_syncs(syncs) == []
    assert fleet.differences_from_schedule(database, EVENINGS, syncs, {(EVENINGS[2], crashing): 2}) == []
    assert {kind: recorded for kind, (recorded, _) in fleet.alerts(database).items()} == {"hold_opened": opened(database), "sync_failed": 2}


def test_the_checks_find_what_is_wrong(environment: None, database: Database, sandbox: Sandbox, clock: Clock) -> None:
    """Each check at the end of the test above fails for a district that violates it."""
    (district,) = fleet.sign_up(database, sandbox, [20])
    clock.until(fleet.moment_of("21:00", EVENINGS[0]))
    run.run_sync(database, settings(), run.SyncRequest(district, SCHEDULED), clock=lambda _: clock())
    assert fleet.differences_from_model(database, sandbox, clock()) == []
    (student, *_) = sandbox.district(district).shared("users", "student")
    sandbox.change(district).rename(student, first="Ada")
    assert len(fleet.differences_from_model(database, sandbox, clock())) == 2
    with database.engine.begin() as connection:
        for columns, values in (
            ("trigger, requested_role, status, started_at, finished_at", "'scheduled', null, 'successful', started_at, finished_at"),
            ("status, started_at", "'processing', finished_at"),
        ):
            connection.execute(
                sa.text(f"insert into ops.syncs (district_id, {columns}) select district_id, {values} from ops.syncs where sync_id = 1")
            )
    syncs = fleet.recorded_syncs(database)
    assert [line.partition(": ")[2] for line in fleet.wrong_syncs(syncs)] == ["sync 3 is processing", "syncs 1 and 2 overlap"]
    assert len(fleet.differences_from_schedule(database, EVENINGS[:2], syncs, {})) == 2


# --- in place of the daemon ---


def sync_night(instance: dg.DagsterInstance, clock: Clock, evening: date) -> None:
    """Evaluates both schedules at their times, and executes the runs that they request."""
    for nightly_at in NIGHTLY_TIMES:
        moment = fleet.moment_of(nightly_at, evening)
        clock.until(max(moment, clock.now))
        schedule, shards = nightly_schedules(nightly_at, clock=lambda _: clock())
        assert evaluate(shards, moment) == []
        start(instance, evaluate(schedule, moment))


def evaluate(schedule: dg.ScheduleDefinition, moment: datetime) -> list[dg.RunRequest]:
    # A schedule needs an instance that another process could open. Runs are faster in one that is only in memory.
    with (
        dg.instance_for_test() as instance,
        dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=moment.astimezone(PACIFIC),
            resources={"roster_database": RosterDatabase()},
            repository_def=defs.get_repository_def(),
        ) as context,
    ):
        return list(schedule.evaluate_tick(context).run_requests or [])


def start(instance: dg.DagsterInstance, requested: list[dg.RunRequest]) -> None:
    for each in requested:
        runs.run(instance, str(each.partition_key), **each.tags)


def refresh(instance: dg.DagsterInstance) -> list[str]:
    """Evaluates the sensor once, and executes the runs that it requests. Returns the districts."""
    requested = sensor_tick(instance, freshness.refresh)
    start(instance, requested)
    return [str(each.partition_key) for each in requested]


def requests_tick(instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    return sensor_tick(instance, requests.requests)


def sensor_tick(instance: dg.DagsterInstance, sensor: dg.SensorDefinition) -> list[dg.RunRequest]:
    with dg.build_sensor_context(instance=instance, resources={"roster_database": RosterDatabase()}) as context:
        result: Any = sensor(context)
    return list(result.run_requests or []) if isinstance(result, dg.SensorResult) else []


# --- faults and decisions ---


def killed_while_syncing(database: Database, district: str, clock: Clock) -> None:
    """Runs a scheduled sync in a process of its own, which is killed after the first step of its pull."""
    assert processes.killed_in_pull(settings(), run.SyncRequest(district, SCHEDULED), clock()) == processes.KILLED
    clock()


def approve_all(database: Database, clock: Clock) -> None:
    with database.engine.begin() as connection:
        pending = connection.execute(sa.text("select hold_id from ops.holds where status = 'open'")).scalars().all()
        assert pending
        holds.approve(connection, pending, holds.Decider("support"), now=clock())


def opened(database: Database) -> int:
    with database.engine.connect() as connection:
        return int(connection.execute(sa.text("select count(*) from ops.holds")).scalar_one())


def statuses(database: Database, evening: date) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for each in fleet.recorded_syncs(database):
        if each.night == evening:
            found.setdefault(each.clever_id, []).append((each.trigger, each.status))
    return found
