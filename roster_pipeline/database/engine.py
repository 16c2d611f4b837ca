"""One open database: its server, a small pool of sessions, and the translation of its errors.

Belongs here: the engine and its sessions, Dagster's own database beside the application's, and the translation of driver errors
into those of `errors.py`. Does not belong here: addresses (`urls.py`), what a session sets (`session.py`), running a server
(`embedded.py`), the schema (`migrate.py`), and queries about districts.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import psycopg
import sqlalchemy.exc
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping
from sqlalchemy import URL, Connection, Engine, create_engine, event

from roster_pipeline.database.blockers import blockers_in_words, blockers_of, listen_for_blockers
from roster_pipeline.database.embedded import EmbeddedServer
from roster_pipeline.database.lock import CREATE_DATABASE_LOCK
from roster_pipeline.database.session import set_up
from roster_pipeline.database.urls import are_on_one_server, for_dagster, parse_url
from roster_pipeline.errors import PermanentError, RosterError, TransientError
from roster_pipeline.settings import Settings

DATABASE_NAME = "roster"
OLDEST_SERVER = 15
CONNECT_SECONDS = 10

_CONNECT = {
    "application_name": "roster",
    # Also for the statements before the session's own settings (`session.py`), whatever PGCLIENTENCODING says.
    "client_encoding": "UTF8",
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


@dataclass(frozen=True)
class Database:
    """An open application database. Only for the process that opened it: a child process opens its own.

    Attributes:
        engine: SQLAlchemy with psycopg 3. Values are bound on the client, so that PostgreSQL plans with the district as a constant.
        url: of the application's database (`postgresql+psycopg`).
        dagster_url: of Dagster's own database (`postgresql+psycopg2`, the only driver that its storage supports).
        embedded: whether the server is the project's own.
    """

    engine: Engine
    url: URL
    dagster_url: URL
    embedded: bool


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """The application's database: ROSTER_DATABASE_URL, or `roster` on the embedded server, which runs during the block.

    Raises:
        PermanentError: the URL is not PostgreSQL's; the server refuses the user or database, is older than 15, or does not store UTF-8; the
            embedded server cannot start.
        TransientError: the server does not answer.
    """
    if settings.roster_database_url is not None:
        with _connected(
            settings, parse_url(settings.roster_database_url.get_secret_value(), "ROSTER_DATABASE_URL"), embedded=False
        ) as database:
            yield database
        return
    with EmbeddedServer(settings.roster_home) as server:
        maintenance = _engine(server.url("postgres"))
        try:
            _create_database(maintenance, DATABASE_NAME)
        finally:
            maintenance.dispose()
        with _connected(settings, server.url(DATABASE_NAME), embedded=True) as database:
            yield database


def ensure_dagster_database(database: Database) -> None:
    """Creates Dagster's database if it is missing and is on the application's server. On another server, its owner creates it.

    Raises:
        PermanentError: the user may not create databases.
    """
    if are_on_one_server(database.dagster_url, database.url) and _create_database(
        database.engine, name := str(database.dagster_url.database)
    ):
        with _autocommit(database.engine) as connection:
            # Waiting for the disk takes 32 ms for each event. A power cut may now lose Dagster's last events, but `ops` has all results.
            psycopg_connection(connection).execute(sql.SQL("alter database {} set synchronous_commit = off").format(sql.Identifier(name)))


def psycopg_connection(connection: Connection) -> "psycopg.Connection[Any]":
    """The driver's connection of a SQLAlchemy connection, in the same transaction: for COPY, and for scripts that contain `:` or `%`."""
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)


@contextmanager
def translate_database_errors() -> Iterator[None]:
    """Translates every error of the driver in the block into PermanentError or TransientError.

    The message has SQLSTATE, table, column and constraint. It does not have the driver's own text, and the driver's error is not the cause
    either, because both can contain row values. An interrupt is raised again: if the clean-up after it fails in the middle of a statement,
    the driver's error must not hide it.
    """
    try:
        yield
    except (sqlalchemy.exc.DBAPIError, psycopg.Error) as error:
        if (interrupt := _interrupt_behind(error)) is not None:
            raise interrupt from None
        raise _translated(error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error) from None


def _interrupt_behind(error: BaseException) -> BaseException | None:
    """The Ctrl-C or SIGTERM that was being handled when the driver failed, if there was one."""
    cause: BaseException | None = error
    while isinstance(cause, Exception | GeneratorExit):
        cause = cause.__context__
    return cause


def _translated(error: BaseException | None) -> RosterError:
    if not isinstance(error, psycopg.Error):
        return PermanentError(f"The database driver failed: {type(error).__name__}.")
    state = error.sqlstate
    if state is None:  # The error is not from the server.
        if isinstance(error, psycopg.OperationalError):
            return TransientError("The connection to the database was lost.", hint="Try again; the transaction was rolled back.")
        return PermanentError(f"The database driver failed: {type(error).__name__}.")
    if state == "XX000" and error.diag.source_function in _GROWS_A_FILE:
        return TransientError("The database refused: its disk quota, or its limit for a file, is used up.", hint=_HINTS["53100"])
    where = ", ".join(
        f"{what} {name}"
        for what, name in (
            ("table", ".".join(part for part in (error.diag.schema_name, error.diag.table_name) if part)),
            ("column", error.diag.column_name),
            ("constraint", error.diag.constraint_name),
        )
        if name
    )
    if state == "55P03":
        return TransientError(
            "Another session holds a lock for too long (SQLSTATE 55P03).",
            hint=f"{blockers_in_words(blockers_of(error))} Try again; nothing was written.".strip(),
        )
    reason = f"The database refused: {type(error).__name__}, SQLSTATE {state}" + (f", {where}." if where else ".")
    if state in _TRANSIENT_STATES or state[:2] in _TRANSIENT_CLASSES:
        return TransientError(reason, hint=_HINTS.get(state, "Try again; the transaction was rolled back."))
    return PermanentError(reason, hint=_HINTS.get(state, ""))


