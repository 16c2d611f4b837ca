"""Connections follow the full listings of tokens (R11.7), from the sensor and from every sync."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Connection, text

from roster_pipeline.database.engine import Database
from roster_pipeline.database.runner import Step
from roster_pipeline.districts.agreement import Agreement, record_agreement, set_status
from roster_pipeline.errors import PermanentError, TransientError
from roster_pipeline.sandbox import District, Sandbox, SandboxServer
from roster_pipeline.sync.connections import Reconciled, reconcile_connections
from roster_pipeline.sync.run import SyncRequest, run_sync
from roster_pipeline_tests.sync.scenario import DISTRICT, Scenario

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
A, B, C = "5f00000000000000000000aa", "5f00000000000000000000bb", "5f00000000000000000000cc"


class Listings:
    """Ingests listings, each a minute after the one before."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.now = NOW

    def ingest(self, *listed: str, began: timedelta = timedelta()) -> Reconciled:
        self.now += timedelta(minutes=1)
        return reconcile_connections(self.connection, listed, began_at=self.now + began, now=self.now)

    def rows(self, query: str) -> list[Any]:
        return [tuple(row) for row in self.connection.execute(text(query))]

    def statuses(self) -> dict[str, str]:
        return dict(self.rows("select clever_id, status from app.districts"))

    def alerts(self) -> list[Any]:
        return self.rows("select a.kind, d.clever_id from ops.alerts a join app.districts d using (district_id) order by a.alert_id")

    def written(self) -> list[Any]:
        """Every row's version."""
        tables = ("app.districts", "ops.connections", "ops.alerts")
        return [row for table in tables for row in self.rows(f"select '{table}', xmin::text, ctid::text from {table} order by 2, 3")]

    def add(self, clever_id: str) -> None:
        record_agreement(self.connection, Agreement(clever_id, "Name", "typing_agent", "test.example"))


@pytest.fixture
def listings(database: Database) -> Iterator[Listings]:
    with database.engine.connect() as opened:
        yield Listings(opened.execution_options(isolation_level="AUTOCOMMIT"))


def test_a_new_token_is_a_district_that_waits_for_its_agreement(listings: Listings) -> None:
    """R11.7, R11.8: status `requested`, its id as its name, and one alert."""
    assert listings.ingest(B, A) == ([A, B], [], [])
    assert listings.rows("select clever_id, name, status, profile from app.districts order by clever_id") == [
        (A, A, "requested", None),
        (B, B, "requested", None),
    ]
    assert listings.alerts() == [("connected", A), ("connected", B)]
    assert listings.ingest(A, B) == ([], [], [])
    assert len(listings.alerts()) == 2


def test_a_listing_without_changes_writes_nothing(listings: Listings) -> None:
    """R11.7: it writes only when the listing began."""
    listings.ingest(A, B)
    listings.ingest(A)
    before = listings.written()
    listings.ingest(A)
    assert listings.written() == before
    assert listings.rows("select began_at from ops.token_listings") == [(listings.now,)]


@pytest.mark.parametrize("status", ["active", "paused"])
def test_a_district_with_an_agreement_keeps_its_status(listings: Listings, status: str) -> None:
    """R11.7: its token is recorded, without an alert."""
    listings.add(A)
    if status == "paused":
        set_status(listings.connection, A, "active", "paused")
    assert listings.ingest(A) == ([], [A], [])
    assert listings.statuses() == {A: status}
    assert listings.alerts() == []
    assert listings.rows("select clever_id, disconnected_at from ops.connections") == [(A, None)]


@pytest.mark.parametrize("status", ["active", "paused", "requested"])
def test_a_removed_token_disconnects(listings: Listings, status: str) -> None:
    """R11.7, R11.8: one alert, whatever the status was."""
    if status != "requested":
        listings.add(A)
    listings.ingest(A, B)
    if status == "paused":
        set_status(listings.connection, A, "active", "paused")
    before = len(listings.alerts())
    assert listings.ingest(B) == ([], [], [A])
    assert listings.statuses() == {A: "disconnected", B: "requested"}
    assert listings.ingest(B) == ([], [], [])
    assert listings.alerts()[before:] == [("disconnected", A)]


def test_a_district_that_comes_back_waits_for_its_agreement_again(listings: Listings) -> None:
    """R11.7: with an alert each time."""
    listings.add(A)
    for _ in range(2):
        listings.ingest(A)
        assert listings.ingest() == ([], [], [A])
        assert listings.ingest(A) == ([A], [], [])
        assert listings.statuses() == {A: "requested"}
        listings.add(A)
        assert listings.ingest(A) == ([], [], [])
        assert listings.statuses() == {A: "active"}
    assert [kind for kind, _ in listings.alerts()] == ["disconnected", "connected"] * 2


def test_a_district_that_was_never_listed_is_left_unchanged(listings: Listings) -> None:
    """R11.7: its agreement may be recorded before it connects."""
    listings.add(A)
    assert listings.ingest(B) == ([B], [], [])
    assert listings.statuses()[A] == "active"


