"""Dagster's health, as its database shows it: the daemon runs, schedules and sensors are on, and the queue of runs moves.

Belongs here: reading Dagster's instance for `roster health`. Does not belong here: what the application's database shows
(`fleet/health.py`).
"""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import sqlalchemy as sa
from dagster import DagsterRunStatus, RunsFilter

# Dagster exports no public names for the state of a schedule or sensor and its ticks, though `DagsterInstance` returns them.
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData, TickStatus
from sqlalchemy import URL

from roster_pipeline.defs import shards
from roster_pipeline.fleet.findings import Finding, named

# A daemon writes a heartbeat every 30 seconds, or later if one of its ticks takes long.
_DEAD_AFTER = timedelta(minutes=5)
_LATE_TICK = timedelta(minutes=10)
_STUCK_AFTER = timedelta(minutes=15)
# A night and the day after it.
_SHARDS_OF = timedelta(hours=26)
_START = "Start `roster dev`, or the service that runs the daemon."
_CONNECT_SECONDS = 5
_VARIABLE = "ROSTER_DAGSTER_URL"
_PROJECT = Path(__file__).resolve().parents[2]


def dagster_health(url: URL, *, automations: Collection[str], now: datetime) -> list[Finding]:
    """Every finding about Dagster.

    Args:
        url: the address of Dagster's own database.
        automations: the names of the schedules and sensors that should be on.
        now: aware UTC.
    """
    if not _has_run(url):
        return [Finding("daemon", "problem", "Dagster's database cannot be opened or is empty: nothing runs by itself.", _START)]
    with _instance(url) as instance:
        daemon = _daemon(instance, now)
        # If the daemon is down, the other findings would only repeat that.
        return (
            [daemon]
            if daemon.verdict == "problem"
            else [
                daemon,
                _automations(instance, automations, now),
                _queue(instance, now),
                _shards(instance, now),
            ]
        )


def _has_run(url: URL) -> bool:
    """Whether Dagster has ever used this database. Checked first, because opening the instance creates its tables, and retries for a long
    time if there is no database."""
    engine = sa.create_engine(url, connect_args={"connect_timeout": _CONNECT_SECONDS}, poolclass=sa.NullPool)
    try:
        return bool(sa.inspect(engine).has_table("daemon_heartbeats"))
    except sa.exc.OperationalError:
        return False
    finally:
        engine.dispose()


@contextmanager
def _instance(url: URL) -> Iterator[dg.DagsterInstance]:
    """The instance on this database, whether DAGSTER_HOME is set in this process or not. It leaves no files."""
    own = Path(os.environ.get("DAGSTER_HOME", "")) / "dagster.yaml"
    before = os.environ.get(_VARIABLE)
    with TemporaryDirectory() as home:
        shutil.copyfile(own if own.is_absolute() and own.exists() else _PROJECT / "dagster.yaml", Path(home) / "dagster.yaml")
        os.environ[_VARIABLE] = url.render_as_string(hide_password=False)
        try:
            with dg.DagsterInstance.from_config(home) as instance:
                yield instance
        finally:
            if before is None:
                del os.environ[_VARIABLE]
            else:
                os.environ[_VARIABLE] = before


def _daemon(instance: dg.DagsterInstance, now: datetime) -> Finding:
    heartbeats = instance.get_daemon_heartbeats()
    last = {name: heartbeats[name].timestamp if name in heartbeats else 0.0 for name in instance.get_required_daemon_types()}
    oldest = datetime.fromtimestamp(min(last.values()), UTC)
    dead = sorted(name for name, timestamp in last.items() if now - datetime.fromtimestamp(timestamp, UTC) > _DEAD_AFTER)
    numbers = {"last_heartbeat": oldest, "dead": dead}
    if not dead:
        return Finding("daemon", "ok", "Alive.", numbers=numbers)
    if len(dead) == len(last):
        newest = datetime.fromtimestamp(max(last.values()), UTC)
        says = f"Not running: its last heartbeat was at {newest:%Y-%m-%d %H:%M} UTC. Nothing runs by itself."
        return Finding("daemon", "problem", says, _START, numbers)
    return Finding("daemon", "problem", f"Parts of it hang: {', '.join(dead)}.", "Restart the daemon; its log says why.", numbers)


