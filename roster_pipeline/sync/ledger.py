"""`ops.syncs`: one row per sync from request to end, true at every moment (R11.4).

Belongs here: every write to `ops.syncs`. Does not belong here: what a sync does between start and end.
Every function takes the connection of its caller, and so is part of the caller's transaction where there is one (R11.5).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.tables import staged_districts, syncs

CRASHED = "The process that ran this sync ended before the sync did. Nothing of it was applied; the next sync starts afresh."


def begin(
    connection: Connection, district_id: int, *, now: datetime, requested_by: str | None, reason: str | None, dagster_run_id: str | None
) -> int:
    """A new `processing` row; the first sync of a district is an `initial` one. Returns its sync_id."""
    first = not has_accepted_snapshot(connection, district_id)
    return _insert(
        connection,
        district_id=district_id,
        trigger="initial" if first else "on_demand",
        requested_by=requested_by,
        requested_at=now,
        reason=reason,
        status="processing",
        started_at=now,
        dagster_run_id=dagster_run_id,
    )


def refused(
    connection: Connection,
    district_id: int | None,
    *,
    now: datetime,
    status: str,
    message: str,
    requested_by: str | None,
    reason: str | None,
    dagster_run_id: str | None,
) -> int:
    """A row that ends as soon as it begins: `skipped` (the district is not active) or `failed` (there is no such district)."""
    return _insert(
        connection,
        district_id=district_id,
        trigger="on_demand",
        requested_by=requested_by,
        requested_at=now,
        reason=reason,
        status=status,
        started_at=now,
        finished_at=now,
        message=message,
        dagster_run_id=dagster_run_id,
    )


def pull_began(connection: Connection, sync_id: int, snapshot_at: datetime) -> None:
    """Note when the snapshot was taken: an older one is never applied over a newer one (R11.6)."""
    connection.execute(sa.update(syncs).where(syncs.c.sync_id == sync_id).values(snapshot_at=snapshot_at))


def has_accepted_snapshot(connection: Connection, district_id: int) -> bool:
    """Whether any sync of the district has been applied; until then it is the first one (R7.6)."""
    return bool(connection.execute(sa.select(sa.exists().where(staged_districts.c.district_id == district_id))).scalar_one())


def newest_applied(connection: Connection, district_id: int) -> datetime | None:
    """When the pull of the last accepted snapshot began."""
    return connection.execute(sa.select(staged_districts.c.pulled_at).where(staged_districts.c.district_id == district_id)).scalar()


def end(connection: Connection, sync_id: int, *, now: datetime, status: str, counts: Mapping[str, Any], message: str) -> None:
    """The sync's end. An end that is written already stays: what comes after the commit cannot make an applied sync a failed one."""
    values = {"status": status, "finished_at": now, "counts": dict(counts), "message": message}
    connection.execute(sa.update(syncs).where(syncs.c.sync_id == sync_id, syncs.c.status == "processing").values(values))


def mark_crashed(connection: Connection, district_id: int, *, now: datetime) -> int:
    """End what claims to be processing though the caller holds the district's lock. Returns how many rows did."""
    stale = sa.and_(syncs.c.district_id == district_id, syncs.c.status == "processing")
    return connection.execute(sa.update(syncs).where(stale).values(status="failed", finished_at=now, message=CRASHED)).rowcount


def recent(connection: Connection, *, district_id: int | None = None, limit: int = 20) -> list[Mapping[str, Any]]:
    """The newest syncs first, of one district or of all."""
    query = sa.select(syncs).order_by(syncs.c.sync_id.desc()).limit(limit)
    if district_id is not None:
        query = query.where(syncs.c.district_id == district_id)
    return [dict(row) for row in connection.execute(query).mappings()]


def _insert(connection: Connection, **values: Any) -> int:
    return int(connection.execute(sa.insert(syncs).values(values).returning(syncs.c.sync_id)).scalar_one())