def test_an_older_listing_that_comes_late_changes_nothing(listings: Listings) -> None:
    """R11.7: it neither disconnects nor connects a district. Nor does a second one."""
    listings.ingest(A)
    before = listings.written()
    assert listings.ingest(B, began=timedelta(minutes=-10)) == ([], [], [])
    assert listings.ingest(B, began=timedelta(minutes=-2)) == ([], [], [])
    assert listings.written() == before


def test_two_listings_at_once(database: Database) -> None:
    """R11.7: they are ingested one after the other, and each change is reported once."""

    def ingest(number: int) -> Reconciled:
        with database.engine.connect() as opened:
            connection = opened.execution_options(isolation_level="AUTOCOMMIT")
            return reconcile_connections(connection, [A, B, C], began_at=NOW + timedelta(seconds=number % 3), now=NOW)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(ingest, range(12)))
    assert sorted(each for one in results for each in one.requested) == [A, B, C]


# --- in a sync ---


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(District({"id": DISTRICT, "name": "#DEMO Test"}))


@pytest.fixture
def world(database: Database, sandbox: Sandbox) -> Iterator[Scenario]:
    with SandboxServer(sandbox) as server:
        world = Scenario(database, server, "typing_agent")
        world.students(world.school("a"), 3)
        yield world


def statuses(world: Scenario) -> dict[str, str]:
    return dict(world.rows("select clever_id, status from app.districts"))


def kinds(world: Scenario) -> list[str]:
    return [kind for (kind,) in world.rows("select kind from ops.alerts order by alert_id")]


def test_a_sync_disconnects_a_district_without_a_token(world: Scenario) -> None:
    """R11.7: the sync fails with this reason, and nobody is deactivated."""
    world.sync()
    users = world.rows("select * from app.users order by user_id")
    world.change.disconnect()
    with pytest.raises(PermanentError, match="There is no token"):
        world.sync()
    assert statuses(world) == {DISTRICT: "disconnected"}
    assert world.rows("select status from ops.syncs order by sync_id") == [("successful",), ("failed",)]
    assert kinds(world) == ["disconnected", "sync_failed"]
    assert world.rows("select * from app.users order by user_id") == users
    with pytest.raises(PermanentError, match="The district is disconnected"):
        world.sync()


def test_the_token_is_removed_during_a_pull(world: Scenario) -> None:
    """R3.1, R11.7: the listing after a 401 is a full one too."""
    with pytest.raises(PermanentError, match="There is no token"):
        run_sync(world.database, world.settings, SyncRequest(DISTRICT), on_step=lambda _: world.change.disconnect())
    assert statuses(world) == {DISTRICT: "disconnected"}
    assert world.rows("select status from ops.syncs") == [("failed",)]


def test_a_sync_reports_new_connections_of_other_districts(world: Scenario, sandbox: Sandbox) -> None:
    """R11.7: also if only its second listing has them, made because its own token was rotated."""
    sandbox.add(District({"id": A, "name": "First"}))
    steps = count()

    def rotate(_: Step) -> None:
        if not next(steps):
            sandbox.add(District({"id": B, "name": "Second"}))
            world.change.rotate_token()

    run_sync(world.database, world.settings, SyncRequest(DISTRICT), on_step=rotate)
    assert statuses(world) == {DISTRICT: "active", A: "requested", B: "requested"}
    assert kinds(world) == ["connected", "connected"]


def test_a_sync_that_cannot_list_changes_no_connection(world: Scenario, sandbox: Sandbox) -> None:
    """R11.7: "could not read" is never "removed"."""
    world.sync()
    before = world.rows("select * from ops.token_listings"), world.rows("select * from ops.connections")
    world.settings = world.settings.model_copy(update={"clever_max_attempts": 1})
    for kind in ("status", "html", "truncated", "without_data"):
        sandbox.misbehave(kind, "/oauth/tokens")
        with pytest.raises(TransientError):
            world.sync()
        sandbox.behave()
    assert (world.rows("select * from ops.token_listings"), world.rows("select * from ops.connections")) == before
    assert statuses(world) == {DISTRICT: "active"}


def test_a_dry_run_changes_no_connection(world: Scenario) -> None:
    """R11.7: `roster plan` writes nothing at all."""
    world.plan()
    assert world.value("select (select count(*) from ops.token_listings) + (select count(*) from ops.connections)") == 0


def test_the_snapshot_is_as_old_as_its_first_page(world: Scenario) -> None:
    """R3.7: data that Clever loads during the pull is newer than the snapshot, so the earlier last_sync is stored."""
    world.change.set_district(last_sync="2026-11-20T20:00:00.000Z")
    run_sync(
        world.database,
        world.settings,
        SyncRequest(DISTRICT),
        on_step=lambda _: world.change.set_district(last_sync="2026-11-20T21:00:00.000Z"),
    )
    assert world.value("select last_sync from staging.districts") == datetime(2026, 11, 20, 20, tzinfo=UTC)
    assert world.rows("select counts ->> 'last_sync', counts ->> 'moved_during_pull' from ops.syncs") == [
        ("2026-11-20T20:00:00.000Z", "true")
    ]
