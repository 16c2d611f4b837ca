"""Opening a database: which servers are accepted, what errors say, and that errors never contain row values."""

import os
import shutil
import socket
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
import sqlalchemy.exc
from dagster._core.errors import DagsterExecutionInterruptedError
from psycopg.pq import Ping
from sqlalchemy import URL, create_engine, make_url, text

from roster_pipeline.database import engine
from roster_pipeline.database.embedded import EmbeddedServer
from roster_pipeline.database.engine import Database, ensure_dagster_database, open_database, psycopg_connection, translate_database_errors
from roster_pipeline.database.urls import parse_url
from roster_pipeline.errors import PermanentError, RosterError, TransientError
from roster_pipeline.settings import Settings

MARKER = "Zebulon-Marker"


def libpq_url(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def settings_for(url: str, dagster_url: str | None = None) -> Settings:
    return Settings(roster_home=Path("/nonexistent"), roster_database_url=url, roster_dagster_database_url=dagster_url)


def opening_fails_with(url: str) -> RosterError:
    with pytest.raises(RosterError) as failed, open_database(settings_for(url)):
        pass
    assert "s3cret" not in "".join(traceback.format_exception(failed.value))
    return failed.value


def test_sessions_are_utc_and_notice_a_killed_client(database: Database) -> None:
    """R11.2: a killed sync's lock is free soon, because the server checks the client's connection also during a statement."""
    with database.engine.connect() as connection:
        shown = {name: connection.exec_driver_sql(f"show {name}").scalar() for name in ("timezone", "client_connection_check_interval")}
        assert shown == {"timezone": "UTC", "client_connection_check_interval": "5s"}
        assert connection.exec_driver_sql("select application_name from pg_stat_activity where pid = pg_backend_pid()").scalar() == "roster"
        assert psycopg_connection(connection).cursor_factory is psycopg.ClientCursor


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_usual_spelling_of_the_scheme_is_accepted(database: Database, scheme: str) -> None:
    url = database.url.render_as_string(hide_password=False).replace("postgresql+psycopg", scheme, 1)
    with open_database(settings_for(url)) as again, again.engine.connect() as connection:
        assert connection.execute(text("select current_database()")).scalar() == database.url.database
        assert again.url.drivername == "postgresql+psycopg"
        assert again.dagster_url.drivername == "postgresql+psycopg2"
        assert again.dagster_url.database == f"{database.url.database}_dagster"
        assert not again.embedded


@pytest.mark.parametrize("url", ["mysql://u:s3cret@host/db", "postgresql://u:s3cret@host", "s3cret", "postgresql://u:s3cret@host:port/db"])
def test_a_url_of_something_else_is_refused_without_repeating_it(url: str) -> None:
    error = opening_fails_with(url)
    assert isinstance(error, PermanentError)
    assert "ROSTER_DATABASE_URL" in error.reason


def test_a_server_that_does_not_answer_is_transient_and_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    error = opening_fails_with(f"postgresql://someone:s3cret@127.0.0.1:{port}/roster")
    assert isinstance(error, TransientError)
    assert f"127.0.0.1:{port}" in error.reason
    assert error.hint


def test_a_missing_database_is_permanent(database_server: URL) -> None:
    error = opening_fails_with(database_server.set(database="no_such_database").render_as_string(hide_password=False))
    assert isinstance(error, PermanentError)
    assert "no_such_database" in error.reason


def test_a_refused_user_is_permanent(database_server: URL) -> None:
    error = opening_fails_with(database_server.set(username="no_such_user", password="s3cret").render_as_string(hide_password=False))
    assert isinstance(error, PermanentError)


@pytest.mark.parametrize(
    "address",
    ["db.example.org", "192.0.2.1:5432", "[2001:db8::1]", "localhost,db.example.org", "/application?host=127.0.0.1&host=192.0.2.1:5433"],
)
def test_another_machine_needs_a_word_about_encryption(address: str) -> None:
    """R11.9: without `sslmode`, libpq would accept plain text."""
    url = f"postgresql://someone:s3cret@{address}{'' if '/' in address else '/application'}"
    error = opening_fails_with(url)
    assert "encrypted" in error.reason
    assert "verify-full" in error.hint
    assert parse_url(f"{url}{'&' if '?' in url else '?'}sslmode=require", "X").query["sslmode"] == "require"


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:5433", "127.8.8.8", "[::1]:5432", "/a?host=/run/pg", "/a?host=localhost:1"])
def test_this_machine_needs_none(address: str) -> None:
    assert parse_url(f"postgresql://someone@{address}{'' if '/' in address else '/a'}", "X").database == "a"


def test_a_list_of_hosts_is_read_as_libpq_reads_it(database: Database, tmp_path: Path) -> None:
    """The first host is dead."""
    folder, port = database.url.query["host"], database.url.query["port"]
    query = f"host={tmp_path}:1&host={folder}:{port}"
    with open_database(settings_for(f"postgresql://{database.url.username}@/{database.url.database}?{query}")) as again:
        assert again.url.database == database.url.database
    url = parse_url("postgresql://u:p@one:5433,two/db?target_session_attrs=read-write&sslmode=verify-full", "X")
    assert (url.username, url.database, url.query["host"]) == ("u", "db", ("one:5433", "two"))


REFUSED = [
    ("server does not support SSL, but SSL was required", PermanentError, "sslmode"),
    ('root certificate file "/root.crt" does not exist', PermanentError, "sslmode"),
    ("SSL error: certificate verify failed", PermanentError, "sslmode"),
    ('FATAL:  too many connections for role "roster"', TransientError, "limit of the role"),
    ('FATAL:  password authentication failed for user "roster"', PermanentError, "password"),
]


@pytest.mark.parametrize(("line", "kind", "hint"), REFUSED)
def test_the_reason_of_a_server_that_refuses_is_repeated(
    monkeypatch: pytest.MonkeyPatch, line: str, kind: type[RosterError], hint: str
) -> None:
    """libpq's first line, without what follows. The hint is about that reason."""
    monkeypatch.setattr(engine, "PGconn", SimpleNamespace(ping=lambda _: Ping.OK))
    said = f'connection failed: connection to server at "db" (192.0.2.7), port 5432 failed: {line}\nMore of it.'
    error = engine._unreachable(make_url("postgresql+psycopg://roster:s3cret@db/roster?sslmode=verify-full"), said)
    assert type(error) is kind
    assert error.reason.endswith(f": {line}")
    assert hint in error.hint


def test_a_full_server_is_transient(tmp_path: Path) -> None:
    home = tmp_path / "home"
    try:
        with EmbeddedServer(home) as server, psycopg.connect(libpq_url(server.url("postgres")), autocommit=True) as connection:
            connection.execute("alter system set max_connections = 4")
        with EmbeddedServer(home) as server, ExitStack() as sessions:
            for _ in range(4):
                sessions.enter_context(psycopg.connect(libpq_url(server.url("postgres"))))
            error = opening_fails_with(server.url("postgres").render_as_string())
        assert isinstance(error, TransientError)
    finally:
        shutil.rmtree((home / "postgres").resolve())


def test_a_server_older_than_needed_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    url = database.url.render_as_string(hide_password=False)
    with database.engine.connect() as connection:
        major = psycopg_connection(connection).info.server_version // 10_000
    monkeypatch.setattr(engine, "OLDEST_SERVER", major)
    with open_database(settings_for(url)):
        pass
    monkeypatch.setattr(engine, "OLDEST_SERVER", major + 1)
    error = opening_fails_with(url)
    assert isinstance(error, PermanentError)
    assert f"runs PostgreSQL {major}" in error.reason


def test_a_database_that_cannot_store_every_name_is_refused(database_server: URL) -> None:
    name = f"roster_test_{os.getpid()}_latin"
    with psycopg.connect(libpq_url(database_server), autocommit=True) as connection:
        connection.execute(f"create database {name} encoding 'LATIN1' locale_provider libc locale 'C' template template0")
        try:
            error = opening_fails_with(database_server.set(database=name).render_as_string(hide_password=False))
        finally:
            connection.execute(f"drop database {name}")
    assert isinstance(error, PermanentError)
    assert "LATIN1" in error.reason


def test_two_commands_at_once_create_the_embedded_database_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = Settings(roster_home=home, roster_database_url=None, roster_dagster_database_url=None)

    def use(_: int) -> tuple[bool, str]:
        with open_database(settings) as database:
            ensure_dagster_database(database)
            with database.engine.connect() as connection:
                return database.embedded, str(connection.execute(text("select current_database()")).scalar())

    try:
        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(use, range(2))) == [(True, "roster"), (True, "roster")]
    finally:
        shutil.rmtree((home / "postgres").resolve())


