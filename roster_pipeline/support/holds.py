"""What people decide about holds (R7.5): listing, approving and rejecting them.

Belongs here: the statuses that people set. Does not belong here: those that a sync sets (`sync/brakes.py`), which opens, uses, supersedes
and expires holds. `database/tables.py` lists all statuses.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.tables import PENDING_HOLDS, districts, holds
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.errors import PermanentError

_schools = sa.table("schools", sa.column("school_id"), sa.column("name"), schema="app")


def list_holds(connection: Connection, *, district_id: int | None = None, every: bool = False) -> list[Mapping[str, Any]]:
    """Holds with the district's Clever id and the school's name, newest first; only pending ones unless `every` is set."""
    query = (
        sa.select(holds, districts.c.clever_id.label("district"), _schools.c.name.label("school"))
        .join(districts, districts.c.district_id == holds.c.district_id)
        .outerjoin(_schools, _schools.c.school_id == holds.c.school_id)
        .order_by(holds.c.hold_id.desc())
    )
    if district_id is not None:
        query = query.where(holds.c.district_id == district_id)
    if not every:
        query = query.where(holds.c.status.in_(PENDING_HOLDS))
    return [dict(row) for row in connection.execute(query).mappings()]


def approve(connection: Connection, hold_id: int, *, by: str, now: datetime) -> Mapping[str, Any]:
    """Let the next sync do exactly what the hold stops, until the approval expires (the district's setting `approval_hours`).

    Raises:
        PermanentError: there is no such hold, or it is not waiting for a decision.
    """
    row = _decidable(connection, hold_id, allowed=("open", "rejected"), verb="approved")
    rules = find_district(connection, row["district"]).rules
    hours = rules.approval_hours if rules is not None else 0
    return _decide(connection, hold_id, status="approved", by=by, now=now, expires_at=now + timedelta(hours=hours))


def reject(connection: Connection, hold_id: int, *, by: str, now: datetime) -> Mapping[str, Any]:
    """Keep the hold, until its plan changes or a person approves it after all.

    Raises:
        PermanentError: there is no such hold, or it is not waiting for a decision.
    """
    _decidable(connection, hold_id, allowed=("open", "approved"), verb="rejected")
    return _decide(connection, hold_id, status="rejected", by=by, now=now, expires_at=None)


def _decidable(connection: Connection, hold_id: int, *, allowed: tuple[str, ...], verb: str) -> Mapping[str, Any]:
    query = (
        sa.select(holds, districts.c.clever_id.label("district"))
        .join(districts, districts.c.district_id == holds.c.district_id)
        .where(holds.c.hold_id == hold_id)
        .with_for_update(of=holds)
    )
    # A number that no bigint holds is not one of a hold either.
    row = connection.execute(query).mappings().one_or_none() if 0 < hold_id < 1 << 63 else None
    if row is None:
        raise PermanentError(f"There is no hold {hold_id}.", hint="`roster holds` lists them.")
    if row["status"] not in allowed:
        raise PermanentError(
            f"Hold {hold_id} is {row['status']} and cannot be {verb}.",
            hint="`roster holds` lists the holds that wait.",
            district=row["district"],
        )
    return dict(row)


def _decide(connection: Connection, hold_id: int, *, status: str, by: str, now: datetime, expires_at: datetime | None) -> Mapping[str, Any]:
    values = {"status": status, "decided_by": by, "decided_at": now, "expires_at": expires_at}
    statement = sa.update(holds).where(holds.c.hold_id == hold_id).values(values).returning(holds)
    return dict(connection.execute(statement).mappings().one())
