"""A thousand requests at once, while the sensor starts runs for them and syncs are running (R11.2-R11.4).

The test replaces the daemon's loop and its run processes by a loop and threads. Everything else is real: the requests, each sender on its
own connection, the sensor, Dagster's storage, the syncs, PostgreSQL and HTTP.
"""

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from threading import Event, Lock
from typing import Any, NamedTuple
from uuid import uuid4

import dagster as dg
import psycopg
import pytest
import sqlalchemy as sa

from benchmarks import fleet
from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.defs.requests import requests
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.tags import origin_of
from roster_pipeline.errors import SyncRunningError
from roster_pipeline.fleet.requests import request_sync
from roster_pipeline.sandbox import Sandbox
from roster_pipeline.settings import settings
from roster_pipeline.sync.ledger import ANSWERED_BY, Origin, RequestEndedError
from roster_pipeline.sync.run import SyncReport, SyncRequest, run_sync
from roster_pipeline_tests.conftest import _libpq_url
from roster_pipeline_tests.defs.conftest import environment, instance

__all__ = ["environment", "instance"]

REQUESTS, SENDERS = 1_000, 16
DISTRICTS, STUDENTS = 20, 8
# As many runs at once as dagster.yaml allows.
SLOTS = 3
TICK_SECONDS = 0.1
GIVE_UP_SECONDS = 300

# The insert by which the application requests a sync (docs/application.md).
PLAIN = "insert into ops.syncs (district_id, requested_by) values (%s, 'application')"
# With these indexes the database refuses two rows at once.
NEVER_TWO = (
    "create unique index on ops.syncs (district_id) where status = 'processing'",
    "create unique index on ops.syncs (district_id) where status = 'queued' and requested_by = 'support'",
)


class Request(NamedTuple):
    """A request to send: as a plain row, or by the function of `roster request`."""

    district_id: int
    is_plain: bool


class Answer(NamedTuple):
    """The answer of the function: this sync is queued (`new`), was queued already (`waits`), or is running (`runs`)."""

    district_id: int
    sync_id: int | None
    how: str
    requested_at: datetime


class Row(NamedTuple):
    """A row of ops.syncs."""

    sync_id: int
    district_id: int
    status: str
    requested_at: datetime
    snapshot_at: datetime | None
    message: str


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(rate_limit=None)


