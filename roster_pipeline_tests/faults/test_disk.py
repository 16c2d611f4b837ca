"""A PostgreSQL that cannot write any more while a pull lands (R3.2, R11.4)."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import sqlalchemy as sa

from roster_pipeline_tests.faults.test_database import home, restarted, restarted_town
from roster_pipeline_tests.faults.world import World, assert_survived, assert_untouched

# A server of the tests' own: the process of the session has to be on this machine.
__all__ = ["home", "restarted", "restarted_town"]


@contextmanager
def no_room(backend: int) -> Iterator[None]:
    """No file grows at the hands of this session while the block runs.

    PostgreSQL takes a file that would be larger than its process may write as it takes a full disk: the write fails, the server lives on.
    The write-ahead log is such a file too, and a session that cannot write it takes the server down: it must
    not commit meanwhile.
    """
    _limit_files(backend, "0")
    try:
        yield
    finally:
        _limit_files(backend, "unlimited")


def _limit_files(backend: int, size: str) -> None:
    server = psutil.Process(backend)
    # As the server's own account, because root in a container may not touch the limits of others.
    subprocess.run(
        ["prlimit", f"--pid={backend}", f"--fsize={size}:"], check=True, user=server.uids().real, group=server.gids().real
    )  # fmt: skip


def test_the_disk_fills_up_while_pages_land(restarted: World) -> None:
    """R3.2, R11.4, R11.5: in the middle of a COPY into a temporary table. It says so, can be tried again, and has applied nothing."""
    with restarted.stopped_in_pull() as syncing, restarted.database.engine.connect() as holder:
        # The sync cannot write how it ended, and so not end, before there is room again.
        holder.execute(sa.text("select 1 from ops.syncs where status = 'processing' for update"))
        with no_room(restarted.backend()):
            syncing.signal(signal.SIGCONT)
            restarted.until(restarted.waiting)
            assert restarted.syncs() == [("processing",)]
        assert_untouched(restarted)
        holder.rollback()
        ended = syncing.ended()
    assert (ended.status, ended.document["retryable"]) == (1, True)
    assert "disk" in ended.document["error"]
    assert "free some space" in ended.document["hint"]
    ((message,),) = restarted.syncs("message")
    assert "disk" in message
    assert "worth retrying" in message
    assert_survived(restarted)
