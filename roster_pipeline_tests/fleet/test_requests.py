"""Syncs on demand: who may request one, what is queued, what is started next, and how a queued row ends (R11.3)."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.districts.agreement import set_status
from roster_pipeline.errors import PermanentError, RosterError, SyncRunningError, TransientError
from roster_pipeline.fleet.requests import Queued
from roster_pipeline.sync.ledger import Origin, RequestEndedError
from roster_pipeline.sync.run import SyncRequest, run_sync
from roster_pipeline_tests.fleet.queue import NOW, OWNERS, PLAIN, PROCESSING, agree, answer, ask, next_up, rows, statuses
from roster_pipeline_tests.sync.scenario import DISTRICT, Scenario, scenario


@pytest.fixture
def world(database: Database) -> Iterator[Scenario]:
    """A district that has never been synced, with id 1, and its Clever."""
    with scenario(database) as made:
        yield made


def test_a_second_request_returns_the_first(database: Database) -> None:
    """R11.3: as long as the first is queued. A request for another district, or after the end of the sync, is a new one."""
    agree(database)
    agree(database, "d2")
    assert [ask(database), ask(database, "1"), ask(database, "d2")] == [(1, False), (1, True), (2, False)]
    row = "select status, trigger, requested_by, reason, requested_role, requested_at from ops.syncs where sync_id = 1"
    assert rows(database, row) == [("queued", "on_demand", "WHO", "WHY", "support", NOW)]
    rows(database, "update ops.syncs set status = 'successful', finished_at = now()")
    assert ask(database) == (3, False)


def test_a_thousand_requests_at_once_make_one_row(database: Database) -> None:
    """R11.3: in real database sessions. Each waits for the one before it, and then finds its row."""
    agree(database)
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: ask(database), range(1000)))
    assert rows(database, "select count(*) from ops.syncs") == [(1,)]
    assert [already for _, already in answers].count(False) == 1


def test_while_a_sync_is_running(database: Database) -> None:
    """R11.2: the running sync's id, exit status 4, and no row."""
    agree(database)
    rows(database, PROCESSING)
    with database.engine.connect() as connection, district_lock(connection, 1, "d1"), pytest.raises(SyncRunningError) as refused:
        ask(database)
    assert (refused.value.running_sync_id, refused.value.exit_status) == (1, 4)
    assert statuses(database) == ["processing"]


def test_a_crashed_sync_does_not_refuse_requests(database: Database) -> None:
    """R11.4: its row still says processing, but nobody holds the lock."""
    agree(database)
    rows(database, PROCESSING)
    assert ask(database) == (2, False)


@pytest.mark.parametrize("status", ["requested", "paused", "disconnected"])
def test_a_district_that_is_not_active(database: Database, status: str) -> None:
    """SPEC 2: refused, and nothing is written."""
    agree(database)
    rows(database, "update app.districts set status = :status", status=status)
    with pytest.raises(PermanentError, match=f"is {status}; only active districts sync"):
        ask(database)
    with pytest.raises(PermanentError, match="no district"):
        ask(database, "d9")
    assert statuses(database) == []


def test_which_role_may_request_a_sync(database: Database) -> None:
    """SPEC 1: support in both profiles, the account owner in twig_science only. A setting of the district can change that."""
    agree(database, "typing")
    agree(database, "twig", "twig_science")
    agree(database, "own", "twig_science", request_roles=["account_owner"])
    for district, role in (("typing", "account_owner"), ("own", "support")):
        with pytest.raises(PermanentError, match=f"role {role} may not ask"):
            ask(database, district, role=role)
    assert statuses(database) == []
    assert ask(database, "twig", role="account_owner") == (1, False)
    assert ask(database, "own", role="account_owner") == (2, False)
    assert ask(database, "typing", role="support") == (3, False)


