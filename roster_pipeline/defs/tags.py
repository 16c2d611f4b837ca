"""The run tags that say why a sync started. Schedules and sensors write them, the sync reads them, and people may add the first two.

Belongs here: their names, writing them and reading them. Does not belong here: Dagster's own tags.
"""

from collections.abc import Mapping

import dagster as dg

from roster_pipeline.sync.ledger import Origin

REQUESTED_BY = "requested_by"
REASON = "reason"
TRIGGER = "roster/trigger"
SYNC_ID = "roster/sync_id"
# Runs of one lane share slots (`dagster.yaml`), so that runs of the night never take the slot of a sync that a person waits for.
LANE = "roster/lane"
NIGHT, ON_DEMAND = "night", "on_demand"
PRIORITY = "dagster/priority"


def night_tags(trigger: str) -> dict[str, str]:
    """The tags of a run that a schedule or the refresh sensor starts; `trigger` as in `ops.syncs`."""
    return {TRIGGER: trigger, LANE: NIGHT}


def request_tags(sync_id: int) -> dict[str, str]:
    """The tags of a run that answers the queued row `sync_id` of `ops.syncs`."""
    return {SYNC_ID: str(sync_id), LANE: ON_DEMAND, PRIORITY: "10"}


def origin_of(run: dg.DagsterRun) -> Origin:
    """The origin that `ops.syncs` records for a run. A run without tags was launched by somebody in the UI."""
    tags: Mapping[str, str] = run.tags
    if trigger := tags.get(TRIGGER):
        return Origin(trigger=trigger, requested_role=None, dagster_run_id=run.run_id)
    if sync_id := tags.get(SYNC_ID):
        return Origin(dagster_run_id=run.run_id, sync_id=int(sync_id))
    return Origin(requested_by=tags.get(REQUESTED_BY, "dagster"), reason=tags.get(REASON), dagster_run_id=run.run_id)
