"""The sensor that starts requested syncs (R11.3): queued rows of `ops.syncs`, from `roster request` or from the application.

Belongs here: one run per request, and another one if a run ended before its sync began. Does not belong here: which requests may start
(`fleet/requests.py`), and what a run does with its row (`sync/ledger.py`).
"""

from collections import defaultdict

import dagster as dg

from roster_pipeline.database.clock import database_time
from roster_pipeline.defs.districts import districts
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.sync import job
from roster_pipeline.defs.tags import SYNC_ID, request_tags
from roster_pipeline.fleet.recovery import mark_crashed_syncs
from roster_pipeline.fleet.requests import Queued, record_tick, startable
from roster_pipeline.sync import ledger

MAX_RETRIES = "dagster/max_retries"
RUNS_PER_REQUEST = 3
GAVE_UP = f"{RUNS_PER_REQUEST} runs ended before this sync began; Dagster's page of runs says why."

_ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
# Dagster created such a run, but did not launch it. Requesting the same run key again launches it.
_NOT_LAUNCHED = {dg.DagsterRunStatus.NOT_STARTED}


@dg.sensor(
    name="requests",
    job=job,
    description="Starts the syncs that wait as `queued` in ops.syncs, and marks syncs whose process has died as failed.",
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def requests(context: dg.SensorEvaluationContext, roster_database: RosterDatabase) -> dg.SensorResult | dg.SkipReason:
    """One run per district with a queued row. A district that is being synced waits for the next tick."""
    with roster_database.session() as connection:
        now = database_time(connection)
        record_tick(connection)
        mark_crashed_syncs(connection, now=now)
        queued = startable(connection, now=now)
        runs = _runs(context.instance, queued)
        starting = []
        for request in queued:
            ended = sum(status in _ENDED for status in runs[request.sync_id])
            if any(status not in _ENDED | _NOT_LAUNCHED for status in runs[request.sync_id]):
                continue
            if ended >= RUNS_PER_REQUEST:
                ledger.dismiss(connection, request.sync_id, now=now, status="failed", message=GAVE_UP)
            else:
                starting.append(_start(request, attempt=ended))
    if not starting:
        return dg.SkipReason("No request waits to be started.")
    missing = {str(each.partition_key) for each in starting} - set(context.instance.get_dynamic_partitions("districts"))
    return dg.SensorResult(
        run_requests=starting, dynamic_partitions_requests=[districts.build_add_request(sorted(missing))] if missing else []
    )


def _runs(instance: dg.DagsterInstance, queued: list[Queued]) -> dict[int, list[dg.DagsterRunStatus]]:
    """The statuses of the runs of these requests, by sync id. None of these runs has begun its sync, because the rows are still queued."""
    runs = defaultdict(list)
    if queued:
        for run in instance.get_runs(dg.RunsFilter(tags={SYNC_ID: [str(each.sync_id) for each in queued]})):
            runs[int(run.tags[SYNC_ID])].append(run.status)
    return runs


def _start(request: Queued, *, attempt: int) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"request-{request.sync_id}-{attempt}",
        partition_key=request.district,
        # No retries by Dagster: after a crash the row is no longer queued. If it still is, the next tick starts another run.
        tags={**request_tags(request.sync_id), MAX_RETRIES: "0"},
    )
