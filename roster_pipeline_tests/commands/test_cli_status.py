"""`roster status`: recent syncs, and the truth about crashed ones."""

from collections.abc import Callable
from typing import Any

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.sandbox import District

from .conftest import Roster

PROCESSING = "insert into ops.syncs (district_id, status, started_at) values (1, 'processing', now())"


def test_crashed_sync_is_marked(roster: Roster, district: District, query: Callable[..., list[Any]]) -> None:
    """R11.4: `processing` with a free lock reads as failed and is marked so, once; the district can be synced."""
    query(PROCESSING)
    document = roster("status", "--json").document
    assert document["marked_as_failed"] == 1
    assert [(row["status"], row["district"]) for row in document["syncs"]] == [("failed", district.id)]
    assert query("select status, finished_at is not null from ops.syncs") == [("failed", True)]
    assert roster("status", "--json").document["marked_as_failed"] == 0
    assert roster("sync", district.id).status == 0


def test_running_sync_is_left_alone(roster: Roster, database: Database, district: District, query: Callable[..., list[Any]]) -> None:
    """R11.4: while somebody holds the lock, it is what it says."""
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
    assert "Sync 3: Nothing had changed." in ended.out
    assert district.id in ended.out


def test_before_the_first_sync(roster: Roster) -> None:
    assert "No sync yet." in roster("status").out