def test_a_thousand_requests_at_once(environment: None, instance: dg.DagsterInstance, database: Database, sandbox: Sandbox) -> None:
    """R11.2, R11.3, R11.4: no request is lost, no district has two syncs at a time, and every answer names the right sync."""
    clever_ids = fleet.sign_up(database, sandbox, [STUDENTS] * DISTRICTS)
    instance.add_dynamic_partitions("districts", clever_ids)
    for statement in NEVER_TWO:
        rows(database, statement)
    half_is_sent = Event()
    with ThreadPoolExecutor(SLOTS) as slots, ThreadPoolExecutor(SENDERS) as senders:
        daemon = Daemon(instance, slots, on_step=lambda _: half_is_sent.wait(GIVE_UP_SECONDS))
        try:
            # The first runs stop in the middle of their pull until half of the requests are sent. The other half comes while some districts
            # are queued, some are running and some have ended.
            answers = [request(database, district_id) for district_id in range(1, SLOTS + 1)]
            daemon.tick_until(lambda: statuses(database) == {"processing": SLOTS})
            for half in halves():
                sending = [senders.submit(send, half[number::SENDERS]) for number in range(SENDERS)]
                daemon.tick_until(partial(all_done, sending))
                answers += [answer for sender in sending for answer in sender.result()]
                half_is_sent.set()
                daemon.tick_until(lambda: statuses(database)["successful"] >= DISTRICTS // 2)
            daemon.tick_until(lambda: not statuses(database).keys() & {"queued", "processing"})
        finally:
            half_is_sent.set()

    syncs = {each[0]: Row(*each) for each in rows(database, f"select {', '.join(Row._fields)} from ops.syncs")}
    hows = Counter(each.how for each in answers)
    assert hows.keys() == {"new", "waits", "runs"}
    assert len(syncs) == hows["new"] + sum(each.is_plain for half in halves() for each in half)
    assert {each.sync_id for each in daemon.reports()} == {sync_id for sync_id, row in syncs.items() if row.status == "successful"}
    for row in syncs.values():
        # The sync that answers a request begins its pull after the request.
        assert read_at(row, syncs) >= row.requested_at
    for each in answers:
        assert each.sync_id is not None
        assert syncs[each.sync_id].district_id == each.district_id
        if each.how == "runs":
            assert syncs[each.sync_id].status == "successful"
        else:
            assert read_at(syncs[each.sync_id], syncs) >= each.requested_at
    assert fleet.wrong_syncs(fleet.recorded_syncs(database)) == []
    assert fleet.up_to_date(database) == clever_ids
    assert fleet.differences_from_model(database, sandbox, datetime.now(UTC)) == []
    assert rows(database, "select event from ops.alerts where kind in ('sync_failed', 'run_failed')") == []


def halves() -> list[list[Request]]:
    """Twice 500 requests, in random order. In every other district, two of three come from the application."""
    half = [Request(number % DISTRICTS + 1, number % 2 > 0 and number % 3 > 0) for number in range(REQUESTS // 2)]
    draw = random.Random(4)
    return [draw.sample(half, len(half)) for _ in range(2)]


def send(to_send: Iterable[Request]) -> list[Answer]:
    """One sender: sends its requests one after the other, and returns the answers."""
    with RosterDatabase().open() as database, psycopg.connect(_libpq_url(database.url), autocommit=True) as application:
        answers = []
        for each in to_send:
            if each.is_plain:
                application.execute(PLAIN, [each.district_id])
            else:
                answers.append(request(database, each.district_id))
    return answers


def request(database: Database, district_id: int) -> Answer:
    """Requests a sync, as `roster request` does."""
    now = datetime.now(UTC)
    try:
        with translate_database_errors(), database.engine.begin() as connection:
            queued, already = request_sync(connection, str(district_id), Origin(requested_by="support"), now=now)
    except SyncRunningError as running:
        return Answer(district_id, running.running_sync_id, "runs", now)
    return Answer(district_id, queued.sync_id, "waits" if already else "new", now)


class Daemon:
    """Ticks of the sensor, and their runs, with the limits of dagster.yaml: one run per key, SLOTS at a time, one per district."""

    def __init__(self, dagster: dg.DagsterInstance, slots: ThreadPoolExecutor, *, on_step: Callable[[Any], Any]) -> None:
        self._runs: dict[str, Future[SyncReport | None]] = {}
        self._turns: defaultdict[str, Lock] = defaultdict(Lock)
        self._dagster = dagster
        self._slots = slots
        self._on_step = on_step

    def tick_until(self, holds: Callable[[], bool]) -> None:
        """Ticks until the function returns true. Fails if a run fails."""
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while not holds():
            assert time.monotonic() < give_up, "it did not happen"
            self._tick()
            self.reports()
            time.sleep(TICK_SECONDS)

    def reports(self) -> list[SyncReport]:
        """The reports of the syncs that have ended. Raises the error of a run that failed."""
        ended = [run.result() for run in self._runs.values() if run.done()]
        return [report for report in ended if report is not None]

    def _tick(self) -> None:
        with dg.build_sensor_context(instance=self._dagster, resources={"roster_database": RosterDatabase()}) as context:
            result: Any = requests(context)
        for each in result.run_requests or [] if isinstance(result, dg.SensorResult) else []:
            if (key := str(each.run_key)) not in self._runs:
                district = str(each.partition_key)
                tags = {**each.tags, "dagster/partition": district}
                run = self._dagster.add_run(dg.DagsterRun("sync_district", str(uuid4()), status=dg.DagsterRunStatus.STARTED, tags=tags))
                self._runs[key] = self._slots.submit(self._run, run, district, self._turns[district])

    def _run(self, run: dg.DagsterRun, district: str, turn: Lock) -> SyncReport | None:
        """Syncs a district, as the run's asset does. No report if another sync has answered the request meanwhile."""
        with turn, RosterDatabase().open() as database:
            try:
                return run_sync(database, settings(), SyncRequest(district, origin_of(run)), on_step=self._on_step)
            except RequestEndedError:
                return None


def read_at(row: Row, syncs: dict[int, Row]) -> datetime:
    """When the pull began of the sync that a request became, or that answered it."""
    answer = row
    if row.status == "skipped":
        assert row.message.startswith(f"{ANSWERED_BY} ")
        answer = syncs[int(row.message.removeprefix(f"{ANSWERED_BY} ").removesuffix("."))]
    assert (answer.status, answer.district_id) == ("successful", row.district_id)
    assert answer.snapshot_at is not None
    return answer.snapshot_at


def all_done(sending: list[Future[list[Answer]]]) -> bool:
    return all(each.done() for each in sending)


def statuses(database: Database) -> Counter[str]:
    return Counter(status for (status,) in rows(database, "select status from ops.syncs"))


def rows(database: Database, statement: str) -> list[tuple[Any, ...]]:
    with database.engine.begin() as connection:
        result = connection.execute(sa.text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []
