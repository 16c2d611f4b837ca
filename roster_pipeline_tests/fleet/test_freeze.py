"""R14.2: in a freeze nothing syncs, by any entrance, and no alert says that the district is silent."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from pydantic import SecretStr

from roster_pipeline.database.engine import Database
from roster_pipeline.districts.windows import NewWindow, Window, add_window, cancel_window
from roster_pipeline.errors import PermanentError
from roster_pipeline.fleet.children import Failure, sync_here
from roster_pipeline.fleet.freshness import alert_silent, freshness, synced_this_night
from roster_pipeline.fleet.requests import startable
from roster_pipeline.sync.admission import FreezeError
from roster_pipeline.sync.ledger import Origin
from roster_pipeline.sync.run import SyncRequest, run_sync
from roster_pipeline_tests.fleet.queue import OWNERS, PLAIN, agree, ask, rows
from roster_pipeline_tests.fleet.test_health import in_database
from roster_pipeline_tests.sync.scenario import DISTRICT, Scenario, scenario

# 21:00 in Los Angeles on 2026-11-19, inside the freeze.
EVENING = datetime(2026, 11, 20, 5, tzinfo=UTC)
SAYS = "A freeze is on through the night of 2026-11-21 (window 1): new servers."


@pytest.fixture
def world(database: Database) -> Iterator[Scenario]:
    with scenario(database) as empty:
        yield empty


def freeze(database: Database, district_id: int | None = 1, *, first: date = date(2026, 11, 18), last: date = date(2026, 11, 21)) -> Window:
    """A freeze of a district, or of the profile `typing_agent`."""
    new = NewWindow(district_id, None if district_id else "typing_agent", "freeze", first, last, {})
    with database.engine.begin() as connection:
        return add_window(connection, new, by="Ann", reason="new servers.", now=datetime(2026, 11, 1, tzinfo=UTC))


def sync_at(world: Scenario, moment: datetime, origin: Origin | None = None, *, during_freeze: bool = False) -> str:
    """Sync at that time; returns the status."""
    request = SyncRequest(DISTRICT, origin or Origin(), during_freeze=during_freeze)
    return run_sync(world.database, world.settings, request, clock=lambda _: moment).status


def test_a_scheduled_sync_ends_skipped(world: Scenario) -> None:
    """R14.2: with the reason and the last night, at both nightly times; the first night after it syncs as usual."""
    window = freeze(world.database)
    scheduled = Origin(trigger="scheduled", requested_role=None)
    for moment in (EVENING, EVENING + timedelta(days=2, hours=3), window.ends_at - timedelta(seconds=1)):
        with pytest.raises(FreezeError) as skipped:
            sync_at(world, moment, scheduled)
        assert skipped.value.reason == SAYS
    assert sync_at(world, window.ends_at, scheduled) == "successful"
    assert sync_at(world, window.begins_at - timedelta(seconds=1), scheduled) == "successful"
    assert world.rows("select status, message from ops.syncs order by sync_id")[:4] == [
        *[("skipped", SAYS)] * 3,
        ("successful", "No changes."),
    ]
    assert world.value("select count(*) from ops.alerts") == 0


def test_a_shard_counts_it_as_skipped(world: Scenario) -> None:
    """R14.2: it is no failure, and no second attempt is made."""
    with world.database.engine.begin() as connection:
        new = NewWindow(None, "typing_agent", "freeze", date(2026, 1, 1), date(2026, 1, 2), {})
        add_window(connection, new, by="Ann", reason="x", now=datetime(2026, 1, 1, tzinfo=UTC))
        # The child reads the real time.
        connection.exec_driver_sql("alter table ops.windows disable trigger windows_never_change")
        connection.exec_driver_sql("update ops.windows set first_night = current_date - 2, last_night = current_date + 2")
    url = SecretStr(world.database.url.render_as_string(hide_password=False))
    settings = world.settings.model_copy(update={"roster_database_url": url})
    outcome = sync_here(settings, SyncRequest(DISTRICT, Origin(trigger="scheduled", requested_role=None)))
    assert isinstance(outcome, Failure)
    assert (outcome.status, outcome.is_transient) == ("skipped", False)


def test_during_the_freeze_by_hand(world: Scenario) -> None:
    """R14.2, R13.2: somebody may sync all the same, and `ops.audit` says who and why."""
    freeze(world.database)
    origin = Origin(requested_by="Ann", reason="one student", principal="os:ann")
    assert sync_at(world, EVENING, origin, during_freeze=True) == "successful"
    acts = world.rows("select act, given_name, reason, principal, subject from ops.audit where act = 'sync_during_freeze'")
    assert acts == [("sync_during_freeze", "Ann", "one student", "os:ann", "window 1")]
    # Without a freeze there is no exception to record.
    assert sync_at(world, EVENING + timedelta(days=9), origin, during_freeze=True) == "successful"
    assert world.value("select count(*) from ops.audit where act = 'sync_during_freeze'") == 1


def test_a_request_is_refused_in_the_same_words(database: Database) -> None:
    """R14.2: no row. One that the application has inserted ends skipped."""
    agree(database)
    freeze(database)
    with pytest.raises(PermanentError) as refused:
        ask(database, now=EVENING)
    assert refused.value.reason == SAYS
    assert rows(database, "select * from ops.syncs") == []
    rows(database, PLAIN)
    rows(database, OWNERS)
    with database.engine.connect() as opened:
        assert startable(opened.execution_options(isolation_level="AUTOCOMMIT"), now=EVENING) == []
    assert rows(database, "select status, message from ops.syncs") == [("skipped", SAYS)] * 2
    assert ask(database, now=EVENING + timedelta(days=9)) == (3, False)


@pytest.fixture
def synced_before(database: Database) -> Callable[[int], None]:
    """A district whose last applied sync was long before the freeze, or in the night of it."""

    def make(days: int) -> None:
        agree(database)
        moment = EVENING - timedelta(days=days)
        rows(database, "update app.districts set active_since = :at", at=moment - timedelta(days=30))
        rows(
            database,
            "insert into ops.syncs (district_id, trigger, status, requested_at, started_at, finished_at, requested_role)"
            " values (1, 'scheduled', 'successful', :at, :at, :at, null)",
            at=moment + timedelta(minutes=1),
        )

    return make


@pytest.mark.parametrize("whose", [1, None])
def test_no_alert_says_that_the_district_is_silent(database: Database, synced_before: Callable[[int], None], whose: int | None) -> None:
    """R14.2, R11.8: no alert in the freeze, nor before the first night after it had time to sync."""
    synced_before(3)
    window = freeze(database, whose)
    with database.engine.begin() as connection:
        for moment in (EVENING, window.ends_at - timedelta(minutes=1), window.ends_at, window.ends_at + timedelta(hours=26)):
            (found,) = freshness(connection, moment)
            assert found.is_fresh
            assert alert_silent(connection, [found], now=moment) == 0
        (found,) = freshness(connection, window.ends_at + timedelta(hours=26, minutes=1))
        assert not found.is_fresh
        assert found.since == window.ends_at


def test_a_cancelled_freeze_gives_a_night_of_grace_too(database: Database, synced_before: Callable[[int], None]) -> None:
    """R14.2."""
    synced_before(3)
    window = freeze(database)
    with database.engine.begin() as connection:
        cancel_window(connection, window.window_id, by="Ann", reason=None, now=EVENING)
        assert freshness(connection, EVENING + timedelta(hours=26))[0].is_fresh
        assert not freshness(connection, EVENING + timedelta(hours=27))[0].is_fresh


def test_newer_data_of_the_night_is_not_pulled(database: Database, synced_before: Callable[[int], None]) -> None:
    """R14.2, R3.7: also after a sync during the freeze."""
    synced_before(0)
    with database.engine.begin() as connection:
        assert [each.clever_id for each in synced_this_night(connection, EVENING + timedelta(hours=1))] == ["d1"]
    freeze(database)
    with database.engine.begin() as connection:
        assert synced_this_night(connection, EVENING + timedelta(hours=1)) == []


def test_health_says_so_and_misses_no_night(database: Database, synced_before: Callable[[int], None]) -> None:
    """R14.2, R14.6: a freeze is information, and no fault."""
    synced_before(3)
    morning = EVENING + timedelta(hours=12)
    before = in_database(database, morning)
    assert (before["night 21:00"]["verdict"], before["freshness"]["verdict"], before["windows"]["says"]) == (
        "problem",
        "problem",
        "None is on.",
    )
    freeze(database)
    found = in_database(database, morning)
    assert {found[each]["verdict"] for each in ("night 21:00", "freshness", "windows")} == {"ok"}
    assert (found["night 21:00"]["numbers"]["due"], found["night 21:00"]["numbers"]["in_freeze"]) == (0, 1)
    assert found["windows"]["says"] == "On in 1 districts: d1 freeze through the night of 2026-11-21."
    assert found["windows"]["numbers"] == {"on": {"d1": {"window_id": 1, "kind": "freeze", "last_night": "2026-11-21"}}}
