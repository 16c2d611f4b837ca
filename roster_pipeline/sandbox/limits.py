"""Clever's rate limit: a fixed window per bearer token.

Does not belong here: the 429 answers of a fault (`faults.py`).
"""

from collections.abc import Callable
from math import ceil


class RateLimit:
    """Counts requests per token and window. Not thread-safe: hold the sandbox's lock.

    Args:
        limit: requests per window; None counts but never refuses (the headers then say Clever's usual 1,200).
        window_s: length of a window in seconds; windows start at multiples of it.
        clock: seconds since the epoch.
    """

    def __init__(self, limit: int | None, window_s: int, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._window_s = window_s
        self._clock = clock
        self._window = 0
        self._used: dict[str, int] = {}

    def use(self, token: str) -> tuple[bool, dict[str, str]]:
        """Counts one request. Returns whether it is allowed, and the four headers of every answer."""
        window = int(self._clock() // self._window_s)
        if window != self._window:
            self._window = window
            self._used.clear()
        used = self._used[token] = self._used.get(token, 0) + 1
        announced = self.limit or 1200
        headers = {
            "X-RateLimit-Limit": str(announced),
            "X-RateLimit-Remaining": str(max(0, announced - used)),
            "X-RateLimit-Reset": str(ceil((window + 1) * self._window_s)),
            "X-RateLimit-Bucket": "bearer",
        }
        return self.limit is None or used <= self.limit, headers
