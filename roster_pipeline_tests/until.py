"""Waiting for what other processes do.

Does not belong here: what is waited for.
"""

import time
from collections.abc import Callable
from typing import Any


def until(holds: Callable[[], Any], *, seconds: float) -> None:
    """Wait for something that is bound to happen, at most so long."""
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.01)
