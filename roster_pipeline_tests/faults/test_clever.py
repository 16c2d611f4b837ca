"""Whole syncs with a Clever that misbehaves (R3.2, R3.3): each fails and changes nothing, and does not affect the next sync."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from roster_pipeline_tests.faults.world import World, assert_equal, assert_survived

# Not the first page: the pages before the fault have been read, and must not count as the complete pull.
LATER = r"/users\?.*starting_after"


class Bad(NamedTuple):
    """A fault that lasts until it is cleared, and what the sync then says."""

    kind: Any
    says: str
    pattern: str = LATER
    options: Mapping[str, Any] = MappingProxyType({})
    environment: Mapping[str, str] = MappingProxyType({})
    is_retryable: bool = True


def status(
    number: int, says: str | None = None, *, is_retryable: bool = True, environment: dict[str, str] | None = None, **options: Any
) -> Bad:
    return Bad("status", says or f"status {number}", LATER, {"status": number, **options}, environment or {}, is_retryable)


CASES = {
    "429": status(429),
    "429 with a reset beyond the deadline": status(429, "deadline", reset_s=3600, environment={"CLEVER_MAX_ATTEMPTS": "3"}),
    "500": status(500),
    "502": status(502),
    "503": status(503),
    "token revoked between pages": status(401, is_retryable=False),
    "403": status(403, is_retryable=False),
    "HTML under 200": Bad("html", "cannot be used"),
    "JSON of another shape": Bad("body", "cannot be used"),
    "truncated JSON": Bad("truncated", "cannot be used"),
    "without links": Bad("without_links", "cannot be used"),
    "cut in mid-body": Bad("cut", "cannot be reached"),
    "silence": Bad("delay", "cannot be reached", options={"seconds": 3.0}, environment={"CLEVER_READ_TIMEOUT_S": "0.5"}),
    "endless drip": Bad("drip", "deadline", options={"seconds": 0.05}, environment={"ROSTER_PULL_DEADLINE_S": "3"}),
    "cursor loop": Bad("next_self", "next link back"),
    "cursor loop to the beginning": Bad("next_earlier", "next link back"),
    "next without a cursor": Bad("next_without_cursor", "without a cursor"),
    "next under another name": Bad("next_renamed", "unknown name", r"/users\?"),
    "a full page without next": Bad("without_next", "full and has no next", r"/users\?"),
    "a count above what was read": Bad("body", "but Clever counts", "/users.*count=true", {"body": {"count": 10**6, "links": []}}),
    "next on another host": Bad("next_other_host", "leads elsewhere"),
}


@pytest.mark.parametrize("bad", CASES.values(), ids=CASES.keys())
def test_a_clever_that_misbehaves(bad: Bad, world: World) -> None:
    """R3.2, R3.3, R11.4: an incomplete pull changes nothing."""
    world.sandbox.misbehave(bad.kind, bad.pattern, **bad.options)
    ended = world.sync(prepare=None, **bad.environment)
    assert ended.status == 1
    assert ended.document["retryable"] is bad.is_retryable
    assert bad.says in ended.document["error"]
    ((message,),) = world.syncs("message")
    assert bad.says in message
    world.sandbox.behave()
    assert_survived(world)


def test_short_faults_are_retried(world: World) -> None:
    """R3.1, R3.3: a rate limit until its reset, a token that has to be listed again, half a body. No alert is sent."""
    world.sandbox.misbehave("status", "/v3.0/schools", status=429, reset_s=1, times=1)
    world.sandbox.misbehave("status", LATER, status=401, times=1)
    world.sandbox.misbehave("cut", "/v3.0/terms", times=1)
    ended = world.sync(CLEVER_MAX_ATTEMPTS="3")
    assert (ended.status, ended.document["counts"]["pull"]["retries"]) == (0, 2)
    assert_equal(world.comparable(), world.town.after)
    assert world.rows("select count(*) from ops.alerts where kind = 'sync_failed'") == [(0,)]
