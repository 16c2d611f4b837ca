"""Connections follow the full listings of tokens (R11.7), from the sensor and from every sync."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Connection, text

from roster_pipeline.connections.listings import Doubt, Reconciled, reconcile_connections
from roster_pipeline.database.engine import Database
from roster_pipeline.database.runner import Step
from roster_pipeline.districts.agreement import Agreement, record_agreement, set_status
from roster_pipeline.errors import PermanentError, TransientError
from roster_pipeline.sandbox import District, Sandbox, SandboxServer
from roster_pipeline.source.protocol import Listing
from roster_pipeline.sync.run import SyncRequest, run_sync
from roster_pipeline_tests.sync.scenario import DISTRICT, Scenario

NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)
A, B, C = "5f00000000000000000000aa", "5f00000000000000000000bb", "5f00000000000000000000cc"


class Listings:
    """Ingests listings, each a minute after the one before."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.now = NOW

    def ingest(self, *listed: str, age: float = 0, client: str = "ours", accepted_by: str | None = None, **more: Any) -> Reconciled:
        self.now += timedelta(minutes=1)
        listing = Listing(frozenset(listed), age, client, **more)
        return reconcile_connections(self.connection, listing, now=self.now, accepted_by=accepted_by)

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
    assert listings.ingest(B, A) == Reconciled([A, B], [], [], [])
    assert listings.rows("select clever_id, name, status, profile from app.districts order by clever_id") == [
        (A, A, "requested", None),
        (B, B, "requested", None),
    ]
    assert listings.alerts() == [("connected", A), ("connected", B)]
    assert listings.ingest(A, B) == Reconciled([], [], [], [])
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
    assert listings.ingest(A) == Reconciled([], [A], [], [])
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
    assert listings.ingest(B) == Reconciled([], [], [], [A])
    assert listings.statuses() == {A: "disconnected", B: "requested"}
    assert listings.ingest(B) == Reconciled([], [], [], [])
    assert listings.alerts()[before:] == [("disconnected", A)]


@pytest.mark.parametrize("status", ["active", "paused", "requested"])
def test_a_district_that_comes_back_has_the_status_that_it_had(listings: Listings, status: str) -> None:
    """R11.7: without anybody's help, with an alert each time."""
    if status != "requested":
        listings.add(A)
    listings.ingest(A)
    if status == "paused":
        set_status(listings.connection, A, "active", "paused")
    before = len(listings.alerts())
    for _ in range(2):
        assert listings.ingest() == Reconciled([], [], [], [A])
        assert listings.statuses() == {A: "disconnected"}
        back = listings.ingest(A)
        assert (back.requested, back.returned) == (([A], []) if status == "requested" else ([], [A]))
        assert listings.statuses() == {A: status}
    assert [kind for kind, _ in listings.alerts()][before:] == ["disconnected", "connected"] * 2


def test_an_agreement_with_a_disconnected_district(listings: Listings) -> None:
    """R11.7: it does not connect it. The district is active as soon as Clever lists it, also if it waited for an agreement before."""
    listings.ingest(A)
    listings.ingest()
    listings.add(A)
    assert listings.ingest() == Reconciled([], [], [], [A])
    assert listings.ingest(A) == Reconciled([], [], [A], [])
    assert listings.statuses() == {A: "active"}


@pytest.mark.parametrize(
    ("command", "says"), [(("paused", "active"), "only one that is paused"), (("active", "paused"), "only one that is")]
)
def test_pausing_and_resuming_a_disconnected_district(listings: Listings, command: tuple[str, str], says: str) -> None:
    """R11.7: nobody has to do anything but connect it."""
    listings.add(A)
    listings.ingest(A)
    listings.ingest()
    with pytest.raises(PermanentError, match=says) as refused:
        set_status(listings.connection, A, *command)
    assert "When it connects again, it has the status that it had" in refused.value.hint


def test_a_district_that_was_never_listed_is_left_unchanged(listings: Listings) -> None:
    """R11.7: its agreement may be recorded before it connects."""
    listings.add(A)
    assert listings.ingest(B) == Reconciled([B], [], [], [])
    assert listings.statuses()[A] == "active"


def test_an_older_listing_that_comes_late_changes_nothing(listings: Listings) -> None:
    """R11.7: it neither disconnects nor connects a district. Nor does a second one."""
    listings.ingest(A)
    before = listings.written()
    assert listings.ingest(B, age=600) == Reconciled()
    assert listings.ingest(B, age=120) == Reconciled()
    assert listings.written() == before


def test_two_listings_at_once(database: Database) -> None:
    """R11.7: they are ingested one after the other, and each change is reported once."""

    def ingest(number: int) -> Reconciled:
        with database.engine.connect() as opened:
            connection = opened.execution_options(isolation_level="AUTOCOMMIT")
            return reconcile_connections(connection, Listing(frozenset([A, B, C]), number % 3, "ours"), now=NOW)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(ingest, range(12)))
    assert sorted(each for one in results for each in one.requested) == [A, B, C]


# --- a listing that is not believed ---


def many(number: int, *, start: int = 0) -> list[str]:
    return [f"d{each:03}" for each in range(start, start + number)]


