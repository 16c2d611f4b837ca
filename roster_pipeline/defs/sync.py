"""The sync of one district, as one multi-asset and one job.

Belongs here: calling `run_sync` and yielding its results. Does not belong here: what they contain (`report.py`, `checks.py`), and a run
that syncs many districts (`shards.py`), which reports the same results for each.
"""

import warnings
from collections.abc import Iterator
from typing import cast

import dagster as dg
from sqlalchemy import Connection

from roster_pipeline import contracts
from roster_pipeline.alerts.delivery import delivering
from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.database.migrate import column_types, known_tables
from roster_pipeline.database.runner import slowest
from roster_pipeline.defs.assets import UNAPPROVED, agreement_assets, asset_key, synced_assets
from roster_pipeline.defs.checks import all_checks
from roster_pipeline.defs.districts import districts
from roster_pipeline.defs.failures import NO_SYNC, as_dagster_failures
from roster_pipeline.defs.lineage import lineage
from roster_pipeline.defs.report import WHOLE_SYNC_AT, is_accepted, metadata_of, read_numbers, whole_sync
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.tags import WINDOW, origin_of
from roster_pipeline.sync.run import SyncReport, SyncRequest, project_models, run_sync

MODELS = project_models()
GRAPH = lineage(MODELS, known_tables(), [*contracts.RESOURCES, "districts"])
CHECKS = tuple(all_checks(MODELS, GRAPH))
# The check that the district's last sync succeeded. It is at the first asset of every sync.
SYNCED, SYNCED_AT = "synced", asset_key(WHOLE_SYNC_AT)
# Results are reported in data-flow order; this asset comes last.
LAST_REPORTED_AT = asset_key(GRAPH.modelled[-1].name)
AGREEMENT = tuple(agreement_assets(GRAPH, column_types()))

DESCRIPTION = """Sync one district with Clever now.

**To run it:** *Materialize all…*, choose the district's partition (its Clever id), *Launch 1 run*. Nothing has to be configured. The tags
`requested_by` and `reason`, if you add them, are stored in `ops.syncs`.

**Safe at any time:** a district's changes are applied all together or not at all. A second run changes nothing. If the district is being
synced already, the run is refused with the id of the running sync.

**When it fails:** the run's last error says what happened and what to do. Nothing was written. A failed check is about the data and does
not fail the run: it says how many records broke which rule, or which brake holds something until somebody decides.
"""


def _synced_spec() -> dg.AssetCheckSpec:
    description = "The district's last sync in Dagster did not fail. If it did, nothing was written, and `ops.syncs` has the reason too."
    with warnings.catch_warnings(category=dg.PreviewWarning, action="ignore"):
        return dg.AssetCheckSpec(SYNCED, asset=SYNCED_AT, description=description, partitions_def=districts)


def synced(reason: str | None = None) -> dg.AssetCheckResult:
    """The result of the check `synced`: passed, or failed for this reason (ids and counts only)."""
    return dg.AssetCheckResult(
        asset_key=SYNCED_AT,
        check_name=SYNCED,
        passed=reason is None,
        # A warning, because the run or the shard, and an alert, report the failure already. The check shows it by district.
        severity=dg.AssetCheckSeverity.WARN,
        metadata={} if reason is None else {"reason": reason},
    )


def evaluation(result: dg.AssetCheckResult, district: str) -> dg.AssetCheckEvaluation:
    """A check's result as an event about one district. The run that writes it may be about other districts, or none."""
    return dg.AssetCheckEvaluation(
        asset_key=cast("dg.AssetKey", result.asset_key),
        check_name=str(result.check_name),
        passed=result.passed,
        severity=result.severity,
        metadata=result.metadata,
        partition=district,
    )


def results_of(database: Database, report: SyncReport) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """The results of a finished sync for every asset and check, in data-flow order. The tables are read at the start.

    Raises:
        RosterError: the database could not be read.
    """
    with translate_database_errors(), database.engine.connect() as connection:
        numbers = read_numbers(report, connection, {model.name: known_tables()[model.name] for model in GRAPH.modelled})
    accepted = is_accepted(report)
    for name in (*GRAPH.pulled, *(model.name for model in GRAPH.modelled)):
        if accepted or not name.startswith(UNAPPROVED):
            yield dg.MaterializeResult(asset_key=asset_key(name), metadata=metadata_of(name, report, numbers))
        if asset_key(name) == SYNCED_AT:
            yield synced()
        yield from (check.result(report.counts) for check in CHECKS if check.asset == name)


