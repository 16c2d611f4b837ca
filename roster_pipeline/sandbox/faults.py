"""Faults of the simulated Clever: which requests get a broken answer, how it is broken, and how often.

Belongs here: the kinds of fault, their parameters, and which request each one hits. Does not belong here: breaking the answer
(`misbehaving.py`), and the ordinary rate limit (`limits.py`).
"""

import re
from dataclasses import dataclass, field
from typing import Literal, TypedDict, get_args

from roster_pipeline.errors import UsageError

FaultKind = Literal[
    "status",  # this status: 429 is empty and has `reset_s`, 401 and 403 are a JSON message, all others an HTML page
    "html",  # an HTML page with status 200
    "body",  # `body` as JSON with status 200: valid JSON that does not fit the request
    "truncated",  # half of the correct body, in a well-formed HTTP message
    "cut",  # the correct Content-Length and half of the body, then the socket is closed
    "delay",  # the correct answer, after `seconds`
    "drip",  # one blank every `seconds`, without end
    "next_self",  # `next` leads to the same page
    "next_earlier",  # `next` leads back to the beginning
    "next_without_cursor",  # `next` has no cursor
    "next_other_host",  # `next` is an absolute uri on another host
    "next_renamed",  # the link to the next page has another name
    "without_next",  # a page without `next`, also if it is full
    "without_links",  # a list without `links`
    "without_data",  # a list without `data`
]


class FaultOptions(TypedDict, total=False):
    """The optional parameters of a `Fault`."""

    times: int | None
    status: int
    reset_s: float | None
    seconds: float
    body: object


@dataclass
class Fault:
    """One fault.

    Attributes:
        kind: see `FaultKind`.
        pattern: regular expression that is searched in path and query (`/v3.0/sections\\?.*starting_after=`).
        times: how many matching requests it hits; None for all of them, until it is cleared.
        status: HTTP status (kind `status`).
        reset_s: seconds until the rate limit resets, as the header says (status 429); None sends no such header.
        seconds: waiting time (kinds `delay` and `drip`).
        body: any JSON value (kind `body`).
    """

    kind: FaultKind
    pattern: str
    times: int | None = None
    status: int = 503
    reset_s: float | None = None
    seconds: float = 1.0
    body: object = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise UsageError(f"There is no misbehaviour {self.kind!r}.", hint=f"Use one of: {', '.join(get_args(FaultKind))}.")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UsageError(f"The pattern is not a regular expression: {error}.") from None


class Faults:
    """The active faults, oldest first. The first that matches a request hits it. Not thread-safe: hold the sandbox's lock."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, fault: Fault) -> None:
        """Activates a fault."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Removes all faults."""
        self._faults.clear()

    def take(self, uri: str) -> Fault | None:
        """The fault that hits a request of `uri`, and counts that; None if the answer stays correct."""
        for fault in self._faults:
            if re.search(fault.pattern, uri):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                return fault
        return None
