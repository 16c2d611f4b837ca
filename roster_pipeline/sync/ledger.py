"""`ops.syncs`: one row per sync, from request to end, correct at every moment (R11.4).

Belongs here: every write to `ops.syncs` except the removal of old rows (`fleet/retention.py`). Does not belong here: what a sync does
between start and end. Every function uses the caller's connection, so it is part of the caller's transaction if there is one (R11.5).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.alerts.causes import alert_failures
from roster_pipeline.database.audit import os_principal, record_act
from roster_pipeline.database.engine import psycopg_connection
from roster_pipeline.database.lock import FEED_LOCK
from roster_pipeline.database.tables import APPLIED, districts, syncs
from roster_pipeline.errors import PermanentError

_users = sa.table("users", sa.column("district_id"), sa.column("source"), schema="app")

ANSWERED_BY = "Answered by sync"
CRASHED = "The process that ran this sync ended before the sync did. Nothing of it was applied; the next sync starts again."


class RequestEndedError(PermanentError):
    """The request that a run was started for has ended meanwhile: another sync has answered it, or it may not start. This is no failure."""


@dataclass(frozen=True)
class Origin:
    """Who or what started a sync: columns of its row.

    Attributes:
        trigger: why it starts. The first sync of a district is always `initial`.
        requested_role: the role of the person that requested it; None if the schedule started it.
        sync_id: the `queued` row that this sync answers; None makes a new row.
        principal: who or what that is, as the program found it out itself (R13.1); None: the operating-system user of this process.
    """

    trigger: str = "on_demand"
    requested_by: str | None = None
    reason: str | None = None
    requested_role: str | None = "support"
    dagster_run_id: str | None = None
    sync_id: int | None = None
    principal: str | None = None

    @property
    def is_urgent(self) -> bool:
        """Whether somebody waits for it. Syncs that the schedule started are reported in the digest of the night (R11.8)."""
        return self.requested_role is not None


def queue(connection: Connection, district_id: int, origin: Origin, *, now: datetime) -> int:
    """Record the request of a sync. Returns its sync_id."""
    return _insert(connection, district_id, origin, now=now, status="queued")


def begin(connection: Connection, district_id: int, origin: Origin, *, now: datetime) -> int:
    """Make the row of a sync `processing`: a new one, or the queued one that it answers. Returns its sync_id.

    All other queued requests of the district are answered by this sync too.

    Raises:
        RequestEndedError: the queued row has ended meanwhile, so nothing is to be done.
        PermanentError: the row is no request of this district that waits.
    """
    origin = _second_attempt(connection, origin)
    values = {"trigger": "initial" if is_first_sync(connection, district_id) else origin.trigger, "status": "processing"}
    # In one transaction, also if the connection is in autocommit.
    with psycopg_connection(connection).transaction():
        if origin.sync_id is None:
            sync_id = _insert(connection, district_id, origin, now=now, **values, started_at=now)
            _record_start(connection, district_id, sync_id, origin)
            return sync_id
        sync_id = _start_queued(connection, district_id, origin, **values, started_at=now)
        waiting = sa.and_(syncs.c.district_id == district_id, syncs.c.status == "queued")
        answered = {"status": "skipped", "finished_at": now, "message": f"{ANSWERED_BY} {sync_id}."}
        connection.execute(sa.update(syncs).where(waiting).values(answered))
    return sync_id


def refused(
    connection: Connection, district_id: int | None, origin: Origin, *, now: datetime, status: str, message: str, hint: str = ""
) -> int:
    """A row that ends as it begins: `skipped` (the district may not sync) or `failed` (it is unknown, or its settings cannot be used).

    Raises:
        RequestEndedError, PermanentError: as in `begin`.
    """
    origin = _second_attempt(connection, origin)
    ended = {"status": status, "started_at": now, "finished_at": now, "message": message}
    with psycopg_connection(connection).transaction():
        # No request can be one of an unknown district.
        if origin.sync_id is not None and district_id is not None:
            sync_id = _start_queued(connection, district_id, origin, **ended)
        else:
            sync_id = _insert(connection, district_id, origin, now=now, **ended)
        # An unknown id is a typing error. The person that made it sees the error, so no alert is needed.
        if status == "failed" and district_id is not None:
            row = {
                "sync_id": sync_id,
                "district_id": district_id,
                "message": message,
                "requested_role": origin.requested_role,
                "hint": hint,
            }
            alert_failures(connection, [row], now=now)
    return sync_id


def dismiss(connection: Connection, sync_id: int, *, now: datetime, status: str, message: str) -> None:
    """End a queued row without a sync: `skipped` (it may not start) or `failed` (it could not start). A started one stays."""
    _end(connection, syncs.c.sync_id == sync_id, {"status": status, "finished_at": now, "message": message}, now=now, was="queued")


def pull_began(connection: Connection, sync_id: int, snapshot_at: datetime) -> int:
    """Record when the pull began. Returns its number: the pulls of a district are counted, in the order in which they begin."""
    others = syncs.alias("others")
    last = sa.select(sa.func.coalesce(sa.func.max(others.c.pull_no), 0)).where(others.c.district_id == syncs.c.district_id)
    values = {"snapshot_at": snapshot_at, "pull_no": last.scalar_subquery() + 1}
    beginning = sa.update(syncs).where(syncs.c.sync_id == sync_id).values(values)
    return int(connection.execute(beginning.returning(syncs.c.pull_no)).scalar_one())


def last_pull(connection: Connection, district_id: int) -> int:
    """The number of the district's last pull; 0 if there was none."""
    return int(connection.execute(sa.select(sa.func.max(syncs.c.pull_no)).where(syncs.c.district_id == district_id)).scalar() or 0)


