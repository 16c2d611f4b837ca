"""R11.9: what a session sets whatever others have set for it, and what it proves."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import URL, Connection, create_engine, text

from roster_pipeline.database import migrate as migrations
from roster_pipeline.database.blockers import blockers_in_words
from roster_pipeline.database.embedded import EmbeddedServer
from roster_pipeline.database.engine import Database, ensure_dagster_database, open_database, psycopg_connection, translate_database_errors
from roster_pipeline.database.lock import district_lock
from roster_pipeline.database.migrate import migrate
from roster_pipeline.database.session import _RELIED_ON, _SINCE, begin_own_session
from roster_pipeline.errors import PermanentError, TransientError
from roster_pipeline.settings import Settings
from roster_pipeline.sync.session import one_state, sync_session
from roster_pipeline_tests.conftest import _libpq_url
from roster_pipeline_tests.database.pooler import pooled

# Values that a careful or careless administrator could set. Each setting that we rely on has one that would break a sync.
ODD = {
    "client_encoding": "LATIN1",
    "datestyle": "German",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "search_path": "nowhere",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "statement_timeout": "200ms",
    # Shorter ones end a session before its first statement.
    "idle_in_transaction_session_timeout": "200ms",
    "idle_session_timeout": "200ms",
    "lock_timeout": "1ms",
    "client_connection_check_interval": "0",
    "transaction_timeout": "200ms",
}
NAMES = ("José", "שלום", "李小龍", "𝒜lice", "O'Neil\\n")


def settings_of(url: URL) -> Settings:
    return Settings(_env_file=None, roster_home=Path("/nonexistent"), roster_database_url=url.render_as_string(hide_password=False))


@contextmanager
def reopened(database: Database, url: URL | None = None) -> Iterator[Database]:
    with open_database(settings_of(url or database.url)) as again:
        yield again


def administrator(database: Database, statement: str) -> None:
    with psycopg.connect(_libpq_url(database.url), autocommit=True) as connection:
        connection.execute(statement.encode())


def test_every_setting_has_an_odd_value_here() -> None:
    assert ODD.keys() == {*_RELIED_ON, *(name for settings in _SINCE.values() for name in settings)}


@pytest.mark.parametrize("name", ODD)
def test_no_setting_of_the_database_changes_what_a_session_reads_and_writes(database: Database, name: str) -> None:
    """R11.9: names of every kind are stored as they are, and times are read as they are."""
    with database.engine.connect() as connection:
        version = psycopg_connection(connection).info.server_version // 10_000
    expected = dict(_RELIED_ON) | {key: value for since, values in _SINCE.items() if version >= since for key, value in values.items()}
    if name in expected:
        administrator(database, f"alter database {database.url.database} set {name} = '{ODD[name]}'")
    with reopened(database) as again, again.engine.begin() as connection:
        assert {key: connection.exec_driver_sql(f"show {key}").scalar() for key in expected} == expected
        if name.endswith("_timeout"):
            # Longer than any of them.
            time.sleep(0.3)
            connection.exec_driver_sql("select pg_sleep(0.3)")
        stored = connection.execute(text("select unnest(cast(:names as text[]))"), {"names": list(NAMES)}).scalars().all()
        assert tuple(stored) == NAMES
        assert [len(each.encode()) for each in NAMES] == list(
            connection.execute(text("select octet_length(unnest(cast(:names as text[])))"), {"names": list(NAMES)}).scalars()
        )
        assert (
            connection.execute(text("select timestamptz '2026-03-04 05:06:07+00'")).scalar_one().isoformat() == "2026-03-04T05:06:07+00:00"
        )


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PGCLIENTENCODING", "LATIN1"), ("PGDATESTYLE", "German"), ("PGTZ", "Asia/Kathmandu"), ("PGOPTIONS", "-c datestyle=SQL,DMY")],
)
def test_no_variable_of_the_environment_does(database: Database, monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with reopened(database) as again, again.engine.connect() as connection:
        assert {name: connection.exec_driver_sql(f"show {name}").scalar() for name in _RELIED_ON} == _RELIED_ON


def test_dagsters_connections_set_it_too(database: Database) -> None:
    """Dagster opens its connections itself, from the URL that it is given."""
    ensure_dagster_database(database)
    try:
        for name in ("client_encoding", "datestyle", "statement_timeout", "default_transaction_read_only"):
            administrator(database, f"alter database {database.dagster_url.database} set {name} = '{ODD[name]}'")
        dagster = create_engine(database.dagster_url.render_as_string(hide_password=False))
        with dagster.connect() as connection:
            shown = {
                name: connection.exec_driver_sql(f"show {name}").scalar() for name in ("client_encoding", "datestyle", "statement_timeout")
            }
            connection.exec_driver_sql("create temporary table written ()")
        dagster.dispose()
        assert shown == {name: _RELIED_ON[name] for name in shown}
    finally:
        administrator(database, f"drop database {database.dagster_url.database} with (force)")


def test_a_pooler_in_transaction_mode_is_refused_when_the_session_begins(database: Database, tmp_path: Path) -> None:
    with (
        pooled(database.url, tmp_path, takes_newest=False) as url,
        pytest.raises(PermanentError) as refused,
        reopened(database, url) as again,
        sync_session(again, settings_of(url)),
    ):
        pytest.fail("the session must not begin")
    assert "session mode" in refused.value.hint


def test_migrate_refuses_a_pooler_that_happens_to_give_the_same_session_each_time(empty_database: Database, tmp_path: Path) -> None:
    """The pooler is alone with us, so one connection has one session. In the night it would not."""
    with pooled(empty_database.url, tmp_path) as url, reopened(empty_database, url) as again:
        with again.engine.connect() as opened:
            begin_own_session(opened.execution_options(isolation_level="AUTOCOMMIT"))
        with pytest.raises(PermanentError, match="pooler in transaction mode"):
            migrate(again)


def test_a_session_that_is_exchanged_later_is_refused_before_it_writes(database: Database, tmp_path: Path) -> None:
    """R11.9: two processes share the pooler: their transactions get each other's sessions, with each other's temporary tables."""
    with pooled(database.url, tmp_path) as url, reopened(database, url) as again, sync_session(again, settings_of(url)) as ours:
        other = psycopg.connect(_libpq_url(url))
        other.execute("select 1")  # It keeps our session in its transaction, so ours gets another one.
        with pytest.raises(PermanentError, match="pooler in transaction mode") as refused, one_state(ours):
            pytest.fail("the transaction must not begin")
        assert "session mode" in refused.value.hint
        other.close()


def test_a_direct_connection_passes(database: Database) -> None:
    with sync_session(database, settings_of(database.url)) as connection, one_state(connection):
        assert connection.exec_driver_sql("select 1").scalar() == 1


@pytest.mark.parametrize("when", ["before the transaction", "during the transaction"])
def test_a_lost_lock_ends_the_transaction(database: Database, when: str) -> None:
    """`pg_advisory_unlock_all()` in our own session, as a pooler's reset does it: another sync of the district could be writing."""

    def write(connection: Connection) -> None:
        if when.startswith("before"):
            connection.exec_driver_sql("select pg_advisory_unlock_all()")
        with one_state(connection):
            connection.exec_driver_sql("create table public.written ()")
            connection.exec_driver_sql("select pg_advisory_unlock_all()")

    with sync_session(database, settings_of(database.url)) as connection, district_lock(connection, 7, "d"):
        with pytest.raises(TransientError, match="lost the district's lock"):
            write(connection)
        assert connection.exec_driver_sql("select to_regclass('public.written')").scalar() is None


