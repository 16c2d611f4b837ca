"""Which processes are still running. They may end while these functions read them.

Does not belong here: starting and ending processes.
"""

from collections.abc import Iterable

import psutil


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The processes that are running. A zombie has ended, even if its parent has not reaped it."""
    return [each for each in processes if _runs(each)]


def running(argument: str, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The processes that have this argument on their command line."""
    return [each for each in processes if argument in _command(each)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # psutil raises it for a zombie too.
        return []


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
