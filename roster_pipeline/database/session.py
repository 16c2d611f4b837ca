"""What every session of ours sets, and what a session proves before it writes (R11.9).

Belongs here: the settings that our statements rely on, and the proof that a connection is one session of a server that writes. Does not
belong here: opening a database (`engine.py`), and the locks (`lock.py`).

Server, role, database and environment can all set a session's defaults: another encoding garbles names, another date style cannot be read,
a time-out ends every sync. So a session sets what it relies on. What it cannot set, it proves: a pooler in transaction mode gives each
transaction another server session, where the temporary tables and the lock of another sync may be.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import Connection

from roster_pipeline.errors import PermanentError, TransientError

# A person that waits for a command reads after this time who is in the way. A sync waits longer (sync/session.py).
LOCK_SECONDS = 10
# What no session may have otherwise. Written as the server shows it.
_RELIED_ON = {
    "client_encoding": "UTF8",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    # Values are bound on the client, and these say how the server reads them.
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "search_path": "pg_catalog, public",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    # Our own limits: the deadline of the pull, the time-out of a district's sync, and the one for locks below.
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "lock_timeout": f"{LOCK_SECONDS}s",
    # The lock of a killed sync must be free soon (R11.2): the server notices a closed connection also during a statement.
    "client_connection_check_interval": "5s",
}
_SINCE = {17: {"transaction_timeout": "0"}}
# The lock must also be free soon after the client's whole machine has died. A local socket ignores these.
_KEEPALIVES = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
# Dagster's sessions use SQLAlchemy's own types, and wait for locks as Dagster decides.
_NOT_FOR_DAGSTER = {"search_path", "lock_timeout", "default_transaction_isolation"}

_PROOF = "own_session"
_MARK = "roster.session"


class OwnSession(NamedTuple):
    """How a server session is recognised: by its process, and by a mark that only this connection knows."""

    pid: int
    mark: str


def set_up(driver: "psycopg.Connection[Any]") -> None:
    """Set what our statements rely on, on a new connection.

    Raises:
        PermanentError: the server keeps another value.
    """
    needed = dict(_RELIED_ON)
    for version, settings in _SINCE.items():
        if driver.info.server_version >= version * 10_000:
            needed |= settings
    driver.autocommit = True
    try:
        _set(driver, needed | _KEEPALIVES)
        # Read in a statement of its own: a pooler may have given it another server session.
        shown = _row(driver, "select " + ", ".join(f"current_setting('{name}')" for name in needed))
    finally:
        driver.autocommit = False
    different = [name for name, is_set in zip(needed, shown, strict=True) if is_set != needed[name]]
    if different:
        raise PermanentError(f"The server does not keep this session's {', '.join(different)}.", hint=_POOLER_HINT)


def dagster_options() -> str:
    """The same settings as libpq's `options`, for Dagster's own connections."""
    return " ".join(
        f"-c {name}={value.replace(' ', chr(92) + ' ')}"
        for name, value in (_RELIED_ON | _KEEPALIVES).items()
        if name not in _NOT_FOR_DAGSTER
    )


def begin_own_session(connection: Connection) -> None:
    """Prove that this connection is one session of a server that writes, and remember how to recognise it.

    Args:
        connection: in autocommit.

    Raises:
        PermanentError: it is not one session.
        TransientError: the server only reads.
    """
    driver = _driver(connection)
    mark = secrets.token_hex(8)
    (pid, _) = _row(driver, "select pg_backend_pid(), set_config(%s, %s, false)", _MARK, mark)
    own = OwnSession(pid, mark)
    for _ in range(2):
        require_own_session(driver, own)
    (reads_only,) = _row(driver, "select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean")
    if reads_only:
        raise TransientError(
            "The database server only reads: it is a standby, or in the middle of a failover.",
            hint="If this stays, let ROSTER_DATABASE_URL lead to the primary server (target_session_attrs=read-write).",
        )
    connection.info[_PROOF] = own


def own_session(connection: Connection) -> OwnSession:
    """The session that this connection began."""
    own = connection.info[_PROOF]
    assert isinstance(own, OwnSession)  # noqa: S101  (only `begin_own_session` writes it)
    return own


def require_own_session(driver: "psycopg.Connection[Any]", own: OwnSession, *, locks: int | None = None) -> None:
    """Prove that the next statements of this transaction run in the session `own`.

    Args:
        locks: the key of an advisory lock that the session must hold.

    Raises:
        PermanentError: another server session answers.
        TransientError: the session has lost the lock.
    """
    pid, mark, has_lock = _row(
        driver,
        "select pg_backend_pid(), current_setting(%s, true), %s::bigint is null or exists (select from pg_locks "
        "where pid = pg_backend_pid() and locktype = 'advisory' and objsubid = 1 and granted "
        "and (classid::bigint << 32) | objid::bigint = %s::bigint)",
        _MARK,
        locks,
        locks,
    )
    if OwnSession(pid, mark) != own:
        raise not_one_session()
    if not has_lock:
        raise TransientError(
            "The session has lost the district's lock while it worked.",
            hint="Nothing was written. Find out who calls pg_advisory_unlock_all(), or whether a pooler resets sessions.",
        )


def not_one_session() -> PermanentError:
    """The error of a connection whose statements do not all run in one server session."""
    return PermanentError("This address leads to a pooler in transaction mode: one connection is not one session.", hint=_POOLER_HINT)


@contextmanager
def own_transaction(driver: "psycopg.Connection[Any]", own: OwnSession) -> Iterator[None]:
    """A transaction in our own session. In another one, temporary tables of these names belong to another process."""
    with driver.transaction():
        require_own_session(driver, own)
        yield


_POOLER_HINT = "Let ROSTER_DATABASE_URL lead to the server itself, or to a pooler in session mode."


def _set(driver: "psycopg.Connection[Any]", settings: dict[str, str]) -> None:
    calls = ", ".join("set_config(%s, %s, false)" for _ in settings)
    _row(driver, f"select {calls}", *[text for item in settings.items() for text in item])


def _row(driver: "psycopg.Connection[Any]", statement: str, *values: object) -> tuple[Any, ...]:
    row = driver.execute(statement.encode(), values).fetchone()
    assert row is not None  # noqa: S101  (each of these statements returns one row)
    return tuple(row)


def _driver(connection: Connection) -> "psycopg.Connection[Any]":
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101  (every engine of ours uses psycopg)
    return driver
