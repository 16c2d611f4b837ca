"""R11.8: the text of an alert. Every kind alone and in a digest: what happened, the numbers, the next command, a link."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from roster_pipeline.alerts.messages import DIGEST_LINES, KINDS, Alert, compose
from roster_pipeline.alerts.outbox import Kind
from roster_pipeline.cli import COMMANDS

UI = "http://ui.example"
DISTRICT = "5f00000000000000000000d1"
FACTS: dict[Kind, dict[str, Any]] = {
    "sync_failed": {"message": "Clever cannot be reached (ConnectTimeout). Gave up after 6 attempts. (worth retrying: /v3.0/users)"},
    "run_failed": {"run_id": "0b5c-9f", "job": "sync_shard"},
    "hold_opened": {"hold": "district_role", "hold_id": 17, "role": "student", "acts": 30, "active": 100, "limit": 10.0},
    "data_quality": {"rules": {"users.foreign_district": 2, "clever_id_taken": 1}},
    "licenses_crossed": {"scopes": [{"scope": "district", "licenses": 190, "used": 195, "without_seat": 5, "held": 0}]},
    "district_silent": {"hours": 27},
    "disconnected": {},
    "connected": {"status": "active"},
    "connections_doubtful": {"missing": 40, "connected": 50, "reason": "Clever's list lacks 40 of 50."},
    "tokens_unusable": {"without_token": [DISTRICT], "unreadable": 1},
    "district_in_error": {"state": "error"},
    "window": {"window_id": 3, "window": "rollover", "what": "begins", "day": "2026-08-03", "whose": "district 5f00000000000000000000d1"},
}


def alert(kind: Kind, **changes: Any) -> Alert:
    return replace(
        Alert(
            alert_id=9,
            kind=kind,
            district=DISTRICT,
            district_id=7,
            sync_id=12,
            run_id=None,
            facts=FACTS[kind],
            is_urgent=True,
            created_at=datetime(2026, 1, 15, 5, 7, tzinfo=UTC),
            synced_since=False,
        ),
        **changes,
    )


def test_every_kind_has_texts() -> None:
    """Somebody who adds a kind has to write its texts."""
    assert set(KINDS) == set(get_args(Kind)) == set(FACTS)


@pytest.mark.parametrize("kind", KINDS)
def test_one_alert(kind: Kind) -> None:
    """R11.8: it has the district, every fact, a command that exists and the link; no placeholder is left."""
    message = compose([alert(kind)], UI)
    first, *details, blank, todo, link, _, last = message.text.splitlines()
    assert message.subject == f"[roster] {first.rstrip('.')}"
    assert len(details) == bool(FACTS[kind])
    assert "\n" not in message.subject
    assert blank == ""
    assert todo.startswith("What to do: ")
    commands = re.findall(r"`roster ([a-z]+)", todo)
    assert {*commands} <= {*COMMANDS, "health"}
    assert commands or kind == "data_quality"
    assert link.startswith(f"Look at: {UI}/")
    assert last == "Alert 9, 2026-01-14 21:07 PST."
    assert not re.search(r"\b(DISTRICT|SYNC|HOLD|RUN_ID|JOB)\b|[{}]", message.text)
    if kind not in ("run_failed", "connections_doubtful", "tokens_unusable"):
        assert DISTRICT in first
    for number in re.findall(r"\d+", str(FACTS[kind])):
        assert number in first + "".join(details)


def test_the_line_with_the_numbers() -> None:
    """R7.4, R9.3: on-call people read it first."""
    assert compose([alert("hold_opened")], UI).text.splitlines()[1] == (
        "hold district_role, hold id 17, role student, acts 30, active 100, limit 10"
    )
    assert compose([alert("licenses_crossed")], UI).text.splitlines()[1] == (
        "the district: 195 students for 190 licenses, 5 of them waiting for a seat, 0 more held"
    )
    assert "`roster approve 17 --by YOU`" in compose([alert("hold_opened")], UI).text


@pytest.mark.parametrize(
    ("changes", "page"),
    [
        ({}, f"/assets/app/users?view=partitions&partition={DISTRICT}"),
        ({"run_id": "0b5c-9f"}, "/runs/0b5c-9f"),
        ({"district": None}, "/locations/roster_pipeline/jobs/sync_district/partitions"),
    ],
)
def test_the_link(changes: dict[str, Any], page: str) -> None:
    """R11.8: to the run, else to the district's partition, else to the job."""
    assert f"Look at: {UI}{page}" in compose([alert("sync_failed", **changes)], UI).text.splitlines()


def test_a_digest_counts_first_and_groups_by_kind() -> None:
    """R11.8: the number of each kind, then a line per alert with district, sync and facts; what to do, once per kind."""
    alerts = [
        alert("hold_opened"),
        alert("sync_failed"),
        alert("sync_failed", district="5f00000000000000000000d2", sync_id=13, synced_since=True),
        alert("run_failed", district=None, sync_id=None),
    ]
    message = compose(alerts, UI)
    assert message.subject == "[roster] 4 alerts: failed syncs 2, failed runs 1, new holds 1"
    lines = message.text.splitlines()
    assert lines[0] == "4 alerts: failed syncs 2, failed runs 1, new holds 1."
    assert lines[2] == "Failed syncs: 2"
    assert lines[3].startswith(f"  {DISTRICT}  sync 12       Clever cannot be reached")
    assert lines[4].startswith("  5f00000000000000000000d2  sync 13       (Since then a later sync has been applied.) Clever")
    assert lines[5].startswith("What to do: ")
    assert "`roster sync DISTRICT`" in lines[5]
    assert [line for line in lines if line.startswith(("Failed", "New"))] == ["Failed syncs: 2", "Failed runs: 1", "New holds: 1"]
    assert lines[-1].startswith(f"Look at: {UI}/")
    assert "`roster approve HOLD --by YOU`" in message.text


def test_a_digest_stays_small() -> None:
    """R11.8: a digest of a thousand failed districts stays under the limit of chat services (28 kB). It counts what it does not list."""
    many = [alert("sync_failed", sync_id=each, facts={"message": "no " * 500}) for each in range(1000)]
    message = compose(many, UI)
    assert message.text.splitlines()[0] == "1,000 alerts: failed syncs 1,000."
    assert f"  ... and {1000 - DIGEST_LINES} more." in message.text.splitlines()
    assert len(message.text.encode()) < 28_000
