"""A ROSTER_HOME for tests of the embedded server."""

import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A ROSTER_HOME of the test's own. Its server must be stopped when the test ends."""
    yield tmp_path / "home"
    base = (tmp_path / "home" / "postgres").resolve()
    if not (base / "server.lock").exists():
        return  # The test has not started a server here.
    with (base / "server.lock").open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left_running = False
        except BlockingIOError:
            pid_file = base / "data" / "postmaster.pid"
            left_running = pid_file.exists()
            if left_running:
                os.kill(int(pid_file.read_text().split()[0]), signal.SIGQUIT)
            # Without the file the server has been stopped, and its last process is about to end.
            fcntl.flock(lock, fcntl.LOCK_EX)
    shutil.rmtree(base)
    assert not left_running
