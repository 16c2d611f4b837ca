"""`roster window`: what it records, lists and refuses (R14.1)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from roster_pipeline.database.clock import time_of
from roster_pipeline.database.engine import Database
from roster_pipeline.districts.nights import night_of
from roster_pipeline.sandbox import District

from .conftest import Roster

BY = ("--by", "Ann", "--reason", "new school year")


@pytest.fixture
def night(database: Database) -> Callable[[int], str]:
    """The day of a night, counted from tonight."""
    tonight = night_of(time_of(database))
    return lambda days: (tonight + timedelta(days=days)).isoformat()


def test_a_window_is_added_listed_and_cancelled(
    roster: Roster, district: District, night: Callable[[int], str], query: Callable[..., list[Any]]
) -> None:
    """R14.1, R13.2."""
    limits = ("--limit", "role_share=0.6", "--limit", "brakes.school_floor=9")
    ended = roster("window", "add", district.id, "--kind", "rollover", "--from", night(0), "--to", night(3), *limits, *BY)
    assert ended.status == 0
    assert ended.out == (
        f"Window 1 is recorded: rollover in the nights of {night(0)} to {night(3)}, for district {district.id} (Test).\nIt is on now.\n"
    )
    added = roster("window", "add", "--profile", "twig_science", "--kind", "freeze", "--from", night(2), "--to", night(2), *BY, "--json")
    assert (added.document["profile"], added.document["is_on"], added.document["first_night"]) == ("twig_science", False, night(2))

    listed = roster("window", "list")
    assert "Window 1, by Ann: new school year role_share=0.6 school_floor=9" in listed.out
    table = " ".join(listed.out.split())
    assert f" 1 rollover {night(0)} {night(3)} on district {district.id}" in table
    assert f" 2 freeze {night(2)} {night(2)} to come profile twig_science" in table
    assert [each["window_id"] for each in roster("window", "list", district.id, "--json").document["windows"]] == [1]

    cancelled = roster("window", "cancel", "1", "--by", "Bea", "--json").document
    assert cancelled["cancelled_by"] == "Bea"
    assert [each["window_id"] for each in roster("window", "list", "--json").document["windows"]] == [2]
    assert "1  rollover" in roster("window", "list", "--all").out
    assert query("select act, given_name, reason from ops.audit where act like 'window%' order by audit_id") == [
        ("window_add", "Ann", "new school year"),
        ("window_add", "Ann", "new school year"),
        ("window_cancel", "Bea", None),
    ]
    assert query("select limits, created_by, reason from ops.windows where window_id = 1") == [
        ({"role_share": 0.6, "school_floor": 9}, "Ann", "new school year")
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("add", "--kind", "freeze"), 2, "Name a DISTRICT or a --profile"),
        (("add", "DISTRICT", "--profile", "typing_agent", "--kind", "freeze"), 2, "Name a DISTRICT or a --profile"),
        (("add", "DISTRICT", "--kind", "pause"), 2, "'pause' is not one of 'freeze', 'additions_only', 'rollover'"),
        (("add", "DISTRICT", "--kind", "rollover", "--limit", "role_sahre=1"), 2, "--limit role_sahre: there is no such limit."),
        (("add", "DISTRICT", "--kind", "rollover", "--limit", "relink_share=1"), 2, "--limit relink_share: no window loosens this limit."),
        (("add", "DISTRICT", "--kind", "rollover", "--limit", "role_share=60"), 2, "role_share (Input should be less than or equal to 1"),
        (("add", "DISTRICT", "--kind", "rollover", "--limit", "role_floor=-1"), 2, "role_floor"),
        (("add", "DISTRICT", "--kind", "rollover", "--limit", "role_floor"), 2, "write KEY=VALUE"),
        (("add", "DISTRICT", "--kind", "freeze", "--limit", "role_floor=3"), 2, "Only a rollover window has limits"),
        (("add", "nobody", "--kind", "freeze"), 1, "There is no district nobody."),
    ],
)
def test_wrong_usage(
    roster: Roster, district: District, night: Callable[[int], str], query: Callable[..., list[Any]], arguments: Any, status: int, says: str
) -> None:
    """R14.1: one message, and nothing is written."""
    named = [district.id if each == "DISTRICT" else each for each in arguments]
    ended = roster("window", *named, "--from", night(0), "--to", night(1), *BY)
    assert ended.status == status
    assert says in " ".join(ended.err.split())
    assert query("select * from ops.windows") == []


@pytest.mark.parametrize(
    "who",
    [
        ("--by", " ", "--reason", "x"),
        ("--by", "Ann", "--reason", ""),
        ("--reason", "x"),
        ("--by", "Ann"),
        ("--by", "A" * 201, "--reason", "x"),
    ],
)
def test_who_and_why_are_required(roster: Roster, district: District, night: Callable[[int], str], who: tuple[str, ...]) -> None:
    """R13.1: never blank."""
    ended = roster("window", "add", district.id, "--kind", "freeze", "--from", night(0), "--to", night(1), *who)
    assert ended.status == 2
    assert "--by" in ended.err or "--reason" in ended.err


def test_cancelling_what_is_no_window(roster: Roster) -> None:
    assert roster("window", "cancel", "7", "--by", "Ann").err.startswith("Error: There is no window 7.")
    assert roster("window", "cancel", "7", "--by", " ").status == 2


def test_the_status_shows_the_window_that_is_on(roster: Roster, district: District, night: Callable[[int], str]) -> None:
    """R14.6: not one that is to come."""
    assert "window" not in roster("status").out
    roster("window", "add", district.id, "--kind", "freeze", "--from", night(0), "--to", night(1), *BY)
    roster("window", "add", district.id, "--kind", "rollover", "--from", night(2), "--to", night(3), *BY)
    assert f"A window is on: freeze through the night of {night(1)}." in roster("status", district.id).out
    (found,) = roster("status", "--json").document["districts"]
    assert found["window"] == {"window_id": 1, "kind": "freeze", "last_night": night(1)}


def test_a_sync_in_a_freeze(roster: Roster, district: District, night: Callable[[int], str], query: Callable[..., list[Any]]) -> None:
    """R14.2: exit status 1 and a row `skipped`; a request is refused in the same words without a row; --during-freeze needs who and why."""
    roster("window", "add", district.id, "--kind", "freeze", "--from", night(0), "--to", night(1), *BY)
    says = f"A freeze is on through the night of {night(1)} (window 1): new school year."
    synced, requested = roster("sync", district.id), roster("request", district.id, "--requested-by", "me")
    assert (synced.status, requested.status) == (1, 1)
    assert synced.err.startswith(f"Error: {says} (district {district.id})\n`roster sync DISTRICT --during-freeze")
    assert requested.err == synced.err
    assert query("select status, message from ops.syncs") == [("skipped", says)]
    assert roster("sync", district.id, "--during-freeze", "--by", "Ann").status == 2
    assert roster("sync", district.id, "--during-freeze", "--by", " ", "--reason", "x").status == 2
    assert roster("sync", district.id, "--during-freeze", *BY).status == 0
    assert query("select given_name, reason from ops.audit where act = 'sync_during_freeze'") == [("Ann", "new school year")]
    assert query("select requested_by, reason from ops.syncs where status = 'successful'") == [("Ann", "new school year")]
