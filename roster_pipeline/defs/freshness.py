"""Freshness in Dagster: the sensor that syncs a district again in the same night (R3.7), and the check and sensor for silent districts.

Belongs here: run requests, and the check with its evaluations. Does not belong here: choosing the districts (`fleet/freshness.py`).
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime

import dagster as dg
from pydantic import Field

from roster_pipeline.clever.http import Deadline
from roster_pipeline.clever.tokens import list_tokens
from roster_pipeline.connections.listings import reconcile_connections
from roster_pipeline.database.clock import database_time
from roster_pipeline.defs.assets import GROUPS, OWNERS, asset_key
from roster_pipeline.defs.districts import districts
from roster_pipeline.defs.failures import as_dagster_failures
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.sync import evaluation, job, keep_connections
from roster_pipeline.defs.tags import LANE, NIGHT, PRIORITY, night_tags
from roster_pipeline.fleet.freshness import Freshness, Pulled, alert_silent, ask_marks, moved, synced_this_night
from roster_pipeline.fleet.freshness import freshness as freshness_of_districts
from roster_pipeline.fleet.windows import alert_windows

# Dagster ends a tick after 60 seconds. Asking ends before that, and the next tick continues with the next district.
TICK_SECONDS = 40.0


# --- newer data in the same night ---


@dg.sensor(
    name="refresh",
    job=job,
    description="Syncs a district again in the same night if Clever has loaded newer data for it (R3.7).",
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def refresh(context: dg.SensorEvaluationContext, roster_database: RosterDatabase) -> dg.SensorResult | dg.SkipReason:
    """Asks Clever about the districts that have been synced this night; as many as there is time for."""
    deadline = Deadline(TICK_SECONDS)
    settings = roster_database.settings
    with as_dagster_failures(), roster_database.session() as connection:
        now = database_time(connection)
        pulled = _from(context.cursor, synced_this_night(connection, now))
        if not pulled:
            return dg.SkipReason("No district has been synced this night.")
        listing = list_tokens(settings, deadline=deadline)
        reconcile_connections(connection, listing.listing(), now=now)
    answers = ask_marks(settings, listing, [each.clever_id for each in pulled], deadline=deadline)
    starting = [pull_again(each, newest) for each, newest in moved(pulled, answers)]
    cursor = str(pulled[answers.asked - 1].district_id) if answers.asked else context.cursor
    skipped = f"Asked about {answers.asked} of {len(pulled)} districts; Clever answered about {len(answers.marks)}."
    return dg.SensorResult(run_requests=starting, skip_reason=None if starting else dg.SkipReason(skipped), cursor=cursor)


def _from(cursor: str | None, pulled: Sequence[Pulled]) -> list[Pulled]:
    """Rotated: first the districts after the one that was asked about last, then the others."""
    last = int(cursor or 0)
    return sorted(pulled, key=lambda each: (each.district_id <= last, each.district_id))


def pull_again(district: Pulled, mark: str) -> dg.RunRequest:
    """A run that pulls a district again, of which Clever has newer data."""
    # One run for each load of Clever, so that a failing sync is not repeated all night.
    key = f"refresh-{district.clever_id}-{mark}"
    return dg.RunRequest(run_key=key, partition_key=district.clever_id, tags=night_tags("refresh"))


# --- silent districts ---

SYNCS = dg.AssetSpec(
    asset_key("ops.syncs"),
    deps=[asset_key("app.districts")],
    description="One row is one sync, from request to end. Every sync writes it, whatever started it; `roster status` shows it.",
    group_name=GROUPS["ops"],
    kinds={"postgres"},
    owners=OWNERS,
    metadata={"dagster/table_name": "ops.syncs"},
    partitions_def=districts,
)
_FRESH = "fresh"
_DESCRIPTION = """An active district whose start date has come has had an applied sync within 26 hours, unless a freeze is on.

The sensor `freshness` evaluates it when the result changes. `roster status DISTRICT` shows how the last syncs ended.