def test_dagsters_database_is_created_and_its_own_driver_can_connect(database: Database) -> None:
    ensure_dagster_database(database)
    ensure_dagster_database(database)
    dagster = create_engine(database.dagster_url.render_as_string(hide_password=False))
    try:
        with dagster.connect() as connection:
            assert dagster.dialect.driver == "psycopg2"
            assert connection.exec_driver_sql("show synchronous_commit").scalar() == "off"
        with database.engine.connect() as connection:
            assert connection.exec_driver_sql("show synchronous_commit").scalar() == "on"
    finally:
        dagster.dispose()
        with psycopg.connect(libpq_url(database.url), autocommit=True) as maintenance:
            maintenance.execute(f'drop database "{database.dagster_url.database}"')


def test_dagsters_database_on_another_server_is_not_created(database: Database) -> None:
    url = database.url.render_as_string(hide_password=False)
    with open_database(settings_for(url, "postgres://someone:s3cret@elsewhere.invalid/roster_test_events?sslmode=require")) as opened:
        shown = opened.dagster_url.render_as_string()
        assert shown.startswith("postgresql+psycopg2://someone:***@elsewhere.invalid/roster_test_events?")
        ensure_dagster_database(opened)
        with opened.engine.connect() as connection:
            assert connection.execute(text("select count(*) from pg_database where datname = 'roster_test_events'")).scalar() == 0


