"""Bad days on request: what to do to the answers of which requests, and for how long.

Belongs here: the kinds of misbehaviour, their parameters, and which request each one hits. Does not belong here: carrying them out
(`misbehaving.py`), and the ordinary rate limit (`limits.py`).
"""

import re
from dataclasses import dataclass, field
from typing import Literal, TypedDict, get_args

from roster_pipeline.errors import UsageError

FaultKind = Literal[
    "status",  # this status: 429 empty with `reset_s`, 401 and 403 a JSON message, all others an HTML page
    "html",  # an HTML page under status 200
    "body",  # `body` as JSON under status 200, whatever was asked for: valid JSON of the wrong shape
    "truncated",  # the right answer, ended early in a well-formed HTTP message
    "cut",  # the right Content-Length, half of the body, then the socket is closed
    "delay",  # the right answer after `seconds`
    "drip",  # one blank every `seconds`, without end
    "next_self",  # `next` leads to the very same page
    "next_earlier",  # `next` leads back to the beginning
    "next_without_cursor",  # `next` has no cursor
    "next_other_host",  # `next` is an absolute uri on another host
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
    """One misbehaviour.

    Attributes:
        kind: what happens, see `FaultKind`.
        pattern: regular expression searched for in path and query (`/v3.0/sections\\?.*starting_after=`).
        times: how many matching requests are hit; None until cleared.
        status: HTTP status (kind status).
        reset_s: seconds until the announced reset of the rate limit (status 429); None sends no such header.
        seconds: waiting time (kinds delay, drip).
        body: any JSON value (kind body).
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
            raise UsageError(f"The pattern is no regular expression: {error}.") from None


class Faults:
    """The misbehaviours in force, oldest first; the first that matches a request hits it. Not thread-safe: the sandbox's lock guards it."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, fault: Fault) -> None:
        """Puts a misbehaviour in force."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Ends all misbehaviour."""
        self._faults.clear()

    def take(self, uri: str) -> Fault | None:
        """The misbehaviour that hits a request of `uri`, counted; None: answer it well."""
        for fault in self._faults:
            if re.search(fault.pattern, uri):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                return fault
        return None