@pytest.mark.parametrize(
    ("connected", "lost", "believed"), [(2, 2, True), (3, 3, False), (20, 2, True), (20, 3, False), (30, 3, True), (30, 4, False)]
)
def test_how_many_may_disconnect_at_once(listings: Listings, connected: int, lost: int, believed: bool) -> None:
    """R11.7: at most the larger of 2 and 10 % of the connected districts. Those that have disconnected before do not count."""
    listings.ingest(*many(connected), "former")
    listings.ingest(*many(connected))
    before, alerts = listings.written(), len(listings.alerts())
    found = listings.ingest(*many(connected - lost, start=lost))
    if believed:
        assert found == Reconciled([], [], [], many(lost))
        return
    assert found.doubt == Doubt(many(lost), connected)
    assert (found.requested, found.returned, found.disconnected) == ((), (), ())
    assert listings.written()[: len(before)] != []
    assert set(listings.statuses().values()) == {"requested", "disconnected"}
    assert len(listings.alerts()) == alerts  # the alert is about no district


def test_a_doubtful_listing_changes_nothing_at_all(listings: Listings) -> None:
    """R11.7: neither does it connect the districts that are new in it. One alert for each set of missing districts."""
    for each in many(5):
        listings.add(each)
    listings.ingest(*many(5))
    tables = "select xmin::text, ctid::text from app.districts union all select xmin::text, ctid::text from ops.connections"
    before = sorted(listings.rows(tables))
    for _ in range(3):
        assert listings.ingest("new").doubt == Doubt(many(5), 5)
    assert listings.ingest(*many(1)).doubt == Doubt(many(4, start=1), 5)
    assert listings.ingest("new").doubt is not None
    assert sorted(listings.rows(tables)) == before
    doubts = listings.rows("select facts ->> 'missing', facts ->> 'connected', district_id from ops.alerts order by alert_id")
    assert doubts == [("5", "5", None), ("4", "5", None)]
    assert listings.ingest(*many(5)) == Reconciled([], [], [], [])
    assert listings.rows("select doubted_since, doubt from ops.token_listings") == [(None, None)]


def test_a_person_accepts_it(listings: Listings) -> None:
    """R11.7, R13.2: then it is applied, and `ops.audit` says who did. The next one is compared with it."""
    listings.ingest(*many(5))
    assert listings.ingest("new").doubt is not None
    assert listings.ingest("new", accepted_by="Ada") == Reconciled(["new"], [], [], many(5))
    ((act, given_name, facts),) = listings.rows("select act, given_name, facts from ops.audit")
    assert (act, given_name, facts["connected"], facts["disconnected"]) == ("accept_connections", "Ada", 1, many(5))
    assert listings.ingest("new") == Reconciled([], [], [], [])


def test_another_application_is_refused(listings: Listings) -> None:
    """R11.7: its list is complete and right, but of other districts. It is refused whatever it contains, until it is accepted."""
    listings.ingest(A, B)
    before = listings.statuses()
    for listed in ((C,), (A, B), (A, B, C), ()):
        found = listings.ingest(*listed, client="other")
        assert found.doubt is not None
        assert found.doubt.is_other_client
    assert listings.statuses() == before
    assert listings.rows("select kind, facts ->> 'connected' from ops.alerts where kind = 'connections_doubtful'") == [
        ("connections_doubtful", "2")
    ]
    assert listings.ingest(A, B) == Reconciled([], [], [], [])
    assert listings.ingest(C, client="other", accepted_by="Ada") == Reconciled([C], [], [], [A, B])
    assert listings.ingest(C, client="other").doubt is None
    assert listings.ingest(A, B).doubt is not None


def test_the_client_id_is_not_stored(world: Scenario) -> None:
    """R11.7: only its hash, and never the secret."""
    world.sync()
    ((stored,),) = world.rows("select client from ops.token_listings")
    assert stored == sha256(b"sandbox").hexdigest()


def test_a_time_in_the_future_does_not_blind(listings: Listings) -> None:
    """R11.6: a listing whose time is years ahead is replaced by the next one."""
    listings.ingest(A)
    listings.rows("update ops.token_listings set began_at = now() + interval '400 days' returning 1")
    assert listings.ingest(A, B) == Reconciled([B], [], [], [])
    assert listings.rows("select began_at from ops.token_listings") == [(listings.now,)]


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
    assert len(kinds(world)) == 2


def test_a_doubtful_listing_fails_the_syncs_of_the_districts_that_it_lacks(world: Scenario, sandbox: Sandbox) -> None:
    """R11.7: with a reason of its own. The district stays active, and its sync works as soon as the list is right."""
    for each in ("first", "second", "third", "fourth"):
        sandbox.add(District({"id": each, "name": each}))
    world.sync()
    for each in ("first", "second", "third"):
        sandbox.change(each).disconnect()
    assert world.sync().status == "successful"  # It is not one of the missing ones.
    world.change.disconnect()
    with pytest.raises(TransientError, match="lacks 4 of 5, so it is not believed") as refused:
        world.sync()
    assert "roster connections accept" in refused.value.hint
    with pytest.raises(TransientError, match="lacks 4 of 5"):
        world.plan()
    assert set(statuses(world).values()) == {"active", "requested"}
    assert kinds(world)[4:] == ["connections_doubtful", "connections_doubtful", "sync_failed"]


def test_a_sync_with_the_client_id_of_another_application(world: Scenario) -> None:
    """R11.7: fails before it pulls anything, also a dry run."""
    world.sync()
    world.execute("update ops.token_listings set client = 'another'")
    for sync in (world.sync, world.plan):
        with pytest.raises(PermanentError, match="CLEVER_CLIENT_ID is not that"):
            sync()
    assert statuses(world) == {DISTRICT: "active"}


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
