"""One open database: its server, a small pool of sessions, and the translation of its errors.

Belongs here: the engine and its sessions, Dagster's own database beside the application's, and where driver errors are translated. Does
not belong here: what they mean (`refusals.py`), addresses (`urls.py`), what a session sets (`session.py`), running a server
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

from roster_pipeline.database.blockers import listen_for_blockers
from roster_pipeline.database.embedded import EmbeddedServer
from roster_pipeline.database.lock import CREATE_DATABASE_LOCK
from roster_pipeline.database.refusals import translated
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

    `refusals.py` has the messages. They do not have the driver's own text, and the driver's error is not the cause either, because both can
    contain row values. An interrupt is raised again: if the clean-up after it fails in the middle of a statement,
    the driver's error must not hide it.
    """
    try:
        yield
    except (sqlalchemy.exc.DBAPIError, psycopg.Error) as error:
        if (interrupt := _interrupt_behind(error)) is not None:
            raise interrupt from None
        raise translated(error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error) from None


def _interrupt_behind(error: BaseException) -> BaseException | None:
    """The Ctrl-C or SIGTERM that was being handled when the driver failed, if there was one."""
    cause: BaseException | None = error
    while isinstance(cause, Exception | GeneratorExit):
        cause = cause.__context__
    return cause


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
    """The reason why no session could be opened. libpq gives no SQLSTATE for it, and its text can be in any language, so a ping decides.

    The first line of the text is repeated: it names the server, the user and the database, and never the password.
    """
    host = url.host or str(url.query.get("host", "the local socket"))
    server = f"{host}:{url.port or url.query.get('port', 5432)}"
    keys = {"host": url.query.get("host", url.host), "port": url.query.get("port", url.port), "connect_timeout": CONNECT_SECONDS}
    answer = PGconn.ping(make_conninfo("", **{key: str(value) for key, value in keys.items() if value}).encode())
    if answer != Ping.OK:
        return TransientError(f"PostgreSQL at {server} does not answer.", hint="Check that it runs and that host and port are right.")
    line = next(iter(said.splitlines()), "").removeprefix("connection failed: ").rpartition(" failed: ")[2].strip()
    if re.search("too many|connection slots|shutting down|starting up", said):
        hint = "Try again; if it stays, raise max_connections, or the limit of the role or database that is named."
        return TransientError(f"PostgreSQL at {server} accepts no session at the moment: {line}", hint=hint)
    if re.search("SSL|certificate", line):
        hint = "The server's TLS and the URL's sslmode do not fit: correct one of them."
        return PermanentError(f"PostgreSQL at {server} refuses the session: {line}", hint=hint)
    hint = "Check the URL (user, password, database) and the server's pg_hba.conf."
    return PermanentError(f"PostgreSQL at {server} refuses the session: {line}", hint=hint)


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
