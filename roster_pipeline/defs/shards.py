"""A run that syncs many districts, one after the other: how a large fleet is synced at night (R11.2).

Belongs here: the order, the second attempts, and what is told of each district. Does not belong here: the process that each one has
(`fleet/children.py`), and who is in which shard (`nightly.py`).

A run per district would cost a thousand starts of Dagster a night. The graph looks the same afterwards: the same assets are materialized
for the same partitions.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any, cast

import dagster as dg
import sqlalchemy as sa
from pydantic import Field
from sqlalchemy import Connection

from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.database.tables import APPLIED, districts, syncs
from roster_pipeline.defs.failures import as_dagster_failures
from roster_pipeline.defs.report import table
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.sync import (
    CHECKS,
    LAST_TOLD_AT,
    evaluation,
    keep_connections,
    observation_of,
    results_of,
    second_attempt,
    summary,
    synced,
)
from roster_pipeline.defs.tags import origin_of
from roster_pipeline.errors import RosterError
from roster_pipeline.fleet.children import Failure, Outcome, sync_in_child
from roster_pipeline.sync.run import SyncReport, SyncRequest

log = logging.getLogger(__name__)

# Before districts are tried again: for a database or a Clever that was away for a moment, as in a run of one district.
PAUSE_SECONDS = 60.0
ATTEMPTS = 2
# Dagster's tag for what `max_runtime_seconds` in dagster.yaml says of all runs; that is meant for one district, and a shard is many.
MAX_RUNTIME = "dagster/max_runtime"
MAX_RUNTIME_SECONDS = 12 * 3600

DESCRIPTION = """Sync several districts, one after the other, each in a process of its own with a time and a memory limit.

The nightly schedules start it when many districts are due. **To sync one district, use `sync_district`.**

It succeeds also when districts fail: the table at the end of the run says how each one ended, the check `synced` at `clever/districts` is
red for those that failed, `ops.syncs` has the reasons, and alerts tell them.
"""

_COLUMNS = {"district": "string", "status": "string", "sync_id": "int", "attempts": "int", "seconds": "float", "message": "string"}
Event = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation

# A district that an earlier run of the same shard has synced.
_DONE = {"status": "successful", "attempts": 0, "seconds": 0.0, "message": "Synced before this shard was started again."}

# The order of the table, which shows the first hundred.
_WORST_FIRST = ("failed", "running", "skipped", "held", "successful")


class Shard(dg.Config):
    """Which districts a run syncs."""

    districts: list[str] = Field(description="Clever ids, in the order in which they are synced.")


@dg.op(out=dg.Out(dg.Nothing))
def sync_districts(context: dg.OpExecutionContext, config: Shard, roster_database: RosterDatabase) -> Iterator[Event | dg.Output[None]]:
    """Sync every district once, and once more at the end where that can help."""
    keep_connections(context.instance)
    ended: dict[str, dict[str, Any]] = {}
    try:
        with as_dagster_failures(), roster_database.open() as database:
            done = _done_before(database, context.run)
            ended |= {district: _DONE | {"district": district, "sync_id": sync_id} for district, sync_id in done.items()}
            waiting = [district for district in dict.fromkeys(config.districts) if district not in done]
            for attempt in range(1, ATTEMPTS + 1):
                again = []
                for district in waiting:
                    began = time.monotonic()
                    outcome = sync_in_child(database, roster_database.settings, SyncRequest(district, origin_of(context.run)))
                    ended[district] = {**_row(district, outcome), "attempts": attempt, "seconds": round(time.monotonic() - began, 1)}
                    yield from _tell(context, database, district, outcome)
                    if isinstance(outcome, Failure) and outcome.is_transient:
                        again.append(district)
                waiting = again
                if waiting and attempt < ATTEMPTS:
                    time.sleep(PAUSE_SECONDS)
    except dg.Failure as failure:
        # What districts fail of is no failure of the shard: it had no database.
        raise second_attempt(failure, context.retry_number) from None
    yield dg.Output(None, metadata=_metadata(list(ended.values())))


@dg.job(name="sync_shard", description=DESCRIPTION, executor_def=dg.in_process_executor, tags={MAX_RUNTIME: MAX_RUNTIME_SECONDS})
def job() -> None:
    """A shard."""
    sync_districts()


def _done_before(database: Database, run: dg.DagsterRun) -> dict[str, int]:
    """Where Dagster starts a shard again whose process died: the districts that were synced by then, with the sync's id."""
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


