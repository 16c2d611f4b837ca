"""The run tags that say why a sync started. Schedules and sensors write them, the sync reads them, and people may add the first two.

Belongs here: their names, writing them and reading them. Does not belong here: Dagster's own tags.
"""

import re
from collections.abc import Mapping

import dagster as dg

from roster_pipeline.errors import PermanentError
from roster_pipeline.sync.ledger import Origin

REQUESTED_BY = "requested_by"
REASON = "reason"
TRIGGER = "roster/trigger"
SYNC_ID = "roster/sync_id"
# The window that was on: its kind and number. The run writes it when its sync has ended.
WINDOW = "roster/window"
# Runs of one lane share slots (`dagster.yaml`), so that runs of the night never take the slot of a sync that a person waits for.
LANE = "roster/lane"
NIGHT, ON_DEMAND = "night", "on_demand"
# The triggers that a schedule or sensor starts a sync with.
NIGHT_TRIGGERS = ("scheduled", "refresh")
PRIORITY = "dagster/priority"
_BY_HAND = "Launch the run without tags that begin with `roster/`."


def night_tags(trigger: str) -> dict[str, str]:
    """The tags of a run that a schedule or the refresh sensor starts; `trigger` as in `ops.syncs`."""
    return {TRIGGER: trigger, LANE: NIGHT}


def request_tags(sync_id: int) -> dict[str, str]:
    """The tags of a run that answers the queued row `sync_id` of `ops.syncs`."""
    return {SYNC_ID: str(sync_id), LANE: ON_DEMAND, PRIORITY: "10"}


def origin_of(run: dg.DagsterRun) -> Origin:
    """The origin that `ops.syncs` records for a run. A run without tags was launched by somebody in the UI.

    Anybody at the UI can write tags. The request that `roster/sync_id` names is compared with `ops.syncs` when the sync begins
    (`sync/ledger.py`).

    Raises:
        PermanentError: a tag has a value that this project never writes.
    """
    tags: Mapping[str, str] = run.tags
    if (trigger := tags.get(TRIGGER)) is not None:
        if trigger not in NIGHT_TRIGGERS:
            raise PermanentError(f"No schedule or sensor writes this value of the tag {TRIGGER}.", hint=_BY_HAND)
        return Origin(trigger=trigger, requested_role=None, dagster_run_id=run.run_id, principal=_principal(tags))
    if (sync_id := tags.get(SYNC_ID)) is not None:
        if not re.fullmatch(r"[0-9]{1,18}", sync_id):
            raise PermanentError(f"The tag {SYNC_ID} is not the number of a request.", hint=_BY_HAND)
        return Origin(dagster_run_id=run.run_id, sync_id=int(sync_id), principal=_principal(tags))
    by = tags.get(REQUESTED_BY, "")
    requested_by = by if by.strip() else "dagster"
    return Origin(requested_by=requested_by, reason=tags.get(REASON), dagster_run_id=run.run_id, principal=_principal(tags))


def _principal(tags: Mapping[str, str]) -> str:
    """What launched a run, by Dagster's own tags (R13.1)."""
    for kind in ("schedule", "sensor"):
        if name := tags.get(f"dagster/{kind}_name"):
            return f"{kind}:{name}"
    return "dagster:ui"
