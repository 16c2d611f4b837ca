"""`roster request`: what it queues, what it refuses, and with which exit status."""

from collections.abc import Callable
from typing import Any

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.fleet.requests import record_tick
from roster_pipeline.sandbox import District

from .conftest import Roster

PROCESSING = "insert into ops.syncs (district_id, status, started_at) values (1, 'processing', now())"


def test_a_request_is_queued_once(roster: Roster, district: District, query: Callable[..., list[Any]]) -> None:
    """R11.3: the row has who requested it and why. A second request reports the first one, with exit status 0."""
    ended = roster("request", district.id, "--requested-by", "ticket 4711", "--reason", "new school", "--json")
    assert (ended.status, ended.err) == (0, "")
    assert ended.document == {"sync_id": 1, "district": district.id, "status": "queued", "already_queued": False}
    row = query("select district_id, trigger, status, requested_by, reason, requested_role, started_at from ops.syncs")
    assert row == [(1, "on_demand", "queued", "ticket 4711", "new school", "support", None)]
    ended = roster("request", "1", "--requested-by", "ticket 4712")
    assert ended.status == 0
    assert f"Sync 1 of district {district.id} was queued already" in ended.out
    assert roster("request", "1", "--requested-by", "ticket 4712", "--json").document["already_queued"] is True
    assert query("select count(*) from ops.syncs") == [(1,)]


def test_while_a_sync_is_running(roster: Roster, database: Database, district: District, query: Callable[..., list[Any]]) -> None:
    """R11.2: exit status 4, the running sync's id, no row. A crashed sync is not running (R11.4)."""
    query(PROCESSING)
    with database.engine.connect() as connection, district_lock(connection, 1, district.id):
        human = roster("request", district.id, "--requested-by", "me")
        machine = roster("request", district.id, "--requested-by", "me", "--json")
    assert human.status == machine.status == 4
    assert "It is sync 1." in human.err
    assert machine.document["running_sync_id"] == 1
    assert query("select status from ops.syncs") == [("processing",)]
    assert roster("request", district.id, "--requested-by", "me").status == 0


def test_without_a_daemon_it_says_so(roster: Roster, database: Database, district: District, query: Callable[..., list[Any]]) -> None:
    """R11.3: a request that nothing takes up is not only `queued`. The same for an approval, which waits for the next sync."""
    query("insert into app.users (district_id, username) values (1, 'existing')")
    assert roster("sync", district.id).status == 3
    commands = (("request", district.id, "--requested-by", "me"), ("approve", "1", "--by", "me"))
    for command in commands:
        ended = roster(*command)
        assert ended.status == 0
        assert "nothing has taken up requests for a minute" in ended.err
        assert f"`roster sync {district.id}`" in ended.err or "`roster sync 1`" in ended.err
        query("update ops.holds set status = 'open'")
    with database.engine.begin() as connection:
        record_tick(connection)
    for command in commands:
        assert roster(*command).err == ""


def test_a_number_that_no_hold_can_have(roster: Roster, district: District) -> None:
    """It is no hold, like any other number that is not one."""
    for number in ("7", str(2**63), "99999999999999999999"):
        for command in ("approve", "reject"):
            ended = roster(command, number, "--by", "me")
            assert (ended.status, ended.err.splitlines()[0]) == (1, f"Error: There is no hold {number}.")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--requested-by", "owner 7", "--role", "account_owner"), 1, "role account_owner may not ask"),
        ((), 2, "Missing option '--requested-by'"),
        (("--requested-by", " "), 2, "must not be blank"),
        (("--requested-by", "me", "--role", "teacher"), 2, "'teacher' is not one of"),
    ],
)
def test_refused(
    arguments: tuple[str, ...], status: int, says: str, roster: Roster, district: District, query: Callable[..., list[Any]]
) -> None:
    """SPEC 1, 2: the profile says which roles may request a sync. Nothing is written."""
    ended = roster("request", district.id, *arguments)
    assert ended.status == status
    assert says in ended.err
    assert query("select count(*) from ops.syncs") == [(0,)]


def test_a_district_that_is_not_active(roster: Roster, district: District, query: Callable[..., list[Any]]) -> None:
    """SPEC 2: refused with exit status 1, nothing written. So is an unknown district."""
    roster("district", "pause", district.id)
    for reference, says in ((district.id, "only active districts sync"), ("unknown", "There is no district unknown.")):
        ended = roster("request", reference, "--requested-by", "me")
        assert ended.status == 1
        assert says in ended.err
    assert query("select count(*) from ops.syncs") == [(0,)]


def test_limit_and_role_of_one_district(roster: Roster, district: District, query: Callable[..., list[Any]]) -> None:
    """SPEC 2: both are fields of the profile, and can be set for one district."""
    settings = ("--set", "requests_per_hour=1", "--set", "request_roles=account_owner")
    add = ("district", "add", district.id, "--name", "Test", "--profile", "typing_agent", "--domain", "test.example.org")
    assert roster(*add, *settings).status == 0
    assert roster("request", district.id, "--requested-by", "me").status == 1
    owner = ("request", district.id, "--requested-by", "owner 7", "--role", "account_owner", "--json")
    assert roster(*owner).document["already_queued"] is False
    query("update ops.syncs set status = 'successful', finished_at = now()")
    refused = roster(*owner)
    assert refused.status == 1
    assert refused.document["retryable"] is True
    assert "limit of 1" in refused.document["error"]
