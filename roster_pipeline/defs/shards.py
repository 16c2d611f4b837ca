"""A run that syncs many districts, several at a time, for nights with many districts (R11.2).

Belongs here: the order, the second attempts, and the events about each district. Does not belong here: the process of each district
(`fleet/children.py`), and which districts are in which shard (`nightly.py`).

A run per district would mean a thousand starts of Dagster a night. The result in the asset graph is the same: the same assets are
materialized for the same partitions.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any, cast

import dagster as dg
import sqlalchemy as sa
from pydantic import Field
from sqlalchemy import Connection

from roster_pipeline.alerts.delivery import delivering
from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.database.tables import APPLIED, districts, syncs
from roster_pipeline.defs.failures import as_dagster_failures
from roster_pipeline.defs.report import table
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.sync import (
    CHECKS,
    LAST_REPORTED_AT,
    evaluation,
    keep_connections,
    not_shown,
    observation_of,
    results_of,
    second_attempt,
    summary,
    synced,
)
from roster_pipeline.defs.tags import origin_of
from roster_pipeline.errors import described
from roster_pipeline.fleet.children import Failure, Outcome, Unreported, sync_here, sync_in_child
from roster_pipeline.fleet.side_by_side import side_by_side
from roster_pipeline.fleet.tokens import SharedTokens
from roster_pipeline.sync.plan import IN_WINDOW
from roster_pipeline.sync.run import SyncReport, SyncRequest

# The pause before the second attempt, for the case that the database or Clever was away for a moment. As in a run of one district.
PAUSE_SECONDS = 60.0
ATTEMPTS = 2
# Dagster's tag that overrides `max_runtime_seconds` of dagster.yaml for one run. That limit is meant for a run of one district.
MAX_RUNTIME = "dagster/max_runtime"
MAX_RUNTIME_SECONDS = 12 * 3600

DESCRIPTION = """Sync many districts, ROSTER_SHARD_DISTRICTS_AT_ONCE at a time, each in a process of its own with a time and a memory limit.

The nightly schedules start it when many districts are due. **To sync one district, use `sync_district`.**

It succeeds even if districts fail. The table at the end of the run says how each sync ended, the check `synced` at `clever/districts` is
red for those that failed, and `ops.syncs` and the alerts have the reasons.
"""

_COLUMNS = {"district": "string", "status": "string", "sync_id": "int", "attempts": "int", "seconds": "float", "message": "string"}
Event = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation

# The row of a district that an earlier run of the same shard has synced.
_DONE = {"status": "successful", "attempts": 0, "seconds": 0.0, "message": "Synced before this shard was started again."}

# The order of the table, because it shows only the first hundred districts.
_WORST_FIRST = ("failed", "running", "skipped", "held", "successful")


class Shard(dg.Config):
    """The districts that a run syncs."""

    districts: list[str] = Field(description="Clever ids, in the order in which their syncs begin.")


@dg.op(out=dg.Out(dg.Nothing))
def sync_districts(context: dg.OpExecutionContext, config: Shard, roster_database: RosterDatabase) -> Iterator[Event | dg.Output[None]]:
    """Sync every district once. At the end, try those again that failed, if trying again can help."""
    keep_connections(context.instance)
    settings, origin = roster_database.settings, origin_of(context.run)
    at_once, tokens = settings.roster_shard_districts_at_once, SharedTokens(settings)
    ended: dict[str, dict[str, Any]] = {}
    try:
        with as_dagster_failures(), roster_database.open() as database, delivering(database, settings):
            done = _done_before(database, context.run)
            ended |= {district: _DONE | {"district": district, "sync_id": sync_id} for district, sync_id in done.items()}

            def sync(district: str, stop: threading.Event) -> Outcome:
                work = partial(sync_here, tokens=tokens.get())
                return sync_in_child(database, settings, SyncRequest(district, origin), work=work, stop=stop)

            waiting = [district for district in dict.fromkeys(config.districts) if district not in done]
            for attempt in range(1, ATTEMPTS + 1):
                again = []
                with closing(side_by_side(sync, waiting, at_once=at_once)) as results:
                    for district, outcome, seconds in results:
                        ended[district] = {**_row(district, outcome), "attempts": attempt, "seconds": round(seconds, 1)}
                        yield from _report(context, database, district, outcome)
                        if isinstance(outcome, Failure) and outcome.is_transient:
                            again.append(district)
                waiting = again
                if waiting and attempt < ATTEMPTS:
                    time.sleep(PAUSE_SECONDS)
    except dg.Failure as failure:
        # A district that fails does not fail the shard. So this is the shard's own failure: it could not use the database.
        raise second_attempt(failure, context.retry_number) from None
    yield dg.Output(None, metadata=_metadata(list(ended.values())))


@dg.job(name="sync_shard", description=DESCRIPTION, executor_def=dg.in_process_executor, tags={MAX_RUNTIME: MAX_RUNTIME_SECONDS})
def job() -> None:
    """One shard."""
    sync_districts()


def _done_before(database: Database, run: dg.DagsterRun) -> dict[str, int]:
    """The districts that earlier runs of this shard have synced, with the sync's id. Dagster starts a shard again if its process died."""
    earlier = {run_id for run_id in (run.root_run_id, run.parent_run_id) if run_id is not None}
    if not earlier:
        return {}
    query = (
        sa.select(districts.c.clever_id, syncs.c.sync_id)
        .join(districts, districts.c.district_id == syncs.c.district_id)
        .where(syncs.c.dagster_run_id.in_(earlier), syncs.c.status.in_(APPLIED))
        .order_by(syncs.c.sync_id)
    )
    with translate_database_errors(), database.engine.connect() as connection:
        return {row.clever_id: row.sync_id for row in connection.execute(query)}