# PostgreSQL's functions that enlarge a table or a temporary file. It reports a full disk as 53100, but a used-up quota as internal error.
_GROWS_A_FILE = {"mdextend", "mdzeroextend", "BufFileDumpBuffer"}
_TRANSIENT_CLASSES = {
    "08",  # connection
    "53",  # disk full, out of memory, too many connections
    "58",  # an error of the operating system
}
_TRANSIENT_STATES = {
    "25006",  # read-only: during a failover the address still leads to the standby
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55006",  # object in use
    "55P03",  # lock not available
    "57014",  # cancelled, also by a time-out of the server
    "57P01",  # shut down by an administrator
    "57P02",  # crashed
    "57P03",  # starting up or shutting down
    "57P05",  # idle session time-out
}
_MIGRATE = "Run `roster migrate`."
_HINTS = {
    "25006": "The server is read-only: a standby, or in the middle of a failover.",
    "3F000": _MIGRATE,
    "42501": "Grant the missing privilege to the user of ROSTER_DATABASE_URL.",
    "42703": _MIGRATE,
    "42883": _MIGRATE,
    "42P01": _MIGRATE,
    "53100": "The server's disk is full: free some space.",
    "53300": "The server has no free connection: raise max_connections or run fewer syncs at once.",
}


@contextmanager
def _connected(settings: Settings, url: URL, *, embedded: bool) -> Iterator[Database]:
    if settings.roster_dagster_database_url is not None:
        dagster_url = parse_url(settings.roster_dagster_database_url.get_secret_value(), "ROSTER_DAGSTER_DATABASE_URL")
    else:
        dagster_url = url.set(database=f"{url.database}_dagster")
    engine = _engine(url)
    try:
        _check_server(engine)
        yield Database(engine, url, for_dagster(dagster_url), embedded)
    finally:
        engine.dispose()


def _engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        connect_args={"cursor_factory": psycopg.ClientCursor, **_CONNECT},
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=3,
        max_overflow=2,
    )
    event.listen(engine, "handle_error", listen_for_blockers)
    event.listen(engine, "connect", lambda driver, _record: set_up(driver))
    return engine


def _check_server(engine: Engine) -> None:
    try:
        with engine.connect() as connection:
            info = psycopg_connection(connection).info
            version, encoding = info.server_version, info.parameter_status("server_encoding")
    except sqlalchemy.exc.DBAPIError as error:
        raise _unreachable(engine.url, str(error.orig)) from None
    if version < OLDEST_SERVER * 10_000:
        raise PermanentError(f"The server runs PostgreSQL {version // 10_000}; {OLDEST_SERVER} or newer is needed.", hint="Upgrade it.")
    if encoding != "UTF8":
        raise PermanentError(f"The database stores {encoding}, which cannot hold every name.", hint="Create it with encoding 'UTF8'.")


def _unreachable(url: URL, said: str) -> RosterError:
    """The reason why no session could be opened. libpq gives no SQLSTATE for it, and its text can be in any language, so a ping decides."""
    host = url.host or str(url.query.get("host", "the local socket"))
    server = f"{host}:{url.port or url.query.get('port', 5432)}"
    keys = {"host": url.query.get("host", url.host), "port": url.query.get("port", url.port), "connect_timeout": CONNECT_SECONDS}
    answer = PGconn.ping(make_conninfo("", **{key: str(value) for key, value in keys.items() if value}).encode())
    if answer == Ping.OK and not re.search("too many|connection slots|shutting down|starting up", said):
        return PermanentError(
            f"PostgreSQL at {server} refuses the session: wrong user or password, or no database {url.database!r}.",
            hint="Check the URL and the server's pg_hba.conf.",
        )
    if answer == Ping.OK:
        return TransientError(
            f"PostgreSQL at {server} accepts no session at the moment.", hint="Try again; if it stays, raise max_connections."
        )
    return TransientError(f"PostgreSQL at {server} does not answer.", hint="Check that it runs and that host and port are right.")


@contextmanager
def _autocommit(engine: Engine) -> Iterator[Connection]:
    with translate_database_errors(), engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def _create_database(engine: Engine, name: str) -> bool:
    """Creates the database unless it exists, and returns whether it did. Two processes at once create it once."""
    with _autocommit(engine) as connection:
        connection.exec_driver_sql(f"select pg_advisory_lock({CREATE_DATABASE_LOCK})")
        try:
            if connection.execute(sqlalchemy.text("select 1 from pg_database where datname = :name"), {"name": name}).scalar():
                return False
            psycopg_connection(connection).execute(
                sql.SQL("create database {} encoding 'UTF8' template template0").format(sql.Identifier(name))
            )
            return True
        finally:
            connection.exec_driver_sql(f"select pg_advisory_unlock({CREATE_DATABASE_LOCK})")
