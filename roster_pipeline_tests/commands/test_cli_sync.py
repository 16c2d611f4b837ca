"""`roster sync`: what it reports, and that the report contains only counts and ids."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest

from roster_pipeline.alerts import delivery
from roster_pipeline.commands import sync as command
from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.sandbox import District, Sandbox
from roster_pipeline.sync.run import SyncReport, run_sync
from roster_pipeline_tests.alerts.receivers import webhook

from .conftest import Roster


def test_report_agrees_with_the_database(roster: Roster, district: District, query: Callable[..., list[Any]]) -> None:
    """The document's counts are those of `ops.syncs` and of `ops.changes`. The row has who requested the sync."""
    ended = roster("sync", district.id, "--requested-by", "ops-7", "--reason", "new school", "--json")
    assert (ended.status, ended.err) == (0, "")
    document = ended.document
    assert document["status"] == "successful"
    assert "steps" not in document
    ((counts, requested_by, reason),) = query(
        "select counts, requested_by, reason from ops.syncs where sync_id = :id", id=document["sync_id"]
    )
    assert (counts, requested_by, reason) == (document["counts"], "ops-7", "new school")
    written = {(entity, action): rows for entity, action, rows in query("select entity, action, count(*) from ops.changes group by 1, 2")}
    assert written == {(table, action): rows for table, actions in counts["changes"].items() for action, rows in actions.items()}
    assert written["users", "create"] >= 30


def test_second_sync_says_that_nothing_changed(roster: Roster, district: District, query: Callable[..., list[Any]]) -> None:
    """R7.2."""
    roster("sync", district.id)
    before = query("select count(*) from ops.changes")
    ended = roster("sync", district.id)
    assert ended.status == 0
    assert "No changes." in ended.out
    assert query("select count(*) from ops.changes") == before


def test_report_for_people(roster: Roster, clever: Sandbox, district: District, query: Callable[..., list[Any]]) -> None:
    """Progress on standard error, the result on standard output: rows written, findings with their meaning, what to run next."""
    for section in district.shared("sections")[:3]:
        clever.change().set_members(section, students=["5f" + "0" * 22], teachers=[])
    ended = roster("sync", district.id, "--profile")
    assert ended.status == 0
    assert "clever.students" in ended.err
    assert "app.users" in ended.err
    assert "\x1b" not in ended.out + ended.err
    shown = " ".join(ended.out.split())
    ((unknown,),) = query("select counts -> 'audits' -> 'enrollment_unknown_person' from ops.syncs")
    assert unknown > 0
    assert f"enrollment_unknown_person {unknown} Members of rostered sections " in shown
    assert "grade_unknown" not in shown.partition("Worth a look")[2]  # it found nothing
    # --profile
    assert "reconcile.user_matches" in shown
    assert "between the steps" in shown
    assert "100% ########" in shown
    assert "Slowest: " in shown
    assert max(len(line) for line in ended.out.partition("Slowest")[0].splitlines()) <= 80
    assert f"roster status {district.id}" in shown


def test_steps_with_profile(roster: Roster, district: District) -> None:
    """Time, rows and memory by step, in the order in which they ran. The steps and the time between them add up to the total."""
    document = roster("sync", district.id, "--profile", "--json").document
    steps, total = document["steps"], document["total"]
    by_name = {step["name"]: step for step in steps}
    assert len(by_name) == len(steps)
    assert by_name["clever.students"]["rows"] == 30
    assert [name for name in by_name if name in ("app.users", "clever.students", "reconcile.user_matches")] == [
        "clever.students",
        "reconcile.user_matches",
        "app.users",
    ]
    assert all(step["seconds"] >= 0 for step in steps)
    assert sum(step["seconds"] for step in steps) + total["between_steps"] == pytest.approx(total["seconds"])
    assert [step["share"] for step in steps] == [pytest.approx(step["seconds"] / total["seconds"]) for step in steps]
    peaks = [step["peak_mb"] for step in steps] + [total["peak_mb"]]
    assert peaks == sorted(peaks)
    assert peaks[0] > 50