def is_outdated(connection: Connection, district_id: int, pull_no: int) -> bool:
    """Whether a later pull than this one has been applied (R11.6). No clock decides it, because a time can be wrong."""
    is_later = sa.and_(syncs.c.district_id == district_id, syncs.c.is_applied, syncs.c.pull_no > pull_no)
    return bool(connection.execute(sa.select(sa.exists().where(is_later))).scalar_one())


def is_first_sync(connection: Connection, district_id: int) -> bool:
    """Whether the next sync is the first (R7.6): none was ever applied, and no user is from Clever. `staging` does not matter.

    Also the first under a new Clever id of the district (R6.5).
    """
    rekeyed = sa.exists().where(districts.c.district_id == district_id, districts.c.rekeyed_from.is_not(None))
    applied = sa.exists().where(syncs.c.district_id == district_id, syncs.c.is_applied)
    rostered = sa.exists().where(_users.c.district_id == district_id, _users.c.source == "clever")
    return bool(connection.execute(sa.select(sa.or_(rekeyed, sa.not_(sa.or_(applied, rostered))))).scalar_one())


def last_applied(connection: Connection, district_id: int) -> Mapping[str, Any]:
    """The counts of the newest sync that was applied, at least in part; empty if there is none."""
    query = (
        sa.select(syncs.c.counts)
        .where(syncs.c.district_id == district_id, syncs.c.status.in_(APPLIED))
        .order_by(syncs.c.sync_id.desc())
        .limit(1)
    )
    return dict(connection.execute(query).scalar() or {})


def end(
    connection: Connection, sync_id: int, *, now: datetime, status: str, counts: Mapping[str, Any], message: str, hint: str = ""
) -> None:
    """End a sync. If its row has ended already, it stays: an error after the commit cannot make an applied sync a failed one.

    A sync that wrote gets its number in the feed (R17.3). All others that want one wait until the transaction has ended, so nothing comes
    between this and the commit.

    Args:
        hint: what to do about a failure; the alert repeats it.
    """
    values = {"status": status, "finished_at": now, "counts": dict(counts), "message": message}
    if _end(connection, syncs.c.sync_id == sync_id, values, now=now, hint=hint) and status in APPLIED and counts.get("changes"):
        connection.execute(sa.select(sa.func.ops.number_applied(sync_id, FEED_LOCK)))


def mark_crashed(connection: Connection, district_id: int | None, *, now: datetime, message: str = CRASHED) -> int:
    """Mark the district's rows in `processing` as failed: the caller holds the lock, so their syncs have crashed. Returns how many."""
    values = {"status": "failed", "finished_at": now, "message": message}
    return _end(connection, syncs.c.district_id == district_id, values, now=now)


def _end(
    connection: Connection,
    which: sa.ColumnElement[bool],
    values: Mapping[str, Any],
    *,
    now: datetime,
    was: str = "processing",
    hint: str = "",
) -> int:
    ending = sa.update(syncs).where(which, syncs.c.status == was).values(values).returning(syncs)
    # A failure and its alert in one transaction (R11.8), also if the connection is in autocommit.
    with psycopg_connection(connection).transaction():
        ended = connection.execute(ending).mappings().all()
        alert_failures(connection, [{**row, "hint": hint} for row in ended if row["status"] == "failed"], now=now)
    return len(ended)


