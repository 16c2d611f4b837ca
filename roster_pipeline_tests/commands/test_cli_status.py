"""`roster status`: recent syncs, and crashed ones, which it marks as failed."""

import json
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.districts.nights import PACIFIC
from roster_pipeline.sandbox import District, Sandbox
from roster_pipeline_tests.until import until

from .conftest import Roster

PROCESSING = "insert into ops.syncs (district_id, status, started_at) values (1, 'processing', now())"


def test_crashed_sync_is_marked(roster: Roster, district: District, query: Callable[..., list[Any]]) -> None:
    """R11.4: a sync in status `processing` whose lock is free is marked as failed, once. The district can be synced."""
    query(PROCESSING)
    document = roster("status", "--json").document
    assert document["marked_as_failed"] == 1
    assert [(row["status"], row["district"]) for row in document["syncs"]] == [("failed", district.id)]
    assert query("select status, finished_at is not null from ops.syncs") == [("failed", True)]
    assert roster("status", "--json").document["marked_as_failed"] == 0
    assert roster("sync", district.id).status == 0


def test_running_sync_is_left_unchanged(roster: Roster, database: Database, district: District, query: Callable[..., list[Any]]) -> None:
    """R11.4: while a session holds the lock, the sync is running."""
    query(PROCESSING)
    with database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        with district_lock(connection, 1, district.id):
            document = roster("status", district.id, "--json").document
    assert document["marked_as_failed"] == 0
    assert document["syncs"][0]["status"] == "processing"
    assert query("select status from ops.syncs") == [("processing",)]


def test_of_one_district_newest_first(roster: Roster, district: District, query: Callable[..., list[Any]]) -> None:
    query("insert into app.districts (clever_id, name) values ('other', 'Other')")
    query("insert into ops.syncs (district_id, status, started_at, finished_at) values (2, 'successful', now(), now())")
    roster("sync", district.id)
    roster("sync", district.id)
    assert [row["sync_id"] for row in roster("status", "--json").document["syncs"]] == [3, 2, 1]
    assert [row["sync_id"] for row in roster("status", district.id, "--json").document["syncs"]] == [3, 2]
    assert [row["sync_id"] for row in roster("status", "2", "--json").document["syncs"]] == [1]
    ended = roster("status", district.id)
    assert "Sync 3: No changes." in ended.out
    assert district.id in ended.out


def test_before_the_first_sync(roster: Roster) -> None:
    assert "No sync yet." in roster("status").out


def test_queued_requests_and_next_syncs(roster: Roster, district: District, query: Callable[..., list[Any]]) -> None:
    """R11.3, SPEC 2: a queued request is shown even after many newer syncs. Only active districts have next_scheduled_at."""
    roster("request", district.id, "--requested-by", "ticket 4711")
    query("insert into app.districts (clever_id, name) values ('other', 'Other')")
    query("insert into ops.syncs (district_id, status, finished_at) select 2, 'successful', now() from generate_series(1, 25)")
    document = roster("status", "--json").document
    assert set(document) == {"marked_as_failed", "syncs", "districts"}
    assert [row["sync_id"] for row in document["syncs"]] == [*range(26, 6, -1), 1]
    ours, other = document["districts"]
    assert set(ours) == {"district", "district_id", "status", "next_scheduled_at", "last_success_at", "window"}
    assert (ours["district"], ours["district_id"], ours["status"], ours["last_success_at"]) == (district.id, 1, "active", None)
    scheduled = datetime.fromisoformat(ours["next_scheduled_at"])
    assert datetime.now(UTC) < scheduled
    assert f"{scheduled.astimezone(PACIFIC):%H:%M}" == "21:00"
    assert (other["status"], other["next_scheduled_at"]) == ("requested", None)
    assert other["last_success_at"] is not None

    ended = roster("status", district.id)
    assert "Sync 1, requested by ticket 4711." in ended.out
    assert "Queued requests: 1." in ended.out
    assert "21:00 in Los Angeles" in ended.out
    roster("district", "pause", district.id)
    assert [each["next_scheduled_at"] for each in roster("status", district.id, "--json").document["districts"]] == [None]


def test_watch_prints_each_change_until_interrupted(
    program: list[str], roster: Roster, district: District, query: Callable[..., list[Any]]
) -> None:
    """One line of JSON for the present state, then one per change. A crash is reported and marked. Ctrl-C is the normal end."""
    process = subprocess.Popen(
        [*program, "status", district.id, "--watch", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # If a shell runs the tests in the background, they ignore Ctrl-C, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["syncs"] == []
        assert roster("request", district.id, "--requested-by", "me").status == 0
        queued = json.loads(process.stdout.readline())
        assert [(row["status"], row["requested_by"]) for row in queued["syncs"]] == [("queued", "me")]
        query("update ops.syncs set status = 'processing', started_at = now()")
        crashed = json.loads(process.stdout.readline())
        assert (crashed["marked_as_failed"], crashed["syncs"][0]["status"]) == (1, "failed")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out, err) == (0, "", "")


def test_a_killed_sync_reads_as_failed_everywhere(
    program: list[str], roster: Roster, clever: Sandbox, district: District, query: Callable[..., list[Any]]
) -> None:
    """R11.4: `kill -9` of a real sync. The view shows it as failed before the row is marked; `roster status` marks the row."""
    clever.misbehave("delay", "/v3.0/sections", seconds=60, times=1)
    process = subprocess.Popen([*program, "sync", district.id], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # The fault is used up when the request arrives. The answer comes later.
        until(lambda: not len(clever.faults) or process.poll() is not None, seconds=60)
        assert process.poll() is None
        assert query("select status from ops.recent_syncs") == [("processing",)]
        running = roster("request", district.id, "--requested-by", "me", "--json")
        assert (running.status, running.document["running_sync_id"]) == (4, 1)
        process.kill()
        process.communicate()
    finally:
        process.kill()
        clever.behave()
    # The server notices within seconds that the session is dead.
    until(lambda: query("select status from ops.recent_syncs") == [("failed",)], seconds=60)
    assert query("select status from ops.syncs") == [("processing",)]
    assert roster("status", district.id, "--json").document["marked_as_failed"] == 1
    assert query("select status, finished_at is not null from ops.syncs") == [("failed", True)]
    assert query("select event, is_urgent from ops.alerts") == [("sync_failed:1", True)]
    assert roster("sync", district.id).status == 0
