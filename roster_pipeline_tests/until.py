"""Waiting for other processes.

Does not belong here: the conditions.
"""

import time
from collections.abc import Callable
from typing import Any


def until(holds: Callable[[], Any], *, seconds: float) -> None:
    """Waits until the function returns true; fails after this many seconds."""
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.01)
