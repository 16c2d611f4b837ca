"""`roster purge`: without --yes it only counts, and it refuses more users than the limit. What is removed: `support/test_purge.py`."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock

from .conftest import Roster

DAY = f"{datetime.now(UTC) - timedelta(days=40):%Y-%m-%d}"
YESTERDAY = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"

Query = Callable[..., list[Any]]


@pytest.fixture
def users(query: Query) -> Callable[[int], None]:
    """Makes district 1, and returns a function that adds students to it that were soft-deleted long ago."""
    query("insert into app.districts (clever_id, name) values ('d1', 'Test')")
    query("insert into app.schools (district_id, name) values (1, 'North')")

    def make(number: int) -> None:
        query(
            "insert into app.users (district_id, username, first_name, deleted_at)"
            " select 1, 'ana' || n, 'Zzyzx', '2025-01-01' from generate_series(1, :number) as n",
            number=number,
        )
        query("insert into app.user_roles (user_id, role, school_id) select user_id, 'student', 1 from app.users")

    return make


def left(query: Query) -> int:
    [(users,)] = query("select count(*) from app.users")
    return int(users)


def test_without_yes_it_counts(roster: Roster, query: Query, users: Callable[[int], None]) -> None:
    """It shows counts, at most ten ids, and what to do next, never a name. --by is not needed."""
    users(12)
    ended = roster("purge", "d1", "--deleted-before", DAY)
    assert (ended.status, ended.err) == (0, "")
    assert "12 users would be removed" in ended.out
    assert "User ids: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more." in ended.out
    assert "--yes --by WHO" in ended.out
    assert "North" in ended.out
    assert "Zzyzx" not in ended.out
    assert roster("purge", "1", "--deleted-before", DAY, "--json").document == {
        "district": "d1",
        "district_id": 1,
        "removed": False,
        "users": 12,
        "user_ids": list(range(1, 11)),
        "by_role": [{"role": "student", "school_id": 1, "school": "North", "users": 12}],
        "is_over_limit": False,
        "rows": {},
    }
    assert left(query) == 12


def test_with_yes_it_removes(roster: Roster, query: Query, users: Callable[[int], None]) -> None:
    """It reports what it removed. A second run finds no users."""
    users(2)
    ended = roster("purge", "d1", "--deleted-before", DAY, "--yes", "--by", "ops-7")
    assert (ended.status, ended.err) == (0, "")
    assert "2 users removed" in ended.out
    assert "2 roles and 0 enrollments" in ended.out
    assert left(query) == 0
    assert query("select purged_by, users from ops.purges") == [("ops-7", 2)]
    document = roster("purge", "d1", "--deleted-before", DAY, "--yes", "--by", "ops-7", "--json").document
    assert (document["users"], document["removed"], document["rows"]) == (0, True, {})


def test_more_than_the_limit(roster: Roster, query: Query, users: Callable[[int], None]) -> None:
    """Exit status 1, with and without --yes. The default limit is 100; a person who wants to remove more has to raise it."""
    users(101)
    counted = roster("purge", "d1", "--deleted-before", DAY)
    assert counted.status == 1
    assert "101 users would be removed" in counted.out
    assert "--yes would be refused" in counted.out
    refused = roster("purge", "d1", "--deleted-before", DAY, "--yes", "--by", "ops-7", "--json")
    assert (refused.status, refused.document["exit_status"], refused.document["district"]) == (1, 1, "d1")
    assert "101 users would be purged, more than the limit of 100" in refused.document["error"]
    assert left(query) == 101
    assert roster("purge", "d1", "--deleted-before", DAY, "--yes", "--by", "ops-7", "--limit", "101").status == 0
    assert left(query) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--deleted-before", YESTERDAY],
        ["--deleted-before", "last year"],
        ["--deleted-before", DAY, "--yes"],
        ["--deleted-before", DAY, "--yes", "--by", " "],
        ["--deleted-before", DAY, "--limit", "0"],
        [],
    ],
    ids=["too young", "no day", "who?", "blank who", "limit", "nothing"],
)
def test_wrong_usage(roster: Roster, query: Query, users: Callable[[int], None], arguments: list[str]) -> None:
    """Exit status 2, nothing removed."""
    users(1)
    assert roster("purge", "d1", *arguments).status == 2
    assert left(query) == 1


def test_another_sync_is_running(roster: Roster, database: Database, query: Query, users: Callable[[int], None]) -> None:
    """R11.2: exit status 4 with the running sync's id. Counting still works."""
    users(1)
    query("insert into ops.syncs (district_id, status, started_at) values (1, 'processing', now())")
    with database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        with district_lock(connection, 1, "d1"):
            refused = roster("purge", "d1", "--deleted-before", DAY, "--yes", "--by", "ops-7", "--json")
            assert roster("purge", "d1", "--deleted-before", DAY).status == 0
    assert (refused.status, refused.document["running_sync_id"]) == (4, 1)
    assert left(query) == 1


def test_help_says_what_is_never_removed(roster: Roster) -> None:
    said = " ".join(roster("purge", "--help").out.split())
    assert "It leaves soft-deleted schools and classrooms" in said
    assert "protected users" in said
