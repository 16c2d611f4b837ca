"""Which of some processes still run. They come and go while they are looked at.

Does not belong here: starting and ending them.
"""

from collections.abc import Iterable

import psutil


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that run. A zombie has ended: whether anybody reaps it is the machine's affair."""
    return [each for each in processes if _runs(each)]


def running(module: str, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that were started with `python -m module`."""
    return [each for each in processes if module in _command(each)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # A zombie has none either.
        return []


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
