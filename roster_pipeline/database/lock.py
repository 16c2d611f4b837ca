"""Advisory locks of the database, above all: one sync per district at a time (R11.2). The database frees a lock when its session ends.

Belongs here: the locks, and all their keys, so that no key has two meanings. Does not belong here: what a command does when a sync is
running, and marking crashed syncs (R11.4), which only calls `locked_districts`.

A key is one bigint. The upper 16 bits are a constant that says what kind of thing is locked, the lower 48 bits say which one.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import sqlalchemy.exc
from sqlalchemy import Connection, text

from roster_pipeline.errors import PermanentError, SyncRunningError

_DISTRICT_PREFIX = 0x5259
_SCHEMA_PREFIX = 0x525A
_ALERTS_PREFIX = 0x525B

MIGRATION_LOCK = _SCHEMA_PREFIX << 48 | 1
CREATE_DATABASE_LOCK = _SCHEMA_PREFIX << 48 | 2
_DEV_LOCK = _SCHEMA_PREFIX << 48 | 3
# The number of a sync in the feed is given under it (R17.3).
FEED_LOCK = _SCHEMA_PREFIX << 48 | 4
_DELIVERY_LOCK = _ALERTS_PREFIX << 48 | 1

_ROW_SECONDS = 1.0
# Where a connection keeps the key of the district's lock that it holds.
_HELD = "district_lock"

# pg_locks shows a bigint key as two halves (classid, objid) with objsubid 1.
_HOLDERS = text("""
    select
        ((locks.classid::bigint & 65535) << 32) | locks.objid::bigint as district_id,
        locks.pid,
        coalesce(nullif(activity.application_name, ''), 'without a name') as application,
        coalesce(activity.usename, '') as role
    from pg_locks as locks
    left join pg_stat_activity as activity on locks.pid = activity.pid
    where
        locks.locktype = 'advisory' and locks.objsubid = 1 and locks.granted
        and locks.classid::bigint >> 16 = :prefix
        and locks.database = (select oid from pg_database where datname = current_database())
    order by district_id, pid
""")
_RUNNING = text("select sync_id from ops.syncs where district_id = :district_id and status = 'processing' order by sync_id desc limit 1")


class LockHolder(NamedTuple):
    """A session that holds a district's lock.

    Attributes:
        application: the name that the session has given itself. Any session can call itself `roster`.
        role: the database role.
    """

    district_id: int
    pid: int
    application: str
    role: str

    @property
    def is_ours(self) -> bool:
        """Whether it says that it is the pipeline's."""
        return self.application.split(" ")[0] == "roster"


@contextmanager
def district_lock(connection: Connection, district_id: int, clever_id: str) -> Iterator[None]:
    """Holds the district's lock during the block. The lock belongs to this connection's session, and ends with it, also by `kill -9`.

    Args:
        connection: in autocommit, so that it is not idle inside a transaction for a whole sync. Use it for nothing else during the block.
        district_id: the application's id.
        clever_id: the Clever id, for the error.

    Raises:
        SyncRunningError: another session has the lock. The error has the id of its sync, unless its row does not appear within a second.
    """
    key = _DISTRICT_PREFIX << 48 | district_id
    if not try_lock(connection, key):
        running = _running_sync(connection, district_id)
        reason = "Another sync of this district is running." if running is not None else _held_by(connection, district_id)
        raise SyncRunningError(reason, running_sync_id=running, district=clever_id)
    connection.info[_HELD] = key
    try:
        yield
    finally:
        _unlock(connection, key)


def held_lock(connection: Connection) -> int | None:
    """The key of the district's lock that this connection took, and must still hold; None if it took none."""
    key = connection.info.get(_HELD)
    return None if key is None else int(key)


@contextmanager
def dev_lock(connection: Connection) -> Iterator[None]:
    """Holds the lock of `roster dev` during the block.

    Args:
        connection: in autocommit. Use it for nothing else during the block.

    Raises:
        PermanentError: another `roster dev` has it.
    """
    with _if_free(connection, _DEV_LOCK) as is_ours:
        if not is_ours:
            raise PermanentError(
                "Another `roster dev` runs on this database.", hint="Two daemons would start every sync twice. Stop the other one."
            )
        yield


@contextmanager
def delivery_lock(connection: Connection) -> Iterator[bool]:
    """Holds the lock of alert delivery during the block, if it is free. Only one process sends alerts, so that none is sent twice (R11.8).

    Args:
        connection: in autocommit.

    Yields:
        Whether this session has the lock.
    """
    with _if_free(connection, _DELIVERY_LOCK) as is_ours:
        yield is_ours


def locked_districts(connection: Connection) -> set[int]:
    """The ids of districts whose lock is held. If another district has a sync in status `processing`, that sync has crashed (R11.4)."""
    return {each.district_id for each in lock_holders(connection)}


def lock_holders(connection: Connection) -> list[LockHolder]:
    """The sessions that hold a district's lock, by district."""
    return [LockHolder(*row) for row in connection.execute(_HOLDERS, {"prefix": _DISTRICT_PREFIX})]


def try_lock(connection: Connection, key: int) -> bool:
    """Take a lock of this session if it is free, and return whether it was."""
    return bool(connection.execute(text("select pg_try_advisory_lock(:key)"), {"key": key}).scalar_one())


@contextmanager
def _if_free(connection: Connection, key: int) -> Iterator[bool]:
    """Holds a lock during the block if it is free. Yields whether this session has it."""
    is_ours = try_lock(connection, key)
    try:
        yield is_ours
    finally:
        if is_ours:
            _unlock(connection, key)


def _unlock(connection: Connection, key: int) -> None:
    try:
        # A connection whose session has ended does not even have its `info`.
        if connection.info.get(_HELD) == key:
            del connection.info[_HELD]
        connection.execute(text("select pg_advisory_unlock(:key)"), {"key": key})
    except sqlalchemy.exc.SQLAlchemyError:
        # The session has ended or is broken. Closing it frees the lock. Not raised, so that an error of the block is not hidden.
        connection.invalidate()


def _held_by(connection: Connection, district_id: int) -> str:
    """Why the lock is not free although no sync is running: any role that can connect can take it."""
    holder = next((each for each in lock_holders(connection) if each.district_id == district_id), None)
    if holder is None:
        return "Another process holds this district's lock."
    return f"Process {holder.pid} of the database server ({holder.application}) holds this district's lock, and no sync is running."


def _running_sync(connection: Connection, district_id: int) -> int | None:
    """The id of the running sync. It waits for a second, because a sync writes its row shortly after it gets the lock."""
    deadline = time.monotonic() + _ROW_SECONDS
    while (sync_id := connection.execute(_RUNNING, {"district_id": district_id}).scalar()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return sync_id