def test_the_limit_of_requests_per_hour(database: Database) -> None:
    """Requests of people in the last hour count, however they ended. Syncs of the schedule and skipped requests do not count."""
    agree(database, requests_per_hour=2)
    ended = "insert into ops.syncs (district_id, status, finished_at, requested_at, requested_role) values (1, :status, :at, :at, :role)"
    recent, old = NOW - timedelta(minutes=59), NOW - timedelta(minutes=61)
    for status, at, role in (
        ("successful", old, "support"),
        ("successful", recent, None),
        ("skipped", recent, "support"),
        ("failed", recent, "support"),
    ):
        rows(database, ended, status=status, at=at, role=role)
    assert ask(database) == (5, False)
    assert ask(database) == (5, True)  # the same request does not count again
    rows(database, "update ops.syncs set status = 'held', finished_at = now() where status = 'queued'")
    with pytest.raises(TransientError, match="limit of 2 requested syncs an hour"):
        ask(database)
    assert ask(database, now=NOW + timedelta(minutes=61)) == (6, False)


def test_requests_of_the_future_do_not_count(database: Database) -> None:
    """R11.6: a clock that was wrong during an hour stops no request afterwards."""
    agree(database, requests_per_hour=1)
    future = NOW + timedelta(days=400)
    ended = "insert into ops.syncs (district_id, status, finished_at, requested_at) values (1, 'successful', :at, :at)"
    rows(database, ended, at=future)
    assert ask(database) == (2, False)


def test_which_request_is_started_next(database: Database) -> None:
    """R11.3: the oldest row of each district, also if the application inserted it. The request of a district that is syncing waits."""
    agree(database)
    agree(database, "d2")
    rows(database, PLAIN)
    rows(database, PLAIN)
    ask(database, "d2")
    assert rows(database, "select status, trigger, requested_role from ops.syncs limit 1") == [("queued", "on_demand", "support")]
    with database.engine.connect() as connection, district_lock(connection, 1, "d1"):
        assert next_up(database) == [Queued(3, "d2")]
    assert next_up(database) == [Queued(1, "d1"), Queued(3, "d2")]
    assert statuses(database) == ["queued"] * 3


def test_a_row_that_may_not_start_is_skipped_with_the_reason(database: Database) -> None:
    """R11.3: the same rules apply to the rows that the application inserts. A skipped row delays no other one."""
    agree(database, requests_per_hour=1)
    rows(database, OWNERS)
    rows(database, "insert into ops.syncs (requested_by) values ('without a district')")
    rows(database, PLAIN)
    assert next_up(database) == [Queued(3, "d1")]
    rows(database, "update ops.syncs set status = 'successful', finished_at = now() where sync_id = 3")
    rows(database, PLAIN)
    agree(database, "d2")
    rows(database, "insert into ops.syncs (district_id) values (2)")
    with database.engine.begin() as connection:
        set_status(connection, "d2", "active", "paused")
    assert next_up(database) == []
    skipped = rows(database, "select sync_id, message, started_at, finished_at from ops.syncs where status = 'skipped' order by 1")
    assert skipped == [
        (1, "The role account_owner may not ask for a sync of this district.", None, NOW),
        (2, "The request names no district.", None, NOW),
        (4, "The limit of 1 requested syncs an hour is reached.", None, NOW),
        (5, "The district is paused; only active districts sync.", None, NOW),
    ]


def test_settings_that_cannot_be_read_stop_no_other_district(database: Database) -> None:
    """R11.2: somebody may have written them by hand. The reason names the setting, but not its value."""
    agree(database)
    agree(database, "d2")
    rows(database, PLAIN)
    ask(database, "d2")
    rows(database, """update app.districts set settings = '{"request_roles": "Zyzzyva"}' where district_id = 1""")
    assert next_up(database) == [Queued(2, "d2")]
    ((message,),) = rows(database, "select message from ops.syncs where status = 'skipped'")
    assert "request_roles" in message
    assert "Zyzzyva" not in message