def test_nothing_personal_is_printed(roster: Roster, clever: Sandbox, district: District, query: Callable[..., list[Any]]) -> None:
    """SPEC 12: neither in the report, nor with --profile, nor after a failure when everything has been pulled."""
    person = district.shared("users", "student")[0]
    clever.change().rename(person, first="Zyzzyva", last="Qwghlm")
    shown = [
        roster("sync", district.id, "--profile"),
        roster("sync", district.id, "--profile", "--json"),
        roster("status"),
        roster("district", "list"),
    ]
    assert query("select count(*) from app.users where last_name = 'Qwghlm'") == [(1,)]
    query("alter table app.users add check (last_name <> 'Changed')")
    clever.change().rename(person, first="Zyzzyva", last="Changed")
    failed = roster("sync", district.id)
    assert failed.status == 1
    shown += [failed, roster("status", "--json")]
    usernames = [name for (name,) in query("select username from app.users where username <> clever_id")]
    assert len(usernames) > 10
    text = "".join(ended.out + ended.err for ended in shown)
    assert not [word for word in ("Zyzzyva", "Qwghlm", "Changed", clever.district().access_token, *usernames) if word in text]


def test_another_sync_is_running(roster: Roster, database: Database, district: District, query: Callable[..., list[Any]]) -> None:
    """R11.2: exit status 4, the running sync's id, and no row."""
    query("insert into ops.syncs (district_id, status, started_at) values (1, 'processing', now())")
    with database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        with district_lock(connection, 1, district.id):
            human, machine = roster("sync", district.id), roster("sync", district.id, "--json")
    assert human.status == machine.status == 4
    assert "It is sync 1." in human.err
    assert machine.document == {
        "error": "Another sync of this district is running.",
        "hint": machine.document["hint"],
        "retryable": True,
        "exit_status": 4,
        "district": district.id,
        "running_sync_id": 1,
    }
    assert query("select count(*) from ops.syncs") == [(1,)]


def test_held(roster: Roster, district: District, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 2: a sync that ends in status `held` exits with 3, and shows its message."""
    run = run_sync

    def held(*arguments: Any, **more: Any) -> SyncReport:
        return dataclasses.replace(run(*arguments, **more), status="held", message="Waits for approval.")

    monkeypatch.setattr(command, "run_sync", held)
    ended = roster("sync", district.id)
    assert ended.status == 3
    assert "Waits for approval." in ended.out
    ended = roster("sync", district.id, "--json")
    assert (ended.status, ended.document["status"]) == (3, "held")


def test_the_process_that_ends_a_sync_delivers_its_alerts(
    roster: Roster, clever: Sandbox, district: District, query: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11.8: a sync from cron has no daemon. A failed sync is reported, with what to do, and a held one; each once."""
    query("insert into app.users (district_id, username) values (1, 'existing')")
    with webhook() as hook:
        monkeypatch.setenv("ROSTER_ALERT_URLS", hook.url())
        with monkeypatch.context() as wrong:
            wrong.setattr(clever, "client_secret", "changed")
            failed = roster("sync", district.id)
        held = roster("sync", district.id)
        assert roster("sync", district.id).status == 3
    assert (failed.status, held.status) == (1, 3)
    assert [title for title, _ in hook.received] == [
        f"[roster] Sync 1 of district {district.id} failed",
        f"[roster] Sync 2 of district {district.id} holds something for approval (initial)",
    ]
    hint = failed.err.splitlines()[-1]
    assert "Check " in hint
    assert hint in hook.received[0][1]


def test_a_crash_that_is_found_is_delivered_too(
    roster: Roster, district: District, query: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11.4, R11.8: `roster status` ends the row of a sync whose process has died."""
    query("insert into ops.syncs (district_id, status, started_at) values (1, 'processing', now())")
    with webhook() as hook:
        monkeypatch.setenv("ROSTER_ALERT_URLS", hook.url())
        assert roster("status").status == 0
    assert [title for title, _ in hook.received] == [f"[roster] Sync 1 of district {district.id} failed"]


def test_a_receiver_that_hangs_delays_a_sync_by_seconds_only(
    roster: Roster, district: District, query: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11.8: the sync ends as it would without a receiver, and its alert stays open."""
    monkeypatch.setattr(delivery, "SEND_AFTER_SYNC_SECONDS", 1.0)
    query("insert into app.users (district_id, username) values (1, 'existing')")
    with webhook() as hook:
        monkeypatch.setenv("ROSTER_ALERT_URLS", hook.url("method=POST&rto=60"))
        hook.gate.clear()
        began = time.monotonic()
        assert roster("sync", district.id).status == 3
        assert time.monotonic() - began < 30
        hook.gate.set()
    assert query("select status from ops.syncs") == [("held",)]
    assert query("select count(*) from ops.alerts where closed_at is null") == [(1,)]
