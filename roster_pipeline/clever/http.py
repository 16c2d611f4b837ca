"""One GET at one Clever host: time-outs, retries, rate limits, the deadline, and which statuses are final (R3.3).

Belongs here: everything between a path and a well-formed body. Does not belong here: which paths exist, and tokens (the caller passes
`auth`). No error or log line quotes a header or a body.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import NoReturn, Self, TypeVar
from urllib.parse import urlencode

import requests
from requests.auth import AuthBase
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter
from urllib3.exceptions import HTTPError

from roster_pipeline.clever.decode import MalformedBodyError, parse_body
from roster_pipeline.clever.errors import DeadlineError, RefusedError
from roster_pipeline.errors import TransientError
from roster_pipeline.settings import Settings
from roster_pipeline.source.protocol import PullStats

T = TypeVar("T")
logger = logging.getLogger(__name__)

# Small enough that a slow body is stopped soon after the deadline, large enough that 10 MB take few steps.
_PIECE_BYTES = 65_536
# No answer can be larger: a record of Clever has a few kilobytes. The least is for an answer that is no page of records.
_RECORD_BYTES = 65_536
_LEAST_BODY_BYTES = 64 * 2**20
_TOO_LARGE = "it is larger than any page can be ({:,} bytes)"
# An X-RateLimit-Reset below this is not a time of this century, so it is a number of seconds from now.
_EARLIEST_UNIX_TIME = 1_000_000_000
_RETRIED_CLIENT_ERRORS = {408, 429}
_NOT_IMPLEMENTED = 501
_CLOCK_TOLERANCE_S = 60
_HINTS = {
    401: "Check that the district is still connected to the application at Clever.",
    402: "Ask Clever what the application or the district still has to pay or sign.",
    403: "Check at Clever what the district shares with the application.",
    404: "Check CLEVER_API_URL and CLEVER_API_VERSION, and that the district still shares this.",
    413: "Lower CLEVER_PAGE_LIMIT.",
}


@dataclass(frozen=True)
class Clock:
    """The time. It is passed in so that tests need not wait. `wait` sleeps for some seconds, or until the event is set."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait


SYSTEM_CLOCK = Clock()


