"""The one thing that runs: the sync of one district, as one multi-asset and one job.

Belongs here: calling `run_sync` and yielding what it reports. Does not belong here: what is reported (`report.py`, `checks.py`).
"""

from collections.abc import Iterator

import dagster as dg

from roster_pipeline import contracts
from roster_pipeline.database.engine import translate_database_errors
from roster_pipeline.database.migrate import known_tables
from roster_pipeline.defs.assets import UNAPPROVED, agreement_assets, asset_key, synced_assets
from roster_pipeline.defs.checks import all_checks
from roster_pipeline.defs.failures import as_dagster_failures
from roster_pipeline.defs.lineage import lineage
from roster_pipeline.defs.report import active_rows, is_accepted, metadata_of
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.sync.run import SyncReport, SyncRequest, project_models, run_sync

MODELS = project_models()
GRAPH = lineage(MODELS, known_tables(), [*contracts.RESOURCES, "districts"])
CHECKS = tuple(all_checks(MODELS, GRAPH))
AGREEMENT = tuple(agreement_assets(GRAPH, known_tables()))

DESCRIPTION = """Sync one district with Clever now.

**To run it:** *Materialize all…*, choose the district's partition (its Clever id), *Launch 1 run*. Nothing has to be configured. Tags
`requested_by` and `reason`, if you add them, are kept in `ops.syncs`.

**Safe at any time:** a district's changes are applied all together or not at all, running it twice changes nothing the second time, and a
district that is being synced already is refused with the running sync's number.

**When it fails:** the run's last error says what happened and what to do. Nothing was written. A failed check is news about the data and no
failure of the run: it says how many records broke which rule.
"""


@dg.multi_asset(
    name="sync",
    specs=list(synced_assets(GRAPH, known_tables())),
    check_specs=[check.spec() for check in CHECKS],
    # A sync is one transaction: launching any asset syncs the whole district.
    can_subset=False,
    # For a database that was away for a moment; Clever's own faults are retried inside the pull (R3.3).
    retry_policy=dg.RetryPolicy(max_retries=1, delay=60),
)
def sync_assets(
    context: dg.AssetExecutionContext, roster_database: RosterDatabase
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Sync the district of this run's partition."""
    tags = context.run.tags
    request = SyncRequest(
        context.partition_key,
        requested_by=tags.get("requested_by", "dagster"),
        reason=tags.get("reason"),
        dagster_run_id=context.run.run_id,
    )
    with as_dagster_failures(), roster_database.open() as database:
        report = run_sync(database, roster_database.settings, request)
        with translate_database_errors(), database.engine.connect() as connection:
            active = active_rows(
                connection, report.district.district_id, {model.name: known_tables()[model.name] for model in GRAPH.modelled}
            )
    context.log.info(_summary(report))
    _keep_connections(context.instance)
    accepted = is_accepted(report)
    for name in (*GRAPH.pulled, *(model.name for model in GRAPH.modelled)):
        if accepted or not name.startswith(UNAPPROVED):
            yield dg.MaterializeResult(asset_key=asset_key(name), metadata=metadata_of(name, report, active))
        yield from (check.result(report.counts) for check in CHECKS if check.asset == name)


job = dg.define_asset_job(
    "sync_district",
    selection=dg.AssetSelection.assets(sync_assets),
    description=DESCRIPTION,
    executor_def=dg.in_process_executor,
)


def _keep_connections(instance: dg.DagsterInstance) -> None:
    """Let this process write its events over connections that stay open, as Dagster's web server does. Call after the long part.

    By default dagster-postgres connects anew for every query: 1,300 times in a run of 30 assets and 90 checks, two thirds of its time.
    """
    instance.optimize_for_webserver(statement_timeout=60_000, pool_recycle=600, max_overflow=2)  # milliseconds, seconds, connections


def _summary(report: SyncReport) -> str:
    slowest = sorted(report.steps, key=lambda step: -step.seconds)[:3]
    steps = ", ".join(f"{step.name} {step.seconds:.1f} s" for step in slowest)
    return f"Sync {report.sync_id} of district {report.district.clever_id}: {report.status}. {report.message} Slowest steps: {steps}."
