"""A PostgreSQL that stops during a sync, and one whose disk is full (R3.2, R11.4, R11.5)."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from roster_pipeline.database.embedded import EmbeddedServer
from roster_pipeline.database.engine import open_database
from roster_pipeline.database.migrate import migrate
from roster_pipeline_tests.conftest import _database_settings, _libpq_url
from roster_pipeline_tests.faults import world as worlds
from roster_pipeline_tests.faults.processes import GIVE_UP_SECONDS
from roster_pipeline_tests.faults.world import World, assert_survived, assert_unchanged

_numbers = count(1)


def test_the_connection_is_cut_in_the_pull(world: World) -> None:
    """R11.4: the sync records the reason on another connection."""
    with world.stopped_in_pull() as syncing:
        world.cut(world.backend())
        world.until(world.lock_is_free)
        syncing.signal(signal.SIGCONT)
        ended = syncing.ended()
        assert (ended.status, ended.document["retryable"]) == (1, True)
    ((message,),) = world.syncs("message")
    assert "worth retrying" in message
    assert_survived(world)


def test_the_connection_is_cut_in_the_apply(world: World) -> None:
    """R11.5: the cut is between two rows of `app`, after staging and reconcile have been written."""
    with world.blocked_in_apply() as (syncing, backend):
        world.cut(backend)
        ended = syncing.ended()
        assert (ended.status, ended.document["retryable"]) == (1, True)
        assert_unchanged(world)
    ((message,),) = world.syncs("message")
    assert "worth retrying" in message
    assert_survived(world)


def test_the_disk_is_full(world: World) -> None:
    """R3.2, R11.5: the error says what to do, another attempt can help, and nothing is applied.

    A trigger raises the SQLSTATE of a full disk (53100), because a test cannot fill the disk of every machine.
    """
    world.rows("""
        create function full_disk() returns trigger language plpgsql as $$
        begin raise exception 'could not extend file' using errcode = '53100'; end $$
    """)
    world.rows("create trigger full_disk before insert or update on staging.users for each row execute function full_disk()")
    ended = world.sync()
    assert (ended.status, ended.document["retryable"]) == (1, True)
    assert "53100" in ended.document["error"]
    assert "Free some space" in ended.document["hint"]
    ((message,),) = world.syncs("message")
    assert "53100" in message
    world.rows("drop function full_disk cascade")
    assert_survived(world)


@contextmanager
def lasting_database(server: URL, template: str) -> Iterator[URL]:
    """A copy of `template` that is never dropped: it is removed with its server. So no connection must stay open until its end."""
    name = f"lasting_{next(_numbers)}"
    with psycopg.connect(_libpq_url(server), autocommit=True) as maintenance:
        # Not the default strategy: it copies sequences through the write-ahead log, with a reserve of numbers that is not logged. If the
        # server crashes before the next checkpoint, such a sequence goes back to the value that was copied.
        copying = sql.SQL("create database {} template {} strategy file_copy")
        maintenance.execute(copying.format(sql.Identifier(name), sql.Identifier(template)))
    yield server.set(database=name)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The ROSTER_HOME of a server that is restarted."""
    folder = tmp_path_factory.mktemp("restarted")
    try:
        yield folder
    finally:
        shutil.rmtree((folder / "postgres").resolve(), ignore_errors=True)


@pytest.fixture(scope="module")
def restarted_town(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[worlds.Town]:
    """The town, on its own server."""
    with EmbeddedServer(home) as server:
        url = server.url("postgres")
        with psycopg.connect(_libpq_url(url), autocommit=True) as connection:
            # As in the server of all tests: a restart is not a power cut.
            connection.execute("alter system set fsync = off")
            connection.execute("select pg_reload_conf()")
        with lasting_database(url, "template0") as template:
            with open_database(_database_settings(template)) as database:
                migrate(database)
            with worlds.town(url, str(template.database), tmp_path_factory.mktemp("town"), lasting_database) as made:
                yield made


@pytest.fixture
def restarted(restarted_town: worlds.Town, tmp_path: Path) -> Iterator[World]:
    """A copy of the town on the server that is restarted."""
    with worlds.world(restarted_town, tmp_path) as made:
        yield made


@contextmanager
def server_down(home: Path, how: signal.Signals) -> Iterator[None]:
    """Stops the server as `pg_ctl stop -m fast` (SIGINT) or `-m immediate` (SIGQUIT) does, and starts it again after the block."""
    postmaster = psutil.Process(int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0]))
    postmaster.send_signal(how)
    postmaster.wait(GIVE_UP_SECONDS)
    yield
    with EmbeddedServer(home, keep_running=True):
        pass


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def test_the_server_is_restarted_in_the_pull(how: signal.Signals, home: Path, restarted: World) -> None:
    """R11.4: the sync finds that its session has ended, and records that on the restarted server."""
    with restarted.stopped_in_pull() as syncing:
        with server_down(home, how):
            pass
        syncing.signal(signal.SIGCONT)
        ended = syncing.ended()
        assert (ended.status, ended.document["retryable"]) == (1, True)
    ((message,),) = restarted.syncs("message")
    assert "worth retrying" in message
    assert_survived(restarted)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def test_the_server_goes_down_in_the_apply(how: signal.Signals, home: Path, restarted: World) -> None:
    """R11.4, R11.5: the restarted server has nothing of the transaction. The sync could not record its end, so it counts as crashed."""
    with restarted.blocked_in_apply() as (syncing, _):
        with server_down(home, how):
            ended = syncing.ended()
            assert (ended.status, ended.document["retryable"]) == (1, True)
        assert restarted.syncs() == [("processing",)]
    assert_survived(restarted)