STATEMENTS: list[tuple[str, type[RosterError], str]] = [
    ("insert into people values ('Zebulon-Marker')", PermanentError, "23505, table public.people, constraint people_pkey"),
    ("insert into people values (null)", PermanentError, "23502, table public.people, column name"),
    ("select 'Zebulon-Marker'::int", PermanentError, "22P02"),
    ("select 'Zebulon-Marker' from no_such_table", PermanentError, "roster migrate"),
    ("select no_such_column, 'Zebulon-Marker' from people", PermanentError, "roster migrate"),
    ("select app.no_such_function('Zebulon-Marker')", PermanentError, "roster migrate"),
    ("select 'Zebulon-Marker' frm people x y", PermanentError, "42601"),
    ("do $$ begin raise exception 'Zebulon-Marker' using errcode = '40001'; end $$", TransientError, "40001"),
    ("do $$ begin raise exception 'Zebulon-Marker' using errcode = '40P01'; end $$", TransientError, "40P01"),
    ("do $$ begin raise exception 'Zebulon-Marker' using errcode = '53100'; end $$", TransientError, "disk is full"),
    ("do $$ begin raise exception 'Zebulon-Marker' using errcode = '42501'; end $$", PermanentError, "Grant"),
    ("set local statement_timeout = 1; select pg_sleep(5), 'Zebulon-Marker'", TransientError, "57014"),
    ("set local lock_timeout = 1; lock table people", TransientError, "55P03"),
]


@pytest.mark.parametrize(("statement", "kind", "says"), STATEMENTS)
def test_errors_say_what_to_do_and_never_a_value(empty_database: Database, statement: str, kind: type[RosterError], says: str) -> None:
    """SPEC 12: with SQLAlchemy and with the driver alone, and also in the traceback."""
    with psycopg.connect(libpq_url(empty_database.url)) as holder:
        holder.execute("create table people (name text primary key)")
        holder.execute(f"insert into people values ('{MARKER}')")
        holder.commit()
        if "lock_timeout" in statement:
            holder.execute("lock table people")
        for by_driver in (False, True):
            with pytest.raises(RosterError) as failed, translate_database_errors(), empty_database.engine.begin() as connection:
                psycopg_connection(connection).execute(statement.encode()) if by_driver else connection.exec_driver_sql(statement)
            assert type(failed.value) is kind
            assert says in str(failed.value)
            assert MARKER not in "".join(traceback.format_exception(failed.value)).replace(statement, "")


def test_a_lost_connection_is_transient(database: Database) -> None:
    with database.engine.connect() as connection:
        with psycopg.connect(libpq_url(database.url), autocommit=True) as killer:
            killer.execute("select pg_terminate_backend(%s)", [psycopg_connection(connection).info.backend_pid])
        with pytest.raises(TransientError), translate_database_errors():
            connection.execute(text("select 1"))


def test_bound_values_stay_out_of_sqlalchemys_own_message(database: Database) -> None:
    """An error that is not translated must not show the parameters either."""
    with pytest.raises(sqlalchemy.exc.DBAPIError) as failed, database.engine.begin() as connection:
        connection.execute(text("select 1 from app.users where user_id = :value / 0"), {"value": 8675309})
    assert "8675309" not in str(failed.value)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), SystemExit(143), DagsterExecutionInterruptedError()])
def test_an_interrupt_is_not_translated(interrupt: BaseException) -> None:
    """R11.4: after Ctrl-C in the middle of a statement, the driver's clean-up can fail. `ops.syncs` must still say `Interrupted.`"""

    def clean_up_fails() -> None:
        try:
            raise interrupt
        finally:
            raise psycopg.ProgrammingError("cannot roll back inside a transaction block")

    with pytest.raises(type(interrupt)), translate_database_errors():
        clean_up_fails()
