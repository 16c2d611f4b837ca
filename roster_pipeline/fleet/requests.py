"""Syncs on demand (R11.3): who may request one, how often, and which request is started next.

Belongs here: the rules of a request, the same for `roster request` and for a row that the application inserts. Does not belong here:
starting a run (`defs/requests.py`) and the writes to `ops.syncs` (`sync/ledger.py`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from roster_pipeline.database.audit import record_act
from roster_pipeline.database.lock import locked_districts
from roster_pipeline.database.tables import districts, syncs, ticks
from roster_pipeline.districts.agreement import District, find_district, inactive
from roster_pipeline.districts.windows import freeze_at
from roster_pipeline.errors import PermanentError, RosterError, SyncRunningError, TransientError
from roster_pipeline.sync import ledger
from roster_pipeline.sync.ledger import Origin

# The sensor ticks every five seconds.
TAKEN_UP_WITHIN = timedelta(minutes=1)
_SENSOR = "requests"


@dataclass(frozen=True)
class Queued:
    """A request that waits to be started.

    Attributes:
        district: the district's Clever id.
    """

    sync_id: int
    district: str


def request_sync(connection: Connection, reference: str, origin: Origin, *, now: datetime) -> tuple[Queued, bool]:
    """Request a sync of one district. Returns the queued row, and whether it existed already.

    Args:
        connection: in a transaction. Another request for the same district waits until it ends, and then finds the row.

    Raises:
        SyncRunningError: a sync of the district is running; nothing is queued.
        RosterError: there is no such district, it is not active, a freeze is on (R14.2), this role may not request a sync, or the limit of
            requests is reached; nothing is queued.
    """
    district = find_district(connection, reference)
    locking = sa.select(districts.c.district_id).where(districts.c.district_id == district.district_id)
    # A row lock, not the sync's lock: a running sync never waits for a request, nor a request for a sync.
    connection.execute(locking.with_for_update(key_share=True))
    _refuse_unless_allowed(connection, district, origin.requested_role, now=now)
    ours = syncs.c.district_id == district.district_id
    waiting = sa.select(syncs.c.sync_id).where(ours, syncs.c.status == "queued").order_by(syncs.c.sync_id).limit(1)
    if (sync_id := connection.execute(waiting).scalar()) is not None:
        return Queued(sync_id, district.clever_id), True
    running = connection.execute(sa.select(syncs.c.sync_id).where(ours, syncs.c.status == "processing")).scalar()
    # If nobody holds the lock, the sync of this row has crashed (R11.4).
    if running is not None and district.district_id in locked_districts(connection):
        raise SyncRunningError("A sync of this district is running.", running_sync_id=running, district=district.clever_id)
    _refuse_too_many(connection, district, until=now)
    sync_id = ledger.queue(connection, district.district_id, origin, now=now)
    record_act(
        connection,
        "request",
        given_name=origin.requested_by,
        reason=origin.reason,
        district_id=district.district_id,
        subject=f"sync {sync_id}",
        principal=origin.principal,
    )
    return Queued(sync_id, district.clever_id), False


def record_tick(connection: Connection) -> None:
    """Record that requests are taken up now. By the database's clock, because the daemon may run on another machine."""
    now = sa.func.clock_timestamp()
    tick = pg.insert(ticks).values(sensor=_SENSOR, ticked_at=now)
    connection.execute(tick.on_conflict_do_update(index_elements=["sensor"], set_={"ticked_at": now}))


def is_taken_up(connection: Connection) -> bool:
    """Whether the daemon has looked for requests within a minute. Otherwise a request, or an approval, waits until somebody syncs."""
    now = sa.func.clock_timestamp()
    # A time in the future was written by a clock that was wrong.
    recent = sa.exists().where(ticks.c.sensor == _SENSOR, ticks.c.ticked_at.between(now - TAKEN_UP_WITHIN, now + TAKEN_UP_WITHIN))
    return bool(connection.execute(sa.select(recent)).scalar_one())


def startable(connection: Connection, *, now: datetime) -> list[Queued]:
    """The oldest queued row of every district that is not being synced. Rows that break a rule of requests are skipped, with the reason.

    Args:
        connection: in autocommit, so that one district's row never waits for another's.
    """
    busy = locked_districts(connection)
    query = (
        sa.select(syncs.c.sync_id, syncs.c.district_id, districts.c.clever_id, syncs.c.requested_role, syncs.c.requested_at)
        .join_from(syncs, districts, isouter=True, onclause=districts.c.district_id == syncs.c.district_id)
        .where(syncs.c.status == "queued")
        .order_by(syncs.c.sync_id)
    )
    found: dict[int, Queued] = {}
    for row in connection.execute(query).all():
        if row.district_id in busy or row.district_id in found:
            continue
        try:
            district = _district_of(connection, row.clever_id)
            _refuse_unless_allowed(connection, district, row.requested_role, now=now)
            _refuse_too_many(connection, district, until=row.requested_at, before=row.sync_id)
        except RosterError as error:
            ledger.dismiss(connection, row.sync_id, now=now, status="skipped", message=error.reason)
        else:
            found[district.district_id] = Queued(row.sync_id, district.clever_id)
    return list(found.values())


def _district_of(connection: Connection, clever_id: str | None) -> District:
    if clever_id is None:
        raise PermanentError("The request names no district.")
    return find_district(connection, clever_id)


def _refuse_unless_allowed(connection: Connection, district: District, role: str | None, *, now: datetime) -> None:
    """Refuse unless the district is active, no freeze is on, and this role may request a sync of it."""
    if district.status != "active":
        reason, hint = inactive(district)
        raise PermanentError(reason, hint=hint, district=district.clever_id)
    if (freeze := freeze_at(connection, district.district_id, now)) is not None:
        reason, hint = freeze.refusal
        raise PermanentError(reason, hint=hint, district=district.clever_id)
    roles = district.require_rules().request_roles
    if role not in roles:
        raise PermanentError(
            f"The role {role or '(none)'} may not ask for a sync of this district.",
            hint=f"These may (`request_roles` of its settings): {', '.join(roles)}.",
            district=district.clever_id,
        )


def _refuse_too_many(connection: Connection, district: District, *, until: datetime, before: int | None = None) -> None:
    """Refuse if the limit is reached in the hour up to `until`. Counts rows before the id `before`; skipped rows started no sync."""
    limit = district.rules.requests_per_hour if district.rules else None
    if limit is None:
        return
    asked = sa.select(sa.func.count()).where(
        syncs.c.district_id == district.district_id,
        syncs.c.requested_role.is_not(None),
        syncs.c.status != "skipped",
        syncs.c.requested_at > until - timedelta(hours=1),
        syncs.c.requested_at <= until,
        syncs.c.sync_id < before if before is not None else sa.true(),
    )
    if connection.execute(asked).scalar_one() >= limit:
        raise TransientError(
            f"The limit of {limit} requested syncs an hour is reached.",
            hint="Ask again later; `requests_per_hour` of the district's settings is the limit.",
            district=district.clever_id,
        )
