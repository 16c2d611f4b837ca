"""Freshness in Dagster: the sensor that pulls a district again in the same night (R3.7), and the check and sensor that say who is silent.

Belongs here: run requests, and the check with its evaluations. Does not belong here: which districts those are (`fleet/freshness.py`).
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from roster_pipeline.clever.http import Deadline
from roster_pipeline.clever.tokens import list_tokens
from roster_pipeline.defs.assets import GROUPS, OWNERS, asset_key
from roster_pipeline.defs.districts import districts
from roster_pipeline.defs.failures import as_dagster_failures
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.sync import evaluation, job, keep_connections
from roster_pipeline.defs.tags import LANE, NIGHT, PRIORITY, night_tags
from roster_pipeline.fleet.freshness import Freshness, Pulled, alert_silent, ask_last_sync, moved, synced_this_night
from roster_pipeline.fleet.freshness import freshness as freshness_of_districts
from roster_pipeline.sync.connections import reconcile_connections

# Dagster ends a tick after 60 seconds: asking ends before, and the next tick goes on where it ended.
_TICK_SECONDS = 40.0


# --- newer data in the same night ---


@dg.sensor(
    name="refresh",
    job=job,
    description="Syncs a district again in the same night when Clever has loaded newer data of it since (R3.7).",
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def refresh(context: dg.SensorEvaluationContext, roster_database: RosterDatabase) -> dg.SensorResult | dg.SkipReason:
    """Asks Clever about the districts that have been synced this night, as many as there is time for."""
    deadline = Deadline(_TICK_SECONDS)
    settings = roster_database.settings
    with as_dagster_failures(), roster_database.session() as connection:
        now = datetime.now(UTC)
        pulled = _from(context.cursor, synced_this_night(connection, now))
        if not pulled:
            return dg.SkipReason("No district has been synced this night.")
        listing = list_tokens(settings, deadline=deadline)
        reconcile_connections(connection, listing, began_at=listing.began_at, now=now)
    answers = ask_last_sync(settings, listing, [each.clever_id for each in pulled], deadline=deadline)
    starting = [_pull_again(each, newest) for each, newest in moved(pulled, answers)]
    cursor = str(pulled[answers.asked - 1].district_id) if answers.asked else context.cursor
    said = f"Asked {answers.asked} of {len(pulled)} districts; {len(answers.last_sync)} answered."
    return dg.SensorResult(run_requests=starting, skip_reason=None if starting else dg.SkipReason(said), cursor=cursor)


def _from(cursor: str | None, pulled: Sequence[Pulled]) -> list[Pulled]:
    """Those after the district that was asked last, then the others."""
    last = int(cursor or 0)
    return sorted(pulled, key=lambda each: (each.district_id <= last, each.district_id))


def _pull_again(district: Pulled, last_sync: str) -> dg.RunRequest:
    # Once for each time that Clever loads: a sync of it that fails is not repeated all night.
    key = f"refresh-{district.clever_id}-{last_sync}"
    return dg.RunRequest(run_key=key, partition_key=district.clever_id, tags=night_tags("refresh"))


# --- silent districts ---

SYNCS = dg.AssetSpec(
    asset_key("ops.syncs"),
    deps=[asset_key("app.districts")],
    description="One row is one sync from request to end. Every sync writes it, whatever starts it; `roster status` shows it.",
    group_name=GROUPS["ops"],
    kinds={"postgres"},
    owners=OWNERS,
    metadata={"dagster/table_name": "ops.syncs"},
    partitions_def=districts,
)
_FRESH = "fresh"
_DESCRIPTION = """An active district whose start date has come has had an applied sync within 26 hours.

The sensor `freshness` has it evaluated when that changes. `roster status DISTRICT` shows what became of the last syncs.

**Rules:** R11.8.
"""


def _fresh_check() -> dg.AssetChecksDefinition:
    with warnings.catch_warnings(category=dg.PreviewWarning, action="ignore"):

        @dg.asset_check(name=_FRESH, asset=SYNCS.key, partitions_def=districts, description=_DESCRIPTION)
        def fresh(context: dg.AssetCheckExecutionContext, roster_database: RosterDatabase) -> dg.AssetCheckResult:
            """Of the partition's district, now."""
            now = datetime.now(UTC)
            with as_dagster_failures(), roster_database.session() as session:
                found = [each for each in freshness_of_districts(session, now) if each.district.clever_id == context.partition_key]
            if not found:
                return dg.AssetCheckResult(passed=True, description="Not active, or not to be synced yet.")
            return _result(found[0], now)

    return fresh


fresh = _fresh_check()


class Districts(dg.Config):
    """Of which districts to tell."""

    districts: list[str] = Field(description="Clever ids.")


@dg.op(name="tell_freshness", out=dg.Out(dg.Nothing))
def tell_freshness(
    context: dg.OpExecutionContext, config: Districts, roster_database: RosterDatabase
) -> Iterator[dg.AssetCheckEvaluation | dg.Output[None]]:
    """One evaluation of the check by district. Without a run, Dagster on PostgreSQL takes only the first of each partition."""
    now = datetime.now(UTC)
    with as_dagster_failures(), roster_database.session() as session:
        found = freshness_of_districts(session, now)
    keep_connections(context.instance)
    for each in found:
        if each.district.clever_id in config.districts:
            yield evaluation(_result(each, now), each.district.clever_id)
    yield dg.Output(None)


@dg.job(
    name="freshness",
    description="Shows of districts whether their data is older than 26 hours: the check `fresh`. The sensor starts it when that changes.",
    executor_def=dg.in_process_executor,
    # Not in the slot of what people wait for.
    tags={LANE: NIGHT, PRIORITY: "5"},
)
def freshness_job() -> None:
    """One run for all districts that have changed."""
    tell_freshness()


@dg.sensor(
    name="freshness",
    job=freshness_job,
    description="Alerts of districts that have had no sync for over 26 hours, and has the check `fresh` evaluated where it changes.",
    minimum_interval_seconds=1800,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def freshness(context: dg.SensorEvaluationContext, roster_database: RosterDatabase) -> dg.SensorResult:
    """The cursor is what was said last, by district."""
    now = datetime.now(UTC)
    with as_dagster_failures(), roster_database.session() as connection:
        found = freshness_of_districts(connection, now)
        silent = alert_silent(connection, found, now=now)
    said: dict[str, bool] = json.loads(context.cursor or "{}")
    shown = set(context.instance.get_dynamic_partitions("districts"))
    # Of a district that is not active any more, what was said stays until it is again.
    states = {each.district.clever_id: each.is_fresh for each in found if each.district.clever_id in shown}
    changed = [clever_id for clever_id, is_fresh in states.items() if said.get(clever_id) is not is_fresh]
    if not changed:
        stale = sum(not each.is_fresh for each in found)
        return dg.SensorResult(skip_reason=f"{len(found)} active districts, {stale} silent ({silent} new); nothing has changed.")
    run_config = dg.RunConfig(ops={tell_freshness.name: Districts(districts=changed)})
    return dg.SensorResult(run_requests=[dg.RunRequest(run_config=run_config)], cursor=json.dumps(said | states))


def _result(each: Freshness, now: datetime) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=SYNCS.key,
        check_name=_FRESH,
        passed=each.is_fresh,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"hours": round((now - each.since).total_seconds() / 3600, 1), "last_applied_sync": each.sync_id or "never"},
    )
