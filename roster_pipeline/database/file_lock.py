"""Locks on files (flock), which the kernel frees when the process that has them ends, also by `kill -9`.

Does not belong here: what a lock means (`embedded.py`), and the locks in the database (`lock.py`).
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def open_lock(path: Path) -> int:
    """A file descriptor of the lock file, which is made if it is missing. The caller closes it, which also frees the lock."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def try_exclusive(lock: int) -> bool:
    """Takes the lock for this process alone, if it is free; returns whether it was."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Waits for the lock, and holds it during the block."""
    lock = open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
