"""Which districts are connected to the application at Clever, as its full listings of tokens say (R11.7).

Belongs here: what a new token and a removed token mean for `app.districts`. Does not belong here: reading tokens from Clever
(`clever/tokens.py`), and what `roster district add` decides (`districts/agreement.py`). Nobody is deactivated here: the people of a
disconnected district are left unchanged.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from roster_pipeline.alerts.outbox import record_alert
from roster_pipeline.database.engine import psycopg_connection
from roster_pipeline.database.tables import connections, districts, token_listings


class Reconciled(NamedTuple):
    """What a listing changed, by Clever id.

    Attributes:
        requested: districts with a new token, which now wait for their agreement.
        noted: districts with a new token that keep their status.
        disconnected: districts whose token is no longer listed.
    """

    requested: list[str]
    noted: list[str]
    disconnected: list[str]


def reconcile_connections(connection: Connection, listed: Iterable[str], *, began_at: datetime, now: datetime) -> Reconciled:
    """Ingest one full listing. Its changes and their alerts are one transaction. A listing without changes writes only its time.

    Args:
        listed: the Clever ids of all connected districts.
        began_at: when the listing was requested. If it began before the newest ingested listing, it changes nothing.
        now: aware UTC.
    """
    with psycopg_connection(connection).transaction():
        if not _is_newest(connection, began_at):
            return Reconciled([], [], [])
        present = set(listed)
        known = {row.clever_id: row.disconnected_at for row in connection.execute(sa.select(connections))}
        added = sorted(clever_id for clever_id in present if clever_id not in known or known[clever_id] is not None)
        removed = sorted(clever_id for clever_id, disconnected_at in known.items() if disconnected_at is None and clever_id not in present)
        requested = [clever_id for clever_id in added if _connect(connection, clever_id, now=now)]
        for clever_id in removed:
            _disconnect(connection, clever_id, now=now)
        return Reconciled(requested, sorted({*added} - {*requested}), removed)


def _is_newest(connection: Connection, began_at: datetime) -> bool:
    """Whether the listing is newer than all others. All listings write this row, so each waits for the one before and sees its changes."""
    insert = pg.insert(token_listings).values(is_newest=True, began_at=began_at)
    newer = insert.on_conflict_do_update(
        index_elements=["is_newest"], set_={"began_at": began_at}, where=token_listings.c.began_at < began_at
    )
    return connection.execute(newer.returning(token_listings.c.began_at)).scalar() is not None


def _connect(connection: Connection, clever_id: str, *, now: datetime) -> bool:
    """Record a token that was not listed before. Returns whether its district now waits for an agreement."""
    # The id is the name until somebody records the real one.
    insert = pg.insert(districts).values(clever_id=clever_id, name=clever_id, status="requested")
    again = insert.on_conflict_do_update(
        index_elements=["clever_id"], set_={"status": "requested", "updated_at": now}, where=districts.c.status == "disconnected"
    )
    district_id = connection.execute(again.returning(districts.c.district_id)).scalar()
    becomes_requested = district_id is not None
    if district_id is None:
        district_id = connection.execute(sa.select(districts.c.district_id).where(districts.c.clever_id == clever_id)).scalar_one()
    values: dict[str, Any] = {"connected_at": now, "disconnected_at": None}
    recording = pg.insert(connections).values(clever_id=clever_id, district_id=district_id, **values)
    connection.execute(recording.on_conflict_do_update(index_elements=["clever_id"], set_=values))
    if becomes_requested:
        record_alert(connection, "connected", _occasion(clever_id, now), now=now, district_id=district_id)
    return becomes_requested


def _disconnect(connection: Connection, clever_id: str, *, now: datetime) -> None:
    leaving = sa.update(connections).where(connections.c.clever_id == clever_id).values(disconnected_at=now)
    district_id = connection.execute(leaving.returning(connections.c.district_id)).scalar_one()
    connection.execute(
        sa.update(districts)
        .where(districts.c.district_id == district_id, districts.c.status != "disconnected")
        .values(status="disconnected", updated_at=now)
    )
    record_alert(connection, "disconnected", _occasion(clever_id, now), now=now, district_id=district_id)


def _occasion(clever_id: str, now: datetime) -> str:
    """The key of the alert. It has the time, because a district may connect and disconnect more than once."""
    return f"{clever_id}:{now.isoformat()}"