class Deadline:
    """When one pull has to end, with its retries and waits: after some seconds, or when somebody stops it.

    Attributes:
        clock: the clock that it uses.
        seconds: how long the pull may take.
        stopped: set it, from any thread, to end requests before their next piece, attempt or wait.
    """

    def __init__(self, seconds: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.seconds = seconds
        self.stopped = threading.Event()
        self.started_at = clock.monotonic()

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock.monotonic() - self.started_at

    def remaining(self) -> float:
        """Seconds left; negative after the deadline."""
        return self.seconds - self.elapsed()


class _AttemptError(TransientError):
    """One attempt failed, and another one may succeed. `wait` is how long Clever said to wait, in seconds."""

    wait: float = 0.0


def _rate_limit_wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return error.wait if isinstance(error, _AttemptError) else 0.0


class CleverHttp:
    """GET with retries at one base URL. Any number of threads may use it: each request borrows a connection, and reuses it if one is idle.

    Args:
        base_url: scheme and host (and a path, behind a proxy), without a trailing slash.
        district: the Clever id for errors and log lines.
    """

    def __init__(self, base_url: str, settings: Settings, *, deadline: Deadline, stats: PullStats, district: str | None = None) -> None:
        self.base_url = base_url
        self._settings = settings
        self._deadline = deadline
        self._stats = stats
        self._district = district
        # A session of requests is for one thread at a time. The last one that was given back is used first, so few stay open.
        self._idle: list[requests.Session] = []
        self._lock = threading.Lock()
        self._is_clock_compared = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for session in self._idle:
            session.close()

    def get(self, path: str, params: Mapping[str, str | int], shape: type[T], *, auth: AuthBase) -> T:
        """The body at `path` as `shape`.

        Raises:
            RefusedError: the status is final.
            DeadlineError: the pull's time is over, or would be over before the next attempt.
            TransientError: every attempt failed, or the pull was stopped.
        """
        shown = f"{path}?{urlencode(params)}" if params else path
        retrying = Retrying(
            retry=retry_if_exception_type(_AttemptError),
            stop=stop_after_attempt(self._settings.clever_max_attempts),
            # The backoff is added to Clever's own wait. Clocks differ: a reset that looks past must not use up all attempts at once.
            wait=_rate_limit_wait + wait_exponential_jitter(initial=1, max=30),
            before_sleep=lambda state: self._before_wait(state, shown),
            sleep=self._sleep,
            retry_error_callback=lambda state: self._give_up(state, shown),
        )
        body: T = retrying(self._attempt, path, params, shape, auth, shown)
        return body

    @contextmanager
    def _session(self) -> Iterator[requests.Session]:
        """A connection for one request."""
        with self._lock:
            session = self._idle.pop() if self._idle else requests.Session()
        try:
            yield session
        finally:
            with self._lock:
                self._idle.append(session)

    def _sleep(self, seconds: float) -> None:
        self._deadline.clock.wait(self._deadline.stopped, seconds)

    def _attempt(self, path: str, params: Mapping[str, str | int], shape: type[T], auth: AuthBase, shown: str) -> T:
        self._check_may_go_on(shown)
        remaining = self._deadline.remaining()
        with self._lock:
            self._stats.requests += 1
        try:
            with (
                self._session() as session,
                session.get(
                    self.base_url + path,
                    params=dict(params),
                    auth=auth,
                    timeout=(min(self._settings.clever_connect_timeout_s, remaining), min(self._settings.clever_read_timeout_s, remaining)),
                    stream=True,
                    allow_redirects=False,
                ) as response,
            ):
                self._compare_clocks(response)
                self._check_status(response, shown)
                return parse_body(self._read(response, shown), shape)
        except MalformedBodyError as error:
            reason = f"Clever's answer cannot be used: {error}."
        except (requests.RequestException, HTTPError) as error:
            # Only the kind of the error: the text of some of these quotes what the server sent.
            reason = f"Clever cannot be reached ({type(error).__name__})."
        raise _AttemptError(reason, district=self._district, path=shown)

    def _read(self, response: requests.Response, shown: str) -> bytes:
        limit = max(_LEAST_BODY_BYTES, self._settings.clever_page_limit * _RECORD_BYTES)
        pieces, size = [], 0
        if (declared := response.headers.get("Content-Length", "")).isdigit() and int(declared) > limit:
            raise MalformedBodyError(_TOO_LARGE.format(limit))
        while piece := response.raw.read1(_PIECE_BYTES, decode_content=True):
            pieces.append(piece)
            size += len(piece)
            # After decompression: a megabyte of gzip can be gigabytes of blanks, and would take the machine's memory.
            if size > limit:
                raise MalformedBodyError(_TOO_LARGE.format(limit))
            self._check_may_go_on(shown)
        body = b"".join(pieces)
        with self._lock:
            self._stats.bytes += len(body)
        return body

    def _compare_clocks(self, response: requests.Response) -> None:
        """Warn once if Clever has another time (R11.6). Nothing depends on it: it is a sign that some clock is wrong."""
        with self._lock:
            if self._is_clock_compared:
                return
            self._is_clock_compared = True
        try:
            difference = self._deadline.clock.wall() - parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
        except ValueError:
            return
        if abs(difference) > _CLOCK_TOLERANCE_S:
            logger.warning("this machine's clock and Clever's differ by %.0f s", abs(difference))

    def _check_status(self, response: requests.Response, shown: str) -> None:
        status = response.status_code
        if status == requests.codes.ok:
            return
        reason = f"Clever answered with status {status}."
        # A 2xx other than 200 has only part of a body, or none, so it is retried. A redirect is never followed: it could lead the token
        # elsewhere.
        if status in _RETRIED_CLIENT_ERRORS or status < 300 or (status >= 500 and status != _NOT_IMPLEMENTED):
            error = _AttemptError(reason, district=self._district, path=shown)
            if status == requests.codes.too_many_requests:
                error.wait = self._until_reset(response.headers.get("X-RateLimit-Reset", ""))
            raise error
        raise RefusedError(reason, status=status, hint=_HINTS.get(status, ""), district=self._district, path=shown)

    def _until_reset(self, header: str) -> float:
        """Seconds until the last rate limit in the header is reset. Several limits are separated by commas."""
        now = self._deadline.clock.wall()
        waits = [reset - now if reset >= _EARLIEST_UNIX_TIME else reset for reset in map(float, re.findall(r"\d+", header))]
        return max([0.0, *waits])

    def _check_may_go_on(self, shown: str) -> None:
        if self._deadline.stopped.is_set():
            raise TransientError("The pull was stopped: a collection was not read to its end.", district=self._district, path=shown)
        if self._deadline.remaining() <= 0:
            raise self._deadline_error("is over", shown)

    def _before_wait(self, state: RetryCallState, shown: str) -> None:
        if state.upcoming_sleep >= self._deadline.remaining():
            raise self._deadline_error(f"ends before the next attempt may start, after: {_reason(state)}", shown)
        with self._lock:
            self._stats.retries += 1
        logger.warning(
            "district %s: attempt %d of %s failed, next in %.1f s: %s",
            self._district, state.attempt_number, shown, state.upcoming_sleep, _reason(state),
        )  # fmt: skip

    def _deadline_error(self, what: str, shown: str) -> DeadlineError:
        return DeadlineError(
            f"The pull's deadline of {self._deadline.seconds:g} s {what}",
            hint="Clever is slow, or ROSTER_PULL_DEADLINE_S too short for this district.",
            district=self._district,
            path=shown,
        )

    def _give_up(self, state: RetryCallState, shown: str) -> NoReturn:
        raise TransientError(f"{_reason(state)} Gave up after {state.attempt_number} attempts.", district=self._district, path=shown)


def _reason(state: RetryCallState) -> str:
    error = state.outcome.exception() if state.outcome else None
    return error.reason if isinstance(error, _AttemptError) else ""