**Rules:** R11.8, R14.2.
"""


def _fresh_check() -> dg.AssetChecksDefinition:
    with warnings.catch_warnings(category=dg.PreviewWarning, action="ignore"):

        @dg.asset_check(name=_FRESH, asset=SYNCS.key, partitions_def=districts, description=_DESCRIPTION)
        def fresh(context: dg.AssetCheckExecutionContext, roster_database: RosterDatabase) -> dg.AssetCheckResult:
            """Checks the district of the partition, now."""
            with as_dagster_failures(), roster_database.session() as session:
                now = database_time(session)
                found = [each for each in freshness_of_districts(session, now) if each.district.clever_id == context.partition_key]
            if not found:
                return dg.AssetCheckResult(passed=True, description="Not active, or not to be synced yet.")
            return _result(found[0], now)

    return fresh


fresh = _fresh_check()


class Districts(dg.Config):
    """The districts to report about."""

    districts: list[str] = Field(description="Clever ids.")


@dg.op(name="report_freshness", out=dg.Out(dg.Nothing))
def report_freshness(
    context: dg.OpExecutionContext, config: Districts, roster_database: RosterDatabase
) -> Iterator[dg.AssetCheckEvaluation | dg.Output[None]]:
    """One evaluation of the check for each district. It needs a run: without one, Dagster on PostgreSQL stores only the first evaluation
    of each partition."""
    with as_dagster_failures(), roster_database.session() as session:
        now = database_time(session)
        found = freshness_of_districts(session, now)
    keep_connections(context.instance)
    for each in found:
        if each.district.clever_id in config.districts:
            yield evaluation(_result(each, now), each.district.clever_id)
    yield dg.Output(None)


@dg.job(
    name="freshness",
    description="Evaluates the check `fresh`: is a district's data older than 26 hours? The sensor starts it when that changes.",
    executor_def=dg.in_process_executor,
    # The lane of the night, so that no sync that a person waits for is delayed.
    tags={LANE: NIGHT, PRIORITY: "5"},
)
def freshness_job() -> None:
    """One run for all districts that have changed."""
    report_freshness()


@dg.sensor(
    name="freshness",
    job=freshness_job,
    description="Alerts about districts that have had no sync for over 26 hours, and about windows that begin or end soon; evaluates the "
    "check `fresh` where its result changes.",
    minimum_interval_seconds=1800,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def freshness(context: dg.SensorEvaluationContext, roster_database: RosterDatabase) -> dg.SensorResult:
    """The cursor is the last reported result of each district."""
    with as_dagster_failures(), roster_database.session() as connection:
        now = database_time(connection)
        found = freshness_of_districts(connection, now)
        silent = alert_silent(connection, found, now=now)
        alert_windows(connection, now)
    reported: dict[str, bool] = json.loads(context.cursor or "{}")
    partitions = set(context.instance.get_dynamic_partitions("districts"))
    # A district that is no longer active keeps its last result until it is active again.
    states = {each.district.clever_id: each.is_fresh for each in found if each.district.clever_id in partitions}
    changed = [clever_id for clever_id, is_fresh in states.items() if reported.get(clever_id) is not is_fresh]
    if not changed:
        stale = sum(not each.is_fresh for each in found)
        return dg.SensorResult(skip_reason=f"{len(found)} active districts, {stale} silent ({silent} new); nothing has changed.")
    run_config = dg.RunConfig(ops={report_freshness.name: Districts(districts=changed)})
    return dg.SensorResult(run_requests=[dg.RunRequest(run_config=run_config)], cursor=json.dumps(reported | states))


def _result(each: Freshness, now: datetime) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=SYNCS.key,
        check_name=_FRESH,
        passed=each.is_fresh,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "hours": round((now - each.since).total_seconds() / 3600, 1),
            "last_applied_sync": each.sync_id or "never",
            "freeze": each.in_freeze,
        },
    )