def status_of(connection: Connection, sync_id: int) -> str | None:
    """The status of a sync; None if there is none of this id."""
    return connection.execute(sa.select(syncs.c.status).where(syncs.c.sync_id == sync_id)).scalar()


def recent(connection: Connection, *, district_id: int | None = None, limit: int = 20) -> list[Mapping[str, Any]]:
    """The newest syncs, of one district or of all, and all that are queued; the newest first."""
    ours = syncs.c.district_id == district_id if district_id is not None else sa.true()
    newest = sa.select(syncs.c.sync_id).where(ours).order_by(syncs.c.sync_id.desc()).limit(limit)
    waiting = sa.select(syncs.c.sync_id).where(ours, syncs.c.status == "queued")
    query = sa.select(syncs).where(syncs.c.sync_id.in_(sa.union(newest, waiting))).order_by(syncs.c.sync_id.desc())
    return [dict(row) for row in connection.execute(query).mappings()]


def last_successes(connection: Connection) -> dict[int, datetime | None]:
    """When each district's newest successful sync ended, by district id; None if it has had none."""
    newest = (
        sa.select(syncs.c.finished_at)
        .where(syncs.c.district_id == districts.c.district_id, syncs.c.status == "successful")
        .order_by(syncs.c.sync_id.desc())
        .limit(1)
        .scalar_subquery()
    )
    rows = connection.execute(sa.select(districts.c.district_id, newest))
    return {row[0]: row[1] for row in rows}


def _insert(connection: Connection, district_id: int | None, origin: Origin, *, now: datetime, **values: Any) -> int:
    values = {
        "district_id": district_id,
        "trigger": origin.trigger,
        "requested_by": origin.requested_by,
        "requested_at": now,
        "reason": origin.reason,
        "requested_role": origin.requested_role,
        "dagster_run_id": origin.dagster_run_id,
        "principal": origin.principal or os_principal(),
        **values,
    }
    return int(connection.execute(sa.insert(syncs).values(values).returning(syncs.c.sync_id)).scalar_one())


def _record_start(connection: Connection, district_id: int, sync_id: int, origin: Origin) -> None:
    """A sync that a person started here and now is in `ops.audit` (R13.2). What was requested is there since the request."""
    if origin.requested_role is not None:
        record_act(
            connection,
            "sync",
            given_name=origin.requested_by,
            reason=origin.reason,
            district_id=district_id,
            subject=f"sync {sync_id}",
            principal=origin.principal,
        )


def _second_attempt(connection: Connection, origin: Origin) -> Origin:
    """The origin of a run's second attempt: a new row with the texts of the first one, which has ended and is left unchanged."""
    if origin.sync_id is None or origin.dagster_run_id is None:
        return origin
    ours = sa.and_(syncs.c.sync_id == origin.sync_id, syncs.c.dagster_run_id == origin.dagster_run_id, syncs.c.status != "queued")
    row = (
        connection.execute(sa.select(*(syncs.c[name] for name in ("requested_by", "reason", "requested_role", "principal"))).where(ours))
        .mappings()
        .one_or_none()
    )
    return replace(origin, sync_id=None, **row) if row is not None else origin


def _start_queued(connection: Connection, district_id: int, origin: Origin, **values: Any) -> int:
    ours = sa.and_(syncs.c.sync_id == origin.sync_id, syncs.c.district_id == district_id)
    values = {"dagster_run_id": origin.dagster_run_id, **values}
    starting = sa.update(syncs).where(ours, syncs.c.status == "queued").values(values).returning(syncs.c.sync_id)
    if (sync_id := connection.execute(starting).scalar()) is not None:
        return int(sync_id)
    row = connection.execute(sa.select(syncs.c.status, syncs.c.message, syncs.c.started_at).where(ours)).one_or_none()
    if row is None:
        raise PermanentError(f"This district has no request {origin.sync_id}.", hint="`roster status DISTRICT` shows its requests.")
    if row.status in ("skipped", "failed") and row.started_at is None:
        raise RequestEndedError(f"Request {origin.sync_id} has ended already ({row.status}). {row.message}")
    raise PermanentError(
        f"Request {origin.sync_id} is not queued any more: it is {row.status}.", hint="`roster request` requests another sync."
    )
