"""The whole simulated Clever: its districts, the application's credentials, the rate limit and the misbehaviour in force.

Belongs here: what is common to all districts. Does not belong here: HTTP (`app.py`) and how one district's data changes (`changes.py`).
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple, Unpack

from roster_pipeline.errors import UsageError
from roster_pipeline.sandbox.changes import Changes
from roster_pipeline.sandbox.district import KINDS, ROLES, District, Record
from roster_pipeline.sandbox.faults import Fault, FaultKind, FaultOptions, Faults
from roster_pipeline.sandbox.limits import RateLimit


class Seen(NamedTuple):
    """One request: its path with query, and the HTTP status of the answer, whatever became of its body."""

    uri: str
    status: int


class Sandbox:
    """A simulated Clever, safe to read and change from any thread.

    Args:
        client_id, client_secret: what the token list accepts.
        rate_limit: requests per window and token, None for no limit. Clever: 1,200 a minute.
        rate_window_s: length of that window, whole seconds; shorter ones keep tests quick.
        clock: seconds since the epoch; stamps changes and the rate limit.

    Attributes:
        seen: the last 100,000 requests, oldest first, so that a test can tell what a client asked for. The control API is not among them.
    """

    def __init__(
        self,
        *districts: District,
        client_id: str = "sandbox",
        client_secret: str = "sandbox-secret",  # noqa: S107 - the well-known credentials of a simulation
        rate_limit: int | None = 1200,
        rate_window_s: int = 60,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.client_id = client_id
        self.client_secret = client_secret
        self.limits = RateLimit(rate_limit, rate_window_s, clock)
        self.faults = Faults()
        self.lock = threading.RLock()
        self.districts: dict[str, District] = {}
        self.seen: deque[Seen] = deque(maxlen=100_000)
        self._clock = clock
        for district in districts:
            self.add(district)

    def now(self) -> datetime:
        """The simulated Clever's time, aware, UTC."""
        return datetime.fromtimestamp(self._clock(), UTC)

    def add(self, district: District) -> District:
        """Connects a district.

        Raises:
            UsageError: its id is taken (generated districts differ by their seed).
        """
        with self.lock:
            if district.id in self.districts:
                raise UsageError("The sandbox already has this district.", hint="Generate it with another seed.", district=district.id)
            self.districts[district.id] = district
        return district

    def district(self, district_id: str | None = None) -> District:
        """A district by its id, or the only one.

        Raises:
            UsageError: no such district, or None while there are several.
        """
        with self.lock:
            if district_id is None and len(self.districts) == 1:
                return next(iter(self.districts.values()))
            if district_id not in self.districts:
                raise UsageError(f"The sandbox has no district {district_id}.", hint=f"It has {len(self.districts)}; name one of them.")
            return self.districts[district_id]

    def change(self, district_id: str | None = None) -> Changes:
        """The changes that can be made to a district, or to the only one: `sandbox.change().rename(user, first="Ada")`."""
        return Changes(self.district(district_id), self.now)

    def tokens(self) -> list[Record]:
        """The token list: one entry per connected district."""
        with self.lock:
            return [district.token for district in self.districts.values() if district.connected]

    def authorised(self, token: str) -> District | None:
        """The district that a bearer token reads; None when Clever would not accept it."""
        with self.lock:
            for district in self.districts.values():
                if district.access_token == token and district.connected and district.token_accepted:
                    return district
        return None

    def misbehave(self, kind: FaultKind, pattern: str, **options: Unpack[FaultOptions]) -> None:
        """Breaks the answers to requests whose path and query match `pattern`; see `faults.Fault` for kinds and options."""
        with self.lock:
            self.faults.add(Fault(kind, pattern, **options))

    def behave(self) -> None:
        """Ends all misbehaviour."""
        with self.lock:
            self.faults.clear()

    def counts(self) -> dict[str, object]:
        """What there is, without anything personal: per district its state and the number of shared records by kind and role."""
        with self.lock:
            districts = list(self.districts.values())
        return {
            "districts": {district.id: _counts(district) for district in districts},
            "faults": len(self.faults),
            "requests": len(self.seen),
        }


def _counts(district: District) -> dict[str, object]:
    with district.lock:
        return {
            "connected": district.connected,
            "state": district.record.get("state"),
            "last_sync": district.record.get("last_sync"),
            **{kind: len(district.shared(kind)) for kind in KINDS},
            "roles": {role: len(district.shared("users", role)) for role in ROLES},
        }
