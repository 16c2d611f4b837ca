"""The daily clean-up: old history in `ops`, snapshots of departed districts, old runs in Dagster, and the runs' compute logs.

Belongs here: when it runs, and which of Dagster's runs may be deleted. Does not belong here: what is old (`fleet/retention.py`).

Deleting a run deletes its events, and a partition without events counts as missing. So two runs of each partition stay, whatever their age:
the one of its newest materialization, and the one that last tried to materialize it.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import cache
from itertools import islice

import dagster as dg

from roster_pipeline.database.clock import time_of
from roster_pipeline.defs.failures import as_dagster_failures
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.tags import LANE
from roster_pipeline.fleet.retention import clear_departed, prune_history

# Deleting a run takes about 50 ms. Runs beyond this limit are deleted on the next days.
RUNS_A_DAY = 2_000
_PAGE = 100
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_STATE = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED}


@dg.op(name="prune", out=dg.Out(dg.Nothing), description="Removes what is older than it may be, in small transactions.")
def prune(context: dg.OpExecutionContext, roster_database: RosterDatabase) -> None:
    """One day's clean-up. If it is interrupted, the next day does the rest."""
    settings = roster_database.settings
    with as_dagster_failures(), roster_database.open() as database:
        now = time_of(database)
        removed = prune_history(
            database, keep_syncs_days=settings.roster_keep_syncs_days, keep_changes_days=settings.roster_keep_changes_days, now=now
        )
        removed |= clear_departed(database, keep_disconnected_days=settings.roster_keep_disconnected_days, now=now)
    context.log.info(f"Removed: {_listed(removed)}.")
    runs = prune_runs(context.instance, older_than=now - timedelta(days=settings.roster_keep_runs_days))
    context.log.info(f"Removed from Dagster: {runs} runs with their logs.")


def prune_runs(instance: dg.DagsterInstance, *, older_than: datetime, limit: int = RUNS_A_DAY) -> int:
    """Delete ended runs that were created before `older_than`, the oldest first, with their compute logs. Returns how many."""
    removable = list(islice(_removable(instance, older_than), limit))
    for run_id in removable:
        # The logs first, because nothing refers to them after the run is deleted.
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        instance.delete_run(run_id)
    return len(removable)


def _removable(instance: dg.DagsterInstance, older_than: datetime) -> Iterator[str]:
    """Ids of ended runs, the oldest first, without those that give the status of an asset or a partition."""

    @cache
    def newest(asset: dg.AssetKey, kind: dg.DagsterEventType) -> frozenset[int]:
        return frozenset(instance.get_latest_storage_id_by_partition(asset, kind).values())

    @cache
    def newest_run(asset: dg.AssetKey) -> str | None:
        event = instance.get_latest_materialization_event(asset)
        return event.run_id if event is not None else None

    def is_newest(record: dg.EventLogRecord) -> bool:
        asset, kind = record.asset_key, record.event_log_entry.dagster_event_type
        if asset is None or kind is None:
            return False
        return record.storage_id in newest(asset, kind) or record.run_id == newest_run(asset)

    ended = dg.RunsFilter(statuses=_ENDED, created_before=older_than)
    cursor = None
    while page := instance.get_run_records(ended, limit=_PAGE, cursor=cursor, ascending=True):
        for run_id in (record.dagster_run.run_id for record in page):
            if not any(is_newest(record) for record in instance.get_records_for_run(run_id, of_type=_STATE).records):
                yield run_id
        cursor = page[-1].dagster_run.run_id


def _listed(removed: Mapping[str, int]) -> str:
    return ", ".join(f"{rows:,} {name.replace('_', ' ')}" for name, rows in removed.items())


@dg.job(
    name="retention",
    executor_def=dg.in_process_executor,
    # Its own lane, so that it takes no slot from the syncs of the night.
    tags={LANE: "retention", "dagster/max_runtime": "3600"},
    description="Removes what is older than the ROSTER_KEEP_..._DAYS say: history in ops, Dagster's runs and logs. Safe at any time.",
)
def job() -> None:
    """The clean-up as a job."""
    prune()


schedule = dg.ScheduleDefinition(
    name="retention",
    job=job,
    # Far from both nightly times and from the end of the night.
    cron_schedule="0 10 * * *",
    execution_timezone="America/Los_Angeles",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
