"""One sync per district at a time, across sessions and processes, also after the process with the lock is killed."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from roster_pipeline.database.engine import Database, psycopg_connection
from roster_pipeline.database.lock import MIGRATION_LOCK, district_lock, locked_districts
from roster_pipeline.errors import SyncRunningError
from roster_pipeline_tests.until import until

REPOSITORY = Path(__file__).parents[2]

# A session like a sync's: it holds the lock, and is killed in the middle of a long statement.
HOLDER = """
import sys
from sqlalchemy import text
from roster_pipeline.database.engine import open_database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.settings import settings
with open_database(settings()) as database, database.engine.connect() as connection:
    connection = connection.execution_options(isolation_level="AUTOCOMMIT")
    with district_lock(connection, int(sys.argv[1]), "d"):
        print("held", flush=True)
        connection.execute(text("select pg_sleep(600)"))
"""


@pytest.fixture
def connections(database: Database) -> Iterator[list[Connection]]:
    """Two sessions in autocommit."""
    with ExitStack() as stack:
        yield [stack.enter_context(database.engine.connect()).execution_options(isolation_level="AUTOCOMMIT") for _ in range(2)]


def add_district(connection: Connection) -> int:
    return int(connection.execute(text("insert into app.districts (clever_id, name) values ('d', 'D') returning district_id")).scalar_one())


def add_sync(connection: Connection, district_id: int, status: str) -> int:
    insert = text("""
        insert into ops.syncs (district_id, status, finished_at)
        values (:id, :status, case when :status <> 'processing' then now() end) returning sync_id
    """)
    return int(connection.execute(insert, {"id": district_id, "status": status}).scalar_one())


def test_the_second_caller_gets_the_running_syncs_id_and_the_lock_is_free_afterwards(connections: list[Connection]) -> None:
    """R11.2."""
    first, second = connections
    district_id = add_district(first)
    add_sync(first, district_id, "failed")
    with district_lock(first, district_id, "d"):
        sync_id = add_sync(first, district_id, "processing")
        with pytest.raises(SyncRunningError) as refused, district_lock(second, district_id, "d"):
            pass
        assert refused.value.running_sync_id == sync_id
        assert refused.value.exit_status == 4
        assert refused.value.district == "d"
    with district_lock(second, district_id, "d"):
        pass


def test_the_holders_row_may_appear_a_moment_later_or_not_at_all(connections: list[Connection]) -> None:
    """R11.2: the error has the id of the running sync or None, never the id of a sync that has ended."""
    first, second = connections
    district_id = add_district(first)
    add_sync(first, district_id, "successful")
    with district_lock(first, district_id, "d"):
        with pytest.raises(SyncRunningError) as refused, district_lock(second, district_id, "d"):
            pass
        assert refused.value.running_sync_id is None
        # Any role that can connect can take the lock, so the message says who did.
        pid = first.exec_driver_sql("select pg_backend_pid()").scalar()
        assert refused.value.reason.startswith(f"Process {pid} of the database server (roster) holds this district's lock")
        late: list[int] = []
        writer = threading.Timer(0.3, lambda: late.append(add_sync(first, district_id, "processing")))
        writer.start()
        with pytest.raises(SyncRunningError) as refused, district_lock(second, district_id, "d"):
            pass
        writer.join()
        assert [refused.value.running_sync_id] == late


def test_districts_do_not_block_each_other_and_every_id_reads_back(connections: list[Connection]) -> None:
    """R11.2, R11.4: also ids of more than 32 bits, which pg_locks shows in two columns."""
    first, second = connections
    ids = {1, 2**31, 2**32 - 1, 2**32, 2**40 + 7, 2**48 - 1}
    first.execute(text("select pg_advisory_lock(:key), pg_advisory_lock(1), pg_advisory_lock(1, 2)"), {"key": MIGRATION_LOCK})
    assert locked_districts(second) == set()
    with ExitStack() as stack:
        for district_id in ids:
            stack.enter_context(district_lock(first, district_id, "d"))
        assert locked_districts(second) == ids
    assert locked_districts(second) == set()
    first.execute(text("select pg_advisory_unlock_all()"))


def test_another_database_of_the_same_server_does_not_count(connections: list[Connection], empty_database: Database) -> None:
    with empty_database.engine.connect() as elsewhere, district_lock(elsewhere, 5, "d"):
        assert locked_districts(connections[0]) == set()


def test_an_error_in_the_block_frees_the_lock_and_is_raised(connections: list[Connection]) -> None:
    first, second = connections
    with pytest.raises(ZeroDivisionError), district_lock(first, 5, "d"):
        raise ZeroDivisionError
    assert locked_districts(second) == set()


def test_a_lost_session_does_not_hide_the_error_in_the_block(connections: list[Connection]) -> None:
    first, second = connections
    pid = psycopg_connection(first).info.backend_pid

    def lose_the_session_and_fail() -> None:
        second.execute(text("select pg_terminate_backend(:pid)"), {"pid": pid})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), district_lock(first, 5, "d"):
        lose_the_session_and_fail()
    assert locked_districts(second) == set()


def test_neither_does_one_that_a_statement_has_found_lost(connections: list[Connection]) -> None:
    """R11.5: SQLAlchemy then refuses everything on the connection, also its `info`."""
    first, second = connections
    pid = psycopg_connection(first).info.backend_pid

    def lose_the_session_and_use_it() -> None:
        second.execute(text("select pg_terminate_backend(:pid)"), {"pid": pid})
        first.execute(text("select 1"))

    with pytest.raises(OperationalError, match="terminating connection"), district_lock(first, 5, "d"):
        lose_the_session_and_use_it()
    assert locked_districts(second) == set()


def test_a_holder_killed_in_the_middle_of_a_statement_frees_its_district(connections: list[Connection], database: Database) -> None:
    """R11.2, R11.4."""
    watcher, _ = connections
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, "7"],
        cwd=REPOSITORY,
        env=os.environ | {"ROSTER_DATABASE_URL": database.url.render_as_string(hide_password=False)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert locked_districts(watcher) == {7}
    finally:
        holder.kill()
        holder.communicate()
    until(lambda: locked_districts(watcher) == set(), seconds=60)