def _tell(context: dg.OpExecutionContext, database: Database, district: str, outcome: Outcome) -> Iterator[Event]:
    """What the run of a single district would say, as events about its partition."""
    if isinstance(outcome, Failure):
        context.log.warning(f"District {district}: {outcome.status}. {outcome.reason}")
        if outcome.status == "failed":
            yield evaluation(synced(outcome.reason), district)
        return
    context.log.info(summary(outcome))
    try:
        events = _events(context.instance, database, outcome)
    except RosterError as error:
        log.warning("sync %s is applied, but not shown in Dagster: %s", outcome.sync_id, error)
        return
    yield from events


def _events(instance: dg.DagsterInstance, database: Database, report: SyncReport) -> list[Event]:
    """What is news about a district. An event costs 3 ms and 2 kB, and of a thousand districts nearly all are as they were yesterday."""
    district, told = report.district.clever_id, _last_told(instance, report.district.clever_id)
    with translate_database_errors(), database.engine.connect() as connection:
        if _is_settled_since(connection, report, told):
            # Nothing was made anew, and every rule and brake has found what it found then.
            return [observation_of(connection, report), evaluation(synced(), district)]
        before = _counts(connection, report, told)
    # Of a hundred checks nearly all pass every night: what passes and passed before is not told again.
    known = {(check.asset, check.name) for check in CHECKS if before and check.result(before).passed}
    events: list[Event] = []
    for result in results_of(database, report):
        key = cast("dg.AssetKey", result.asset_key)
        if isinstance(result, dg.MaterializeResult):
            events.append(dg.AssetMaterialization(key, partition=district, metadata=result.metadata))
        elif not result.passed or (".".join(key.path), result.check_name) not in known:
            events.append(evaluation(result, district))
    return events


def _last_told(instance: dg.DagsterInstance, district: str) -> int:
    """The newest sync of which Dagster was told everything, 0 where there is none. Dagster itself says so: an event may have been lost."""
    at_last = dg.AssetRecordsFilter(asset_key=LAST_TOLD_AT, asset_partitions=[district])
    records = instance.fetch_materializations(at_last, limit=1).records
    event = records[0].asset_materialization if records else None
    # What somebody has reported by hand is of no sync.
    sync_id = event.metadata.get("sync_id") if event else None
    return int(str(sync_id.value)) if sync_id else 0


def _is_settled_since(connection: Connection, report: SyncReport, told: int) -> bool:
    """Whether every sync since has found all as it was, this one too."""
    planned = sa.exists().where(
        syncs.c.district_id == report.district.district_id,
        syncs.c.sync_id.between(told + 1, report.sync_id),
        syncs.c.status.in_(APPLIED),
        ~syncs.c.counts.has_key("settled_since"),
    )
    # A later one is of another database: Dagster's is the older one then.
    return 0 < told < report.sync_id and not connection.execute(sa.select(planned)).scalar_one()


def _counts(connection: Connection, report: SyncReport, told: int) -> Mapping[str, Any]:
    """Of the sync that Dagster was told of; empty where they say less than today's."""
    query = sa.select(syncs.c.counts).where(syncs.c.district_id == report.district.district_id, syncs.c.sync_id == told)
    counts: Mapping[str, Any] = connection.execute(query).scalar() or {}
    # How much a sync planned is nothing that a check is about.
    return counts if counts.keys() >= report.counts.keys() - {"settled_since", "touched"} else {}


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