def _report(context: dg.OpExecutionContext, database: Database, district: str, outcome: Outcome) -> Iterator[Event]:
    """The results that a run of this district alone would report, as events about its partition."""
    if isinstance(outcome, Failure):
        context.log.warning(f"District {district}: {outcome.status}. {outcome.reason}")
        if outcome.status == "failed":
            yield evaluation(synced(outcome.reason), district)
        return
    if isinstance(outcome, Unreported):
        context.log.warning(not_shown(outcome.sync_id, "Its process ended before it reported."))
        yield evaluation(synced(), district)
        return
    try:
        context.log.info(summary(outcome))
        events = _events(context.instance, database, outcome)
    except Exception as error:  # noqa: BLE001 - it costs the events of this district, and never the districts after it
        context.log.warning(not_shown(outcome.sync_id, described(error)))
        events = [evaluation(synced(), district)]
    yield from events


def _events(instance: dg.DagsterInstance, database: Database, report: SyncReport) -> list[Event]:
    """The events that change what Dagster shows about a district. An event costs 3 ms and 2 kB, and most districts do not change."""
    district = report.district.clever_id
    last_reported = _last_reported(instance, district)
    with translate_database_errors(), database.engine.connect() as connection:
        if _is_unchanged_since(connection, report, last_reported):
            # No table has been built since, and no result of a check has changed.
            return [observation_of(connection, report), evaluation(synced(), district)]
        before = _counts(connection, report, last_reported)
    # Nearly all of a hundred checks pass every night. A check that passes, and passed in the last reported sync, is not reported again.
    known = {(check.asset, check.name) for check in CHECKS if before and check.result(before).passed}
    events: list[Event] = []
    for result in results_of(database, report):
        key = cast("dg.AssetKey", result.asset_key)
        if isinstance(result, dg.MaterializeResult):
            events.append(dg.AssetMaterialization(key, partition=district, metadata=result.metadata))
        elif not result.passed or (".".join(key.path), result.check_name) not in known:
            events.append(evaluation(result, district))
    return events


def _last_reported(instance: dg.DagsterInstance, district: str) -> int:
    """The newest sync that Dagster has all results of; 0 if there is none. It is read from Dagster, because events can be lost."""
    last_asset = dg.AssetRecordsFilter(asset_key=LAST_REPORTED_AT, asset_partitions=[district])
    records = instance.fetch_materializations(last_asset, limit=1).records
    event = records[0].asset_materialization if records else None
    # A materialization that somebody has reported by hand has no sync_id.
    sync_id = event.metadata.get("sync_id") if event else None
    return int(str(sync_id.value)) if sync_id else 0


def _is_unchanged_since(connection: Connection, report: SyncReport, last_reported: int) -> bool:
    """Whether this sync, and every other one since the last reported sync, found the district unchanged."""
    planned = sa.exists().where(
        syncs.c.district_id == report.district.district_id,
        syncs.c.sync_id.between(last_reported + 1, report.sync_id),
        syncs.c.status.in_(APPLIED),
        ~syncs.c.counts.has_key("settled_since"),
    )
    # If Dagster knows a higher sync_id, the application's database was restored or replaced.
    return 0 < last_reported < report.sync_id and not connection.execute(sa.select(planned)).scalar_one()


def _counts(connection: Connection, report: SyncReport, last_reported: int) -> Mapping[str, Any]:
    """The counts of the last reported sync; empty if they lack a key of this sync's counts, as those of an older release may."""
    query = sa.select(syncs.c.counts).where(syncs.c.district_id == report.district.district_id, syncs.c.sync_id == last_reported)
    counts: Mapping[str, Any] = connection.execute(query).scalar() or {}
    # No check reads these keys, which say what kind of plan a sync made, and in which window.
    return counts if counts.keys() >= report.counts.keys() - {"settled_since", "touched", "window", *IN_WINDOW} else {}


def _row(district: str, outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Failure):
        return {"district": district, "status": outcome.status, "sync_id": None, "message": outcome.reason}
    return {"district": district, "status": outcome.status, "sync_id": outcome.sync_id, "message": outcome.message}


def _metadata(ended: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = dict.fromkeys(_WORST_FIRST, 0)
    for row in ended:
        numbers[row["status"]] += 1
    shown = sorted(ended, key=lambda row: _WORST_FIRST.index(row["status"]))
    return {"districts": len(ended), **numbers, "outcomes": table(shown, _COLUMNS)}
