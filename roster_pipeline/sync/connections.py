"""Which districts are connected to the application at Clever, as its full listings of tokens say (R11.7).

Belongs here: what a new and a vanished token mean for `app.districts`. Does not belong here: asking Clever (`clever/tokens.py`) and what
`roster district add` decides (`districts.py`). Nobody is deactivated here: whoever disconnects keeps their people as they are.
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
        requested: new tokens: districts that wait for their agreement.
        noted: tokens seen for the first time, or again, of districts that keep their status.
        disconnected: tokens that are gone.
    """

    requested: list[str]
    noted: list[str]
    disconnected: list[str]


def reconcile_connections(connection: Connection, listed: Iterable[str], *, began_at: datetime, now: datetime) -> Reconciled:
    """Take in one full listing. Its changes and their alerts are one transaction; a listing that says nothing new writes only its time.

    Args:
        listed: the Clever ids of all connected districts.
        began_at: when the listing was asked for. One that began before the newest that was taken in changes nothing.
        now: aware UTC.
    """
    with psycopg_connection(connection).transaction():
        if not _is_newest(connection, began_at):
            return Reconciled([], [], [])
        present = set(listed)
        known = {row.clever_id: row.disconnected_at for row in connection.execute(sa.select(connections))}
        appeared = sorted(clever_id for clever_id in present if clever_id not in known or known[clever_id] is not None)
        vanished = sorted(clever_id for clever_id, gone_at in known.items() if gone_at is None and clever_id not in present)
        requested = [clever_id for clever_id in appeared if _connect(connection, clever_id, now=now)]
        for clever_id in vanished:
            _disconnect(connection, clever_id, now=now)
        return Reconciled(requested, sorted({*appeared} - {*requested}), vanished)


def _is_newest(connection: Connection, began_at: datetime) -> bool:
    """Writing the one row also makes listings wait for each other, so that each sees what the one before has changed."""
    insert = pg.insert(token_listings).values(is_newest=True, began_at=began_at)
    newer = insert.on_conflict_do_update(
        index_elements=["is_newest"], set_={"began_at": began_at}, where=token_listings.c.began_at < began_at
    )
    return connection.execute(newer.returning(token_listings.c.began_at)).scalar() is not None


def _connect(connection: Connection, clever_id: str, *, now: datetime) -> bool:
    """Note a token that was not there before; whether its district now waits for an agreement."""
    # Until somebody says what the district is called, its id is its name.
    insert = pg.insert(districts).values(clever_id=clever_id, name=clever_id, status="requested")
    again = insert.on_conflict_do_update(
        index_elements=["clever_id"], set_={"status": "requested", "updated_at": now}, where=districts.c.status == "disconnected"
    )
    district_id = connection.execute(again.returning(districts.c.district_id)).scalar()
    becomes_requested = district_id is not None
    if district_id is None:
        district_id = connection.execute(sa.select(districts.c.district_id).where(districts.c.clever_id == clever_id)).scalar_one()
    values: dict[str, Any] = {"connected_at": now, "disconnected_at": None}
    noting = pg.insert(connections).values(clever_id=clever_id, district_id=district_id, **values)
    connection.execute(noting.on_conflict_do_update(index_elements=["clever_id"], set_=values))
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
    """A district may come and go more than once."""
    return f"{clever_id}:{now.isoformat()}"
