"""`roster connections accept` (R11.7)."""

from collections.abc import Callable
from typing import Any

import pytest

from roster_pipeline.sandbox import District, Sandbox

from .conftest import Roster

Query = Callable[..., list[Any]]
OTHERS = ["first", "second", "third"]


@pytest.fixture
def lost(roster: Roster, clever: Sandbox, district: District, query: Query) -> list[str]:
    """Three of four connected districts are missing from Clever's list. Yields their ids."""
    for each in OTHERS:
        clever.add(District({"id": each, "name": each}))
    assert roster("sync", district.id).status == 0
    for each in OTHERS:
        clever.change(each).disconnect()
    assert roster("sync", district.id).status == 0
    assert query("select count(*) from app.districts where status = 'disconnected'") == [(0,)]
    return OTHERS


def test_a_person_accepts_the_list(roster: Roster, lost: list[str], query: Query) -> None:
    """R11.7, R13.2: it lists again and applies that; ops.audit has who, and the principal that the program found out."""
    ended = roster("connections", "accept", "--by", "Ada")
    assert ended.status == 0
    assert ended.out.splitlines() == ["Accepted: 1 districts are connected.", "Disconnected: first, second, third."]
    assert query("select count(*) from app.districts where status = 'disconnected'") == [(3,)]
    ((given_name, principal, act),) = query("select given_name, principal, act from ops.audit where act not in ('district_add', 'sync')")
    assert (given_name, act) == ("Ada", "accept_connections")
    assert principal.startswith("os:")


def test_the_list_is_right_again_by_then(roster: Roster, lost: list[str], clever: Sandbox, query: Query) -> None:
    """R11.7: what counts is what Clever says now."""
    for each in lost:
        clever.change(each).connect()
    document = roster("connections", "accept", "--by", "Ada", "--json").document
    assert (document["connected"], document["disconnected"]) == (4, [])
    assert query("select count(*) from app.districts where status = 'disconnected'") == [(0,)]


@pytest.mark.parametrize("by", [(), ("--by", " ")])
def test_somebody_has_to_say_so(roster: Roster, environment: None, by: tuple[str, ...]) -> None:
    """R13.1: without a name it is wrong usage."""
    assert roster("connections", "accept", *by).status == 2
