"""The sensor that finds the districts that connected to the application in Clever, or disconnected (R11.7).

Does not belong here: the effect on a district (`connections/`).
"""

import dagster as dg

from roster_pipeline.clever.http import Deadline
from roster_pipeline.clever.tokens import list_tokens
from roster_pipeline.connections.listings import reconcile_connections
from roster_pipeline.database.clock import database_time
from roster_pipeline.defs.failures import as_dagster_failures
from roster_pipeline.defs.resources import RosterDatabase

# Dagster ends a tick after 60 seconds.
_LISTING_SECONDS = 40.0


@dg.sensor(
    name="connections",
    description="Lists the districts that are connected in Clever. New ones wait for their agreement, lost ones no longer sync.",
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def connections(context: dg.SensorEvaluationContext, roster_database: RosterDatabase) -> dg.SkipReason:
    """Reads and applies one full listing. If it cannot be read, the tick fails and nothing changes."""
    settings = roster_database.settings
    if not settings.clever_client_id or settings.clever_client_secret is None:
        return dg.SkipReason("CLEVER_CLIENT_ID and CLEVER_CLIENT_SECRET are not set.")
    with as_dagster_failures():
        listing = list_tokens(settings, deadline=Deadline(_LISTING_SECONDS))
        with roster_database.session() as session:
            found = reconcile_connections(session, listing.listing(), now=database_time(session))
    if found.doubt is not None:
        return dg.SkipReason(f"{found.doubt.reason} Nothing was changed; `roster connections accept` applies it.")
    changes = {"requested": found.requested, "noted": found.noted, "returned": found.returned, "disconnected": found.disconnected}
    for what, clever_ids in changes.items():
        if clever_ids:
            context.log.info(f"{what}: {', '.join(clever_ids)}")
    new = len(found.requested) + len(found.returned)
    unusable = len(listing.without_token) + listing.unreadable
    reported = f" {unusable} entries cannot be used." if unusable else ""
    return dg.SkipReason(f"{len(listing)} connected; {new} new, {len(found.disconnected)} lost.{reported}")
