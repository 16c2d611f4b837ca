"""The sensor that follows Clever by day (R17.1).

Belongs here: its tick, its cursor and its run requests. Does not belong here: which districts follow (`fleet/by_day.py`).
"""

import json

import dagster as dg

from roster_pipeline.clever.http import Deadline
from roster_pipeline.clever.tokens import list_tokens
from roster_pipeline.connections.listings import reconcile_connections
from roster_pipeline.database.clock import database_time
from roster_pipeline.defs.failures import as_dagster_failures
from roster_pipeline.defs.freshness import TICK_SECONDS, pull_again
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.sync import job
from roster_pipeline.fleet.by_day import due_by_day
from roster_pipeline.fleet.freshness import ask_marks, moved


@dg.sensor(
    name="by_day",
    job=job,
    description="Asks Clever every `freshness_minutes` about districts with freshness=day, and syncs those with newer data (R17.1).",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def by_day(context: dg.SensorEvaluationContext, roster_database: RosterDatabase) -> dg.SensorResult | dg.SkipReason:
    """The cursor is when each district was last asked about. A district that could not be asked waits as long as one that was."""
    deadline, settings = Deadline(TICK_SECONDS), roster_database.settings
    asked: dict[str, float] = json.loads(context.cursor or "{}")
    with as_dagster_failures(), roster_database.session() as connection:
        now = database_time(connection)
        due = due_by_day(connection, now, asked)
        if not due:
            return dg.SkipReason("No district is to be asked about now.")
        listing = list_tokens(settings, deadline=deadline)
        reconcile_connections(connection, listing.listing(), now=now)
    answers = ask_marks(settings, listing, [each.clever_id for each in due], deadline=deadline)
    asked |= {each.clever_id: now.timestamp() for each in due[: answers.asked]}
    starting = [pull_again(each, newest) for each, newest in moved(due, answers)]
    skipped = f"Asked about {answers.asked} of {len(due)} districts; Clever answered about {len(answers.marks)}."
    return dg.SensorResult(
        run_requests=starting, skip_reason=None if starting else dg.SkipReason(skipped), cursor=json.dumps(asked, sort_keys=True)
    )