def _automations(instance: dg.DagsterInstance, expected: Collection[str], now: datetime) -> Finding:
    """Whether all schedules and sensors run. Somebody may have switched one off, the code location may not load, or its code may raise."""
    states = {state.name: state for state in instance.all_instigator_state() if state.name in expected}
    stopped = sorted(name for name, state in states.items() if state.status == InstigatorStatus.STOPPED)
    late = sorted(name for name, state in states.items() if name not in stopped and _is_late(state, now))
    # The daemon has never evaluated those without a state.
    unseen = sorted(set(expected) - set(states))
    failing = sorted(name for name, state in states.items() if name not in stopped and _has_failed(instance, state))
    numbers = {"expected": len(expected), "stopped": stopped, "late": late, "unseen": unseen, "failing": failing}
    what = "schedules and sensors"
    if stopped:
        return Finding(what, "problem", f"Switched off: {', '.join(stopped)}.", "Switch them on in Dagster's UI, page Automation.", numbers)
    if late or unseen:
        do = "Check in Dagster's UI, page Deployment, whether the code location loads."
        return Finding(what, "problem", f"Not running: {', '.join([*late, *unseen])}.", do, numbers)
    if failing:
        do = "Its ticks in Dagster's UI, page Automation, say why."
        return Finding(what, "warning", f"The last tick failed: {', '.join(failing)}.", do, numbers)
    return Finding(what, "ok", f"All {len(expected)} are on.", numbers=numbers)


def _is_late(state: InstigatorState, now: datetime) -> bool:
    """Whether a sensor's tick is late. A schedule never is: its ticks are hours apart. `fleet/health.py` finds a night without syncs."""
    data = state.instigator_data
    if not isinstance(data, SensorInstigatorData) or data.last_tick_timestamp is None:
        return False
    every = timedelta(seconds=data.min_interval or 30)
    return now - datetime.fromtimestamp(data.last_tick_timestamp, UTC) > every + _LATE_TICK


def _has_failed(instance: dg.DagsterInstance, state: InstigatorState) -> bool:
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    return any(tick.status == TickStatus.FAILURE for tick in ticks)


def _shards(instance: dg.DagsterInstance, now: datetime) -> Finding:
    """Whether every shard of the last day reached its last district. A district that fails does not fail its shard."""
    newest: dict[str, dg.DagsterRun] = {}
    for run in instance.get_runs(RunsFilter(job_name=shards.job.name, created_after=now - _SHARDS_OF)):
        newest.setdefault(run.root_run_id or run.run_id, run)  # The newest attempt comes first.
    early = [run.run_id for run in newest.values() if run.status in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)]
    numbers = {"shards": len(newest), "ended_early": early}
    if not early:
        return Finding("shards", "ok", f"{len(newest)} in the last day, none ended early.", numbers=numbers)
    says = f"{len(early)} of {len(newest)} of the last day ended early, so their last districts were not synced: run {named(early)}."
    do = "The run's page in Dagster says why; `roster status` shows which districts have no sync, `roster request DISTRICT` syncs one."
    return Finding("shards", "problem", says, do, numbers)


def _queue(instance: dg.DagsterInstance, now: datetime) -> Finding:
    queued = instance.get_run_records(RunsFilter(statuses=[DagsterRunStatus.QUEUED]), limit=1, ascending=True)
    waiting = instance.get_runs_count(RunsFilter(statuses=[DagsterRunStatus.QUEUED]))
    going = instance.get_runs_count(RunsFilter(statuses=[DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]))
    numbers = {"queued": waiting, "in_progress": going}
    says = f"{waiting} queued, {going} in progress."
    # A long queue that drains is normal at night.
    if queued and not going and now - queued[0].create_timestamp > _STUCK_AFTER:
        return Finding("runs", "problem", f"{says} The queue does not move.", "Restart the daemon; its log says why.", numbers)
    return Finding("runs", "ok", says, numbers=numbers)
