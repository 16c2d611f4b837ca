"""Recovery from crashes (R11.4): rows in status `processing` whose process has died, so that nobody holds the district's lock.

Belongs here: finding and marking these rows, for every command and sensor. Does not belong here: the next sync of a district, which marks
the rows of that district itself (`sync/run.py`).
"""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.lock import district_lock, locked_districts
from roster_pipeline.database.tables import syncs
from roster_pipeline.errors import SyncRunningError
from roster_pipeline.sync import ledger


def crashed_districts(connection: Connection) -> set[int]:
    """The ids of districts with a `processing` row and a free lock."""
    processing = sa.select(syncs.c.district_id).where(syncs.c.status == "processing", syncs.c.district_id.is_not(None)).distinct()
    return set(connection.execute(processing).scalars()) - locked_districts(connection)


def mark_crashed_syncs(connection: Connection, *, now: datetime) -> int:
    """Mark every `processing` row whose district's lock is free as failed, and record an alert. Returns how many there were.

    Args:
        connection: in autocommit.
        now: aware UTC.
    """
    # A row of no district, which only a person can have inserted, has no lock that anybody could hold.
    marked = ledger.mark_crashed(connection, None, now=now)
    for district_id in sorted(crashed_districts(connection)):
        try:
            with district_lock(connection, district_id, str(district_id)):
                marked += ledger.mark_crashed(connection, district_id, now=now)
        except SyncRunningError:
            continue  # A newer sync has begun, and marks the row itself.
    return marked
