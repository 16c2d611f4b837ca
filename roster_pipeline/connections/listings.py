"""What a full listing of the connected districts means for `app.districts` (R11.7).

Belongs here: new, lost and returned connections, and when a listing is not believed. Does not belong here: reading tokens from Clever
(`clever/tokens.py`), and what `roster district add` decides (`districts/agreement.py`). Nobody is deactivated here: the people of a
disconnected district are left unchanged.

One answer of Clever decides about every district, so it has a brake too: a listing that would disconnect many at once, or that is another
application's, changes nothing until a person accepts it.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from roster_pipeline.alerts.causes import alert_unusable_tokens
from roster_pipeline.alerts.outbox import record_alert
from roster_pipeline.database.audit import record_act
from roster_pipeline.database.clock import is_future
from roster_pipeline.database.engine import psycopg_connection
from roster_pipeline.database.tables import connections, districts, token_listings
from roster_pipeline.errors import PermanentError, TransientError
from roster_pipeline.source.protocol import Listing

# More connections than the larger of the two are not lost at once without somebody's knowing.
LOST_FLOOR, LOST_SHARE = 2, 10  # districts, and percent of the connected ones

_ACCEPT = "If the list is right, `roster connections accept --by WHO` applies it."


class Doubt(NamedTuple):
    """Why a listing is not believed.

    Attributes:
        missing: the Clever ids of the connected districts that it lacks; empty if it is another application's.
        connected: how many districts are connected.
    """

    missing: Sequence[str]
    connected: int

    @property
    def is_other_client(self) -> bool:
        """Whether it was made with another client id than the listings before it."""
        return not self.missing

    @property
    def reason(self) -> str:
        """The reason in one sentence, with counts only."""
        if self.is_other_client:
            return "CLEVER_CLIENT_ID is not that of the application whose districts this database has."
        return f"Clever's list of connected districts lacks {len(self.missing):,} of {self.connected:,}, so it is not believed."


class Reconciled(NamedTuple):
    """What a listing changed, by Clever id.

    Attributes:
        requested: districts with a new token, which now wait for their agreement.
        noted: districts with a new token that keep their status.
        returned: districts that were disconnected, and have the status again that they had before.
        disconnected: districts whose token is no longer listed.
        doubt: why nothing was changed; None if the listing was applied.
    """

    requested: Sequence[str] = ()
    noted: Sequence[str] = ()
    returned: Sequence[str] = ()
    disconnected: Sequence[str] = ()
    doubt: Doubt | None = None


class _Known(NamedTuple):
    """A district that was listed before."""

    status: str
    status_before: str | None
    disconnected_at: datetime | None


def reconcile_connections(connection: Connection, listing: Listing, *, now: datetime, accepted_by: str | None = None) -> Reconciled:
    """Ingest one full listing. Its changes and their alerts are one transaction. A listing without changes writes only its time.

    A listing that began before the newest ingested one changes nothing.

    Args:
        now: by the database's clock, aware UTC.
        accepted_by: the person who says that the listing is right; otherwise a doubtful one changes nothing.
    """
    began_at = now - timedelta(seconds=listing.age)
    with psycopg_connection(connection).transaction():
        newest = _lock_newest(connection)
        if newest["began_at"] >= began_at and not is_future(newest["began_at"], now):
            return Reconciled()
        known = _known(connection)
        doubt = _doubt(listing, newest["client"], known)
        if doubt is not None and accepted_by is None:
            _record_doubt(connection, doubt, listing, now=now)
            return Reconciled(doubt=doubt)
        alert_unusable_tokens(connection, listing, now=now)
        found = _apply(connection, listing, known, now=now)
        values = {"began_at": began_at, "client": listing.client, "doubted_since": None, "doubt": None}
        connection.execute(sa.update(token_listings).values(values))
        if accepted_by is not None:
            facts = {"connected": len(listing.district_ids), **{name: list(getattr(found, name)) for name in ("returned", "disconnected")}}
            record_act(connection, "accept_connections", given_name=accepted_by, subject="listing", facts=facts)
        return found


def doubt_about(connection: Connection, listing: Listing) -> Doubt | None:
    """Why this listing would not be believed; None if it would be. Writes nothing."""
    client = connection.execute(sa.select(token_listings.c.client)).scalar()
    return _doubt(listing, client, _known(connection))


def refuse_doubtful(doubt: Doubt | None, clever_id: str) -> None:
    """Fail the sync of a district that a doubtful listing concerns. The other districts have their tokens, and are synced.

    Raises:
        PermanentError: the listing is another application's.
        TransientError: the district is one of many that the listing lacks.
    """
    if doubt is None:
        return
    if doubt.is_other_client:
        raise PermanentError(doubt.reason, hint=f"Correct CLEVER_CLIENT_ID and its secret. {_ACCEPT}", district=clever_id)
    if clever_id in doubt.missing:
        hint = f"This district is one of them; nobody was disconnected. It can be a fault at Clever or a wrong secret. {_ACCEPT}"
        raise TransientError(doubt.reason, hint=hint, district=clever_id)


def _lock_newest(connection: Connection) -> Mapping[str, Any]:
    """The row of the newest ingested listing. All listings lock it, so each waits for the one before and sees its changes."""
    never = datetime.fromtimestamp(0, UTC)
    connection.execute(pg.insert(token_listings).values(is_newest=True, began_at=never).on_conflict_do_nothing())
    return dict(connection.execute(sa.select(token_listings).with_for_update()).mappings().one())


def _known(connection: Connection) -> dict[str, _Known]:
    query = sa.select(connections.c.clever_id, districts.c.status, connections.c.status_before, connections.c.disconnected_at)
    joined = query.join(districts, districts.c.district_id == connections.c.district_id)
    return {row[0]: _Known(*row[1:]) for row in connection.execute(joined)}


def _doubt(listing: Listing, client: str | None, known: Mapping[str, _Known]) -> Doubt | None:
    connected = [clever_id for clever_id, each in known.items() if each.status != "disconnected"]
    if client is not None and listing.client != client:
        return Doubt([], len(connected))
    missing = _missing(connected, listing)
    return Doubt(missing, len(connected)) if len(missing) > max(LOST_FLOOR, len(connected) * LOST_SHARE / 100) else None


def _missing(connected: Sequence[str], listing: Listing) -> list[str]:
    """The connected districts that the listing lacks. Nobody, if it has an entry without an owner: that may be any of them (R3.1)."""
    return [] if listing.unreadable else sorted(set(connected) - listing.district_ids)


def _record_doubt(connection: Connection, doubt: Doubt, listing: Listing, *, now: datetime) -> None:
    """Record it for `roster health`, with one alert for each set of missing districts."""
    facts = {"missing": len(doubt.missing), "connected": doubt.connected, "reason": doubt.reason}
    since = sa.func.coalesce(token_listings.c.doubted_since, now)
    connection.execute(sa.update(token_listings).values(doubted_since=since, doubt=facts))
    what = " ".join(doubt.missing) if doubt.missing else f"client {listing.client}"
    record_alert(connection, "connections_doubtful", sha256(what.encode()).hexdigest()[:16], now=now, facts=facts)


def _apply(connection: Connection, listing: Listing, known: Mapping[str, _Known], *, now: datetime) -> Reconciled:
    lost = _missing([each for each, was in known.items() if was.status != "disconnected"], listing)
    for clever_id in lost:
        _disconnect(connection, clever_id, known[clever_id].status, now=now)
    back: dict[str, list[str]] = {"requested": [], "noted": [], "returned": []}
    for clever_id in sorted(listing.district_ids):
        was = known.get(clever_id)
        if was is None or was.disconnected_at is not None or was.status == "disconnected":
            back[_connect(connection, clever_id, was, now=now)].append(clever_id)
    return Reconciled(back["requested"], back["noted"], back["returned"], lost)


def _connect(connection: Connection, clever_id: str, was: _Known | None, *, now: datetime) -> str:
    """Record a token that was not listed before. Returns what becomes of its district, as an attribute of Reconciled."""
    # The id is the name until somebody records the real one.
    insert = pg.insert(districts).values(clever_id=clever_id, name=clever_id, status="requested")
    status = (was.status_before if was is not None else None) or "requested"
    again = insert.on_conflict_do_update(
        index_elements=["clever_id"], set_={"status": status, "updated_at": now}, where=districts.c.status == "disconnected"
    )
    district_id = connection.execute(again.returning(districts.c.district_id)).scalar()
    is_noted = district_id is None
    if district_id is None:
        district_id = connection.execute(sa.select(districts.c.district_id).where(districts.c.clever_id == clever_id)).scalar_one()
    values: dict[str, Any] = {"connected_at": now, "disconnected_at": None, "status_before": None}
    recording = pg.insert(connections).values(clever_id=clever_id, district_id=district_id, **values)
    connection.execute(recording.on_conflict_do_update(index_elements=["clever_id"], set_=values))
    if is_noted:
        return "noted"
    record_alert(connection, "connected", _occasion(clever_id, now), now=now, district_id=district_id, facts={"status": status})
    return "requested" if status == "requested" else "returned"


def _disconnect(connection: Connection, clever_id: str, status: str, *, now: datetime) -> None:
    leaving = sa.update(connections).where(connections.c.clever_id == clever_id).values(disconnected_at=now, status_before=status)
    district_id = connection.execute(leaving.returning(connections.c.district_id)).scalar_one()
    ours = districts.c.district_id == district_id
    connection.execute(sa.update(districts).where(ours).values(status="disconnected", updated_at=now))
    record_alert(connection, "disconnected", _occasion(clever_id, now), now=now, district_id=district_id)


def _occasion(clever_id: str, now: datetime) -> str:
    """The key of the alert. It has the time, because a district may connect and disconnect more than once."""
    return f"{clever_id}:{now.isoformat()}"