def test_a_server_that_only_reads_is_named(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with EmbeddedServer(home) as server:
        data = next(home.glob("postgres/**/PG_VERSION")).parent
        del server
    (data / "standby.signal").touch()
    with EmbeddedServer(home) as server, reopened_at(server.url("postgres")) as standby:
        with pytest.raises(TransientError, match="only reads") as refused, sync_session(standby, settings_of(standby.url)):
            pass
        assert "primary" in refused.value.hint


@contextmanager
def reopened_at(url: URL) -> Iterator[Database]:
    with open_database(settings_of(url)) as database:
        yield database


def test_a_command_that_waits_for_a_lock_gives_up_and_names_who_is_in_the_way(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_RELIED_ON, "lock_timeout", "500ms")
    monkeypatch.setattr("roster_pipeline.database.blockers.LOCK_SECONDS", 0.5)
    administrator(database, "insert into app.districts (clever_id, name, domain, profile) values ('d', 'D', 'd.example', 'typing_agent')")
    with psycopg.connect(_libpq_url(database.url), application_name="the application") as holder, reopened(database) as again:
        holder.execute("update app.districts set licenses = 700")
        with pytest.raises(TransientError) as failed, translate_database_errors(), again.engine.begin() as connection:
            connection.execute(sa.text("update app.districts set licenses = 1"))
        assert f"process {holder.info.backend_pid} (the application)" in failed.value.hint


def test_nobody_in_the_way_is_no_sentence() -> None:
    assert blockers_in_words(()) == ""


@pytest.fixture
def locked(empty_database: Database) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    """A database of an older release, and a session that holds a table which the migration changes."""
    migrate(empty_database)
    administrator(empty_database, "update ops.alembic_version set version_num = '0004'")
    with psycopg.connect(_libpq_url(empty_database.url), application_name="the application") as holder:
        holder.execute("lock table app.districts in access exclusive mode")
        yield holder


def test_a_migration_gives_way_and_tries_again(
    empty_database: Database, locked: "psycopg.Connection[tuple[object, ...]]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that somebody has locked does not stop everybody who comes after the migration."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        locked.rollback()

    monkeypatch.setattr(migrations, "LOCK_SECONDS", 1)
    monkeypatch.setattr("time.sleep", pause)
    # The second attempt gets the lock, and finds that this database has the newer tables already.
    with pytest.raises(PermanentError, match="42704"):
        migrate(empty_database)
    assert pauses == [migrations.PAUSE_SECONDS]


def test_a_migration_that_never_gets_the_lock_says_who_has_it(
    empty_database: Database, locked: "psycopg.Connection[tuple[object, ...]]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 1)
    monkeypatch.setattr(migrations, "ATTEMPTS", 1)
    monkeypatch.setattr("roster_pipeline.database.blockers.LOCK_SECONDS", 0.5)
    with pytest.raises(TransientError) as failed:
        migrate(empty_database)
    assert f"process {locked.info.backend_pid} (the application)" in failed.value.hint


def test_an_index_of_a_large_table_that_was_not_finished_is_built_again(empty_database: Database) -> None:
    """Writers go on while it is built."""
    migrate(empty_database)
    first, second, *_ = migrations.large_indexes()
    administrator(empty_database, f"drop index {first}")
    administrator(empty_database, f"update pg_index set indisvalid = false where indexrelid = '{second}'::regclass")
    with psycopg.connect(_libpq_url(empty_database.url)) as writer:
        writer.execute("insert into app.districts (clever_id, name, domain, profile) values ('d', 'D', 'd.example', 'typing_agent')")
        migrate(empty_database)
    with empty_database.engine.connect() as connection:
        for index in migrations.large_indexes():
            assert connection.execute(migrations._IS_VALID, {"index": index}).scalar() is True


def test_no_migration_builds_an_index_of_a_table_that_is_large_by_then() -> None:
    """It would lock the table until the index is built. Earlier releases did it, when the tables were new."""
    scripts = {path.stem: path.read_text(encoding="utf-8") for path in sorted((migrations._MIGRATIONS / "versions").glob("*.sql"))}
    small = {"ops.changes"}  # a partial index of rows that the same migration makes possible
    for name, script in scripts.items():
        if name >= "0006":
            made = set(re.findall(r"^create table (\S+)", script, re.MULTILINE))
            indexed = set(re.findall(r"^create (?:unique )?index (?!concurrently)\w+ on (\S+)", script, re.MULTILINE))
            assert indexed <= made | small, name
