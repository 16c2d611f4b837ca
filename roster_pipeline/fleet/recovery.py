"""What a dead process left behind (R11.4): rows that claim to be processing though nobody holds their district's lock.

Belongs here: finding them for every command and sensor. Does not belong here: the sync that comes next, which marks its own district's
(`run.py`).
"""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.lock import district_lock, locked_districts
from roster_pipeline.database.tables import syncs
from roster_pipeline.errors import SyncRunningError
from roster_pipeline.sync import ledger


def mark_crashed_syncs(connection: Connection, *, now: datetime) -> int:
    """End every `processing` row whose district's lock is free, and alert. Returns how many there were.

    Args:
        connection: in autocommit.
        now: aware UTC.
    """
    processing = sa.select(syncs.c.district_id).where(syncs.c.status == "processing").distinct()
    stale = set(connection.execute(processing).scalars()) - locked_districts(connection)
    marked = 0
    for district_id in sorted(stale):
        try:
            with district_lock(connection, district_id, str(district_id)):
                marked += ledger.mark_crashed(connection, district_id, now=now)
        except SyncRunningError:
            continue  # A sync has begun since, and marks the row itself.
    return marked
