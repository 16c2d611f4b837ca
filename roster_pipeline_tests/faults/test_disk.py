"""A PostgreSQL whose disk fills up during a pull (R3.2, R11.4)."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import sqlalchemy as sa

from roster_pipeline_tests.faults.test_database import home, restarted, restarted_town
from roster_pipeline_tests.faults.world import World, assert_survived, assert_unchanged

# The fixtures with an own server: the process of the session must be on this machine.
__all__ = ["home", "restarted", "restarted_town"]


@contextmanager
def no_room(backend: int) -> Iterator[None]:
    """This session cannot make any file larger during the block.

    PostgreSQL treats the file size limit of its process like a full disk: the write fails, and the server goes on. But if a session cannot
    write the write-ahead log, the whole server stops. So the session must not commit during the block.
    """
    _limit_files(backend, "0")
    try:
        yield
    finally:
        _limit_files(backend, "unlimited")


def _limit_files(backend: int, size: str) -> None:
    server = psutil.Process(backend)
    # Run as the server's account, because root in a container may not change the limits of other users' processes.
    subprocess.run(
        ["prlimit", f"--pid={backend}", f"--fsize={size}:"], check=True, user=server.uids().real, group=server.gids().real
    )  # fmt: skip


def test_the_disk_fills_up_while_pages_land(restarted: World) -> None:
    """R3.2, R11.4, R11.5: in the middle of a COPY into a temporary table. The error says so, a retry can help, nothing is applied."""
    with restarted.stopped_in_pull() as syncing, restarted.database.engine.connect() as holder:
        # This lock keeps the sync from recording how it ended, and so from ending, until there is room again.
        holder.execute(sa.text("select 1 from ops.syncs where status = 'processing' for update"))
        with no_room(restarted.backend()):
            syncing.signal(signal.SIGCONT)
            restarted.until(restarted.waiting)
            assert restarted.syncs() == [("processing",)]
        assert_unchanged(restarted)
        holder.rollback()
        ended = syncing.ended()
    assert (ended.status, ended.document["retryable"]) == (1, True)
    assert "disk" in ended.document["error"]
    assert "Free some space" in ended.document["hint"]
    ((message,),) = restarted.syncs("message")
    assert "disk" in message
    assert "worth retrying" in message
    assert_survived(restarted)
