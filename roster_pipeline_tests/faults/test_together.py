"""Several syncs of one district: at the same moment, while one hangs, and after one has lost its lock (R11.2, R11.4, R11.6)."""

import signal
from functools import partial

import sqlalchemy as sa

from roster_pipeline.database.lock import district_lock
from roster_pipeline_tests.faults.processes import (
    KILLED,
    Running,
    barrier,
    dagster_run,
    discarded,
    lose_the_lock,
    roster_when_all_are_ready,
)
from roster_pipeline_tests.faults.world import World, assert_applied, assert_failed, assert_next_is_clean, assert_survived, assert_unchanged


def test_two_commands_and_a_dagster_run_at_the_same_moment(world: World) -> None:
    """R11.2: one of them syncs. The others get exit status 4 and its id, and write no row."""
    ready = barrier(3)
    arguments = ("sync", world.clever_id, "--json")
    start = partial(Running, environment=world.environment, directory=world.directory)
    with world.database.engine.connect() as holder:
        # The sync that gets the lock waits here until the others have ended.
        holder.execute(sa.text("select 1 from app.users for update"))
        started = [
            start(roster_when_all_are_ready, arguments, ready),
            start(roster_when_all_are_ready, arguments, ready),
            start(dagster_run, world.clever_id, ready),
        ]
        with discarded(*started):
            world.until(lambda: sum(each.is_alive for each in started) == 1)
            winner = next(each for each in started if each.is_alive)
            losers = [each.ended() for each in started if each is not winner]
            ((running, status),) = world.syncs("sync_id, status")
            assert status == "processing"
            assert [each.status for each in losers] == [4, 4], losers
            assert [each.document["running_sync_id"] for each in losers] == [running, running]
            holder.rollback()
            assert winner.ended().status == 0
    assert world.syncs() == [("successful",)]
    assert_applied(world)


def test_a_lock_without_a_row(world: World) -> None:
    """R11.2, R11.4: a session holds the lock although its sync has ended: exit status 4 without an id, no row, until it ends."""
    with world.database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        with district_lock(connection, 1, world.clever_id):
            ended = world.sync()
            assert (ended.status, ended.document["retryable"]) == (4, True)
            assert "running_sync_id" not in ended.document
            assert world.syncs() == []
            assert_unchanged(world)
    assert_next_is_clean(world)


def test_a_sync_that_hangs(world: World) -> None:
    """R11.2, R11.4: while its process exists, the sync is shown as running everywhere, and others get its id. Killed, it is recovered."""
    with world.stopped_in_pull() as hanging:
        ((running,),) = world.syncs("sync_id")
        ended = world.sync()
        assert (ended.status, ended.document["running_sync_id"]) == (4, running)
        shown = world.run("status", world.clever_id, "--json").document
        assert (shown["marked_as_failed"], shown["syncs"][0]["status"]) == (0, "processing")
        assert world.rows("select status from ops.recent_syncs where sync_id = :id", id=running) == [("processing",)]
        hanging.signal(signal.SIGKILL)
        assert hanging.ended().status == KILLED
    assert_survived(world)


def test_a_killed_sync_is_recovered_by_the_next(world: World) -> None:
    """R11.4: without any command in between, the next sync itself marks the row as failed, with its alert, and applies."""
    with world.stopped_in_pull() as hanging:
        hanging.signal(signal.SIGKILL)
        hanging.ended()
    world.until(world.lock_is_free)
    assert_unchanged(world)
    assert world.syncs() == [("processing",)]
    assert world.sync().status == 0
    assert world.syncs() == [("failed",), ("successful",)]
    assert world.rows("select count(*) from ops.alerts where kind = 'sync_failed'") == [(1,)]
    assert_applied(world)


def test_an_older_pull_whose_connection_was_cut(world: World) -> None:
    """R11.2, R11.6: the lock ends with the connection, and the older pull fails: it does not overwrite a newer sync."""
    with world.stopped_in_pull() as older:
        assert world.sync().status == 4
        world.cut(world.backend())
        world.until(world.lock_is_free)
        assert world.sync().status == 0
        older.signal(signal.SIGCONT)
        ended = older.ended()
        assert (ended.status, ended.document["retryable"]) == (1, True)
    assert world.syncs() == [("failed",), ("successful",)]
    assert_applied(world)


def test_an_older_pull_that_lost_its_lock_unnoticed(world: World) -> None:
    """R11.6: an older snapshot is refused, even if the session is still open."""
    with world.stopped_in_pull(lose_the_lock) as older:
        assert world.sync().status == 0
        older.signal(signal.SIGCONT)
        ended = older.ended()
        assert (ended.status, ended.document["retryable"]) == (1, True)
        assert "R11.6" in ended.document["error"]
    assert world.syncs() == [("failed",), ("successful",)]
    assert_applied(world)


def test_two_killed_in_a_row(world: World) -> None:
    """R11.4: each is marked, and each has one alert."""
    for _ in range(2):
        with world.stopped_in_pull() as hanging:
            hanging.signal(signal.SIGKILL)
            hanging.ended()
        world.until(world.lock_is_free)
    assert_failed(world, failures=2)
    assert_next_is_clean(world)