def test_a_sync_answers_all_waiting_requests_of_its_district(world: Scenario) -> None:
    """R11.3, R11.4: the first request becomes processing and then successful, and keeps its `requested_by`. The other requests are skipped
    when the sync starts, and their messages name it."""
    database = world.database
    rows(database, PLAIN)
    sync_id, _ = ask(database, DISTRICT)
    rows(database, PLAIN)
    assert sync_id == 1
    seen: list[list[str]] = []
    answer(world, 1, run="run-1", on_step=lambda _: seen.append(statuses(database)))
    assert seen[0] == ["processing", "skipped"]
    query = "select status, trigger, requested_by, dagster_run_id, message from ops.syncs order by sync_id"
    first, second = rows(database, query)
    assert first[:4] == ("successful", "initial", "the application", "run-1")
    assert second == ("skipped", "on_demand", "the application", None, "Answered by sync 1.")
    assert ask(database, DISTRICT) == (3, False)
    with pytest.raises(PermanentError, match="Request 1 is not queued any more: it is successful"):
        answer(world, 1)
    with pytest.raises(RequestEndedError, match=r"Request 2 has ended already \(skipped\). Answered by sync 1."):
        answer(world, 2)
    assert statuses(database) == ["successful", "skipped", "queued"]


def test_a_request_that_may_not_start_meanwhile_is_no_failure(world: Scenario) -> None:
    """R11.4: the daemon dismissed the row after its run was started, because the district was paused. The run finds it ended."""
    rows(world.database, PLAIN)
    assert next_up(world.database) == [Queued(1, DISTRICT)]
    rows(world.database, "update app.districts set status = 'paused'")
    assert next_up(world.database) == []
    with pytest.raises(RequestEndedError, match="The district is paused"):
        answer(world, 1, run="run-1")
    assert rows(world.database, "select status, dagster_run_id from ops.syncs") == [("skipped", None)]


@pytest.mark.parametrize("reference", [DISTRICT, "no-such-district"])
def test_a_run_cannot_answer_the_request_of_another_district(world: Scenario, reference: str) -> None:
    """R13.1: a run's tags can be written by hand. The request stays queued."""
    agree(world.database, "another")
    rows(world.database, "insert into ops.syncs (district_id, requested_by) values (2, 'the application')")
    request = SyncRequest(reference, Origin(sync_id=1, dagster_run_id="run-1"))
    with pytest.raises(PermanentError, match="no request 1" if reference == DISTRICT else "no-such-district"):
        run_sync(world.database, world.settings, request)
    assert rows(world.database, "select status, dagster_run_id from ops.syncs where sync_id = 1") == [("queued", None)]


def test_a_request_stays_queued_while_another_sync_runs(world: Scenario) -> None:
    """R11.2: the run of the request does not get the lock. The row stays queued, so the next run can start it."""
    rows(world.database, PLAIN)
    with world.database.engine.connect() as connection, district_lock(connection, 1, DISTRICT), pytest.raises(SyncRunningError):
        answer(world, 1)
    assert statuses(world.database) == ["queued"]
    answer(world, 1)
    assert statuses(world.database) == ["successful"]


def test_the_second_attempt_of_a_run_is_a_row_of_its_own(world: Scenario) -> None:
    """R11.4: the first row has ended and stays. The second has the same `requested_by` and role. Another run is refused."""
    rows(world.database, OWNERS)
    world.settings = world.settings.model_copy(update={"clever_client_id": None})
    for _ in range(2):
        with pytest.raises(RosterError, match="credentials"):
            answer(world, 1, run="run-1")
    with pytest.raises(PermanentError, match="not queued any more"):
        answer(world, 1, run="run-2")
    query = "select sync_id, status, requested_by, requested_role, dagster_run_id from ops.syncs order by sync_id"
    assert rows(world.database, query) == [(each, "failed", "owner 7", "account_owner", "run-1") for each in (1, 2)]