def observation_of(connection: Connection, report: SyncReport) -> dg.AssetObservation:
    """The event of a sync that found the district unchanged: the numbers of the sync itself, because it built no table."""
    metadata = {"sync_id": str(report.sync_id), **whole_sync(report, connection)}
    return dg.AssetObservation(SYNCED_AT, partition=report.district.clever_id, metadata=metadata)


def no_results() -> Iterator[dg.Output[None]]:
    """What a successful run yields that has no result of any check: Dagster requires an output of each. It records nothing about them."""
    for spec in sync_assets.check_specs:
        yield dg.Output(None, output_name=spec.get_python_identifier())


def second_attempt(failure: dg.Failure, retry_number: int) -> Exception:
    """The exception to raise for a failure. After the first attempt it asks Dagster to retry the step in a minute, if that can help: the
    database may have been away for a moment. Faults of Clever are retried inside the pull (R3.3).

    A `RetryPolicy` is not used, because it would also restart a run that somebody has just cancelled.
    """
    if failure.allow_retries and retry_number == 0:
        return dg.RetryRequested(max_retries=1, seconds_to_wait=60)
    return failure


@dg.multi_asset(
    name="sync",
    specs=list(synced_assets(GRAPH, column_types())),
    check_specs=[_synced_spec(), *(check.spec() for check in CHECKS)],
    # A sync is one transaction: launching any asset syncs the whole district.
    can_subset=False,
)
def sync_assets(
    context: dg.AssetExecutionContext, roster_database: RosterDatabase
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult | dg.AssetCheckEvaluation | dg.AssetObservation | dg.Output[None]]:
    """Sync the district of this run's partition."""
    district, report, results = context.partition_key, None, []
    try:
        with as_dagster_failures(), roster_database.open() as database, delivering(database, roster_database.settings):
            report = run_sync(database, roster_database.settings, SyncRequest(district, origin_of(context.run)))
            if (window := report.counts.get("window")) is not None:
                context.instance.add_run_tags(context.run_id, {WINDOW: f"{window['kind']} {window['window_id']}"})
            context.log.info(summary(report))
            keep_connections(context.instance)
            results = list(results_of(database, report))
    except NO_SYNC as ended:
        context.log.info(f"No sync. {ended.reason}")
        yield dg.AssetObservation(SYNCED_AT, partition=district, metadata={"no_sync": ended.reason})
    except dg.Failure as failure:
        if report is None:
            # A lock conflict says nothing about the district's last sync.
            if "running_sync_id" not in failure.metadata:
                yield evaluation(synced(failure.description), district)
            raise second_attempt(failure, context.retry_number) from None
        # R11.4: what follows the commit changes nothing of how the sync has ended.
        context.log.warning(not_shown(report.sync_id, str(failure.description)))
        if not results:
            yield dg.AssetObservation(SYNCED_AT, partition=district, metadata={"sync_id": str(report.sync_id), "not_shown": True})
            yield evaluation(synced(), district)
    yield from results or no_results()


job = dg.define_asset_job(
    "sync_district",
    selection=dg.AssetSelection.assets(sync_assets),
    description=DESCRIPTION,
    executor_def=dg.in_process_executor,
)


def keep_connections(instance: dg.DagsterInstance) -> None:
    """Let this process write many events over connections that stay open, as Dagster's web server does.

    By default dagster-postgres opens a connection for every query: 1,300 times in a run of 30 assets and 90 checks, which is two thirds of
    its time. A connection is reused for 5 seconds only, because the server may have been restarted.
    """
    instance.optimize_for_webserver(statement_timeout=60_000, pool_recycle=5, max_overflow=2)  # milliseconds, seconds, connections


def not_shown(sync_id: int, reason: str) -> str:
    """What is said about an applied sync whose results cannot be shown."""
    return f"Sync {sync_id} is applied, but not shown in Dagster. {reason}"


def summary(report: SyncReport) -> str:
    """A sync in one line."""
    done = f"Sync {report.sync_id} of district {report.district.clever_id}: {report.status}. {report.message}"
    return f"{done} Slowest steps: {slowest(report.steps)}."
