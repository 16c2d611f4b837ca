"""The state of the simulated Clever: its districts, the application's credentials, the rate limit and the active faults.

Belongs here: what all districts have in common. Does not belong here: HTTP (`app.py`) and changes of one district (`changes.py`).
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
    """One request: its path with query, and the HTTP status of the answer, even if the body was not sent in full."""

    uri: str
    status: int


class Sandbox:
    """A simulated Clever, safe to read and change from any thread.

    Args:
        client_id, client_secret: the credentials that the token list accepts.
        rate_limit: requests per window and token, None for no limit. Clever: 1,200 a minute.
        rate_window_s: length of that window in whole seconds. Tests use short ones.
        clock: seconds since the epoch, for the timestamps of changes and for the rate limit.

    Attributes:
        seen: the last 100,000 requests, oldest first, without those of the control API: a test can check what a client requested.
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
        """The time of the simulated Clever, aware, UTC."""
        return datetime.fromtimestamp(self._clock(), UTC)

    def add(self, district: District) -> District:
        """Connects a district.

        Raises:
            UsageError: there is a district with this id already (each seed generates another id).
        """
        with self.lock:
            if district.id in self.districts:
                raise UsageError("The sandbox already has this district.", hint="Generate it with another seed.", district=district.id)
            self.districts[district.id] = district
        return district

    def district(self, district_id: str | None = None) -> District:
        """A district by its id, or the only one.

        Raises:
            UsageError: there is no such district, or the id is None and there are several.
        """
        with self.lock:
            if district_id is None and len(self.districts) == 1:
                return next(iter(self.districts.values()))
            if district_id not in self.districts:
                raise UsageError(f"The sandbox has no district {district_id}.", hint=f"It has {len(self.districts)}; name one of them.")
            return self.districts[district_id]

    def change(self, district_id: str | None = None) -> Changes:
        """Changes a district, or the only one: `sandbox.change().rename(user, first="Ada")`."""
        return Changes(self.district(district_id), self.now)

    def tokens(self) -> list[Record]:
        """The token list: one entry per connected district."""
        with self.lock:
            return [district.token for district in self.districts.values() if district.connected]

    def authorised(self, token: str) -> District | None:
        """The district of a bearer token; None if Clever would refuse the token."""
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
        """Removes all faults."""
        with self.lock:
            self.faults.clear()

    def counts(self) -> dict[str, object]:
        """Counts without personal data: for each district its state, and the number of shared records by kind and role."""
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
