"""The run tags that say where a sync comes from. Schedules and sensors write them, the sync reads them, and people may add the first two.

Belongs here: their names, and both directions. Does not belong here: Dagster's own tags.
"""

from collections.abc import Mapping

import dagster as dg

from roster_pipeline.sync.ledger import Origin

REQUESTED_BY = "requested_by"
REASON = "reason"
TRIGGER = "roster/trigger"
SYNC_ID = "roster/sync_id"
# Which runs share their slots (`dagster.yaml`): what the night starts never takes the slot of what a person waits for.
LANE = "roster/lane"
NIGHT, ON_DEMAND = "night", "on_demand"
PRIORITY = "dagster/priority"


def night_tags(trigger: str) -> dict[str, str]:
    """Of a run that a schedule or the refresh sensor starts; `trigger` as in `ops.syncs`."""
    return {TRIGGER: trigger, LANE: NIGHT}


def request_tags(sync_id: int) -> dict[str, str]:
    """Of a run that answers the queued row `sync_id` of `ops.syncs`."""
    return {SYNC_ID: str(sync_id), LANE: ON_DEMAND, PRIORITY: "10"}


def origin_of(run: dg.DagsterRun) -> Origin:
    """What `ops.syncs` is told about a run's start: without tags, somebody launched it in the UI."""
    tags: Mapping[str, str] = run.tags
    if trigger := tags.get(TRIGGER):
        return Origin(trigger=trigger, requested_role=None, dagster_run_id=run.run_id)
    if sync_id := tags.get(SYNC_ID):
        return Origin(dagster_run_id=run.run_id, sync_id=int(sync_id))
    return Origin(requested_by=tags.get(REQUESTED_BY, "dagster"), reason=tags.get(REASON), dagster_run_id=run.run_id)
