"""Two sensors: one delivers alerts, the other records an alert for a failed run that did not record a sync in `ops.syncs`.

Does not belong here: which alerts are due, who gets them, and their text (`alerts/`).
"""

import dagster as dg
import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.alerts.delivery import deliver
from roster_pipeline.alerts.outbox import record_alert
from roster_pipeline.database.clock import database_time, time_of
from roster_pipeline.database.tables import districts, syncs
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.tags import TRIGGER
from roster_pipeline.errors import RosterError
from roster_pipeline.fleet.recovery import mark_crashed_syncs

_PARTITION = "dagster/partition"
_WILL_RETRY = "dagster/will_retry"


@dg.sensor(
    name="alerts",
    description="Sends the due alerts in ops.alerts to every URL of ROSTER_ALERT_URLS (R11.8).",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def alerts(context: dg.SensorEvaluationContext, roster_database: RosterDatabase) -> dg.SkipReason:
    """Never starts a run. So every tick returns a SkipReason, which says what was sent."""
    with roster_database.open() as database:
        report = deliver(database, roster_database.settings, now=time_of(database))
    return dg.SkipReason(
        f"Due: {report.due}. Positions in ROSTER_ALERT_URLS: accepted {list(report.accepted)}, did not accept {list(report.refused)}, "
        f"cannot be used {list(report.unusable)}."
    )


@dg.run_failure_sensor(
    name="failed_runs",
    description="Records an alert for a run that failed and did not record a sync in ops.syncs (R11.8): its process died or began no sync.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def failed_runs(context: dg.RunFailureSensorContext, roster_database: RosterDatabase) -> None:
    """No alert if Dagster will retry the run, or if the run failed only because another sync of the district was running."""
    if context.dagster_run.tags.get(_WILL_RETRY) == "true" or _was_locked(context):
        return
    try:
        _record_failure(context.dagster_run, roster_database)
    except RosterError as error:
        # Dagster repeats the tick after a DagsterError. After any other error it counts the run as handled, and the alert would be lost.
        raise dg.DagsterError(str(error)) from None


def _record_failure(run: dg.DagsterRun, roster_database: RosterDatabase) -> None:
    with roster_database.session() as connection:
        now = database_time(connection)
        mark_crashed_syncs(connection, now=now)
        district = run.tags.get(_PARTITION)
        if district is not None and _has_reported(connection, run.run_id):
            return
        record_alert(
            connection,
            "run_failed",
            run.run_id,
            now=now,
            district_id=_district_id(connection, district),
            facts={"run_id": run.run_id, "job": run.job_name},
            # The run of one district in the night can wait for the digest.
            is_urgent=district is None or TRIGGER not in run.tags,
        )


def _was_locked(context: dg.RunFailureSensorContext) -> bool:
    """Whether the run failed because another sync of the district was running. That sync replaces it (`failures.py`)."""
    failures = [event.step_failure_data.user_failure_data for event in context.get_step_failure_events()]
    return any(failure is not None and "running_sync_id" in failure.metadata for failure in failures)


def _has_reported(connection: Connection, run_id: str) -> bool:
    """Whether `ops.syncs` has a sync of this run, also an applied one: what follows its commit can fail (R11.4)."""
    row = sa.exists().where(syncs.c.dagster_run_id == run_id)
    return bool(connection.execute(sa.select(row)).scalar_one())


def _district_id(connection: Connection, clever_id: str | None) -> int | None:
    """None if there is no such district: a partition can be a typing error."""
    return connection.execute(sa.select(districts.c.district_id).where(districts.c.clever_id == clever_id)).scalar()
