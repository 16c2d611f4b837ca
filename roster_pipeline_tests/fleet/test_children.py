"""Syncing a district in a child process (R11.2): no failure leaves the child, and `ops.syncs` says how the sync ended (R11.4)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NoReturn

import psutil
import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.fleet import children
from roster_pipeline.fleet.children import Failure, Outcome, Work, sync_here, sync_in_child
from roster_pipeline.fleet.recovery import mark_crashed_syncs
from roster_pipeline.sandbox import District, Sandbox, SandboxServer
from roster_pipeline.settings import Settings
from roster_pipeline.sync import ledger, run
from roster_pipeline.sync.ledger import Origin
from roster_pipeline.sync.run import SyncReport, SyncRequest
from roster_pipeline_tests.sync.scenario import DISTRICT, Scenario
from roster_pipeline_tests.until import until

MARKER = "Zzyzxmarker"
NIGHT = Origin(trigger="scheduled", requested_role=None, dagster_run_id="run-1")
WAIT_SECONDS = 120


@pytest.fixture
def clever() -> Iterator[SandboxServer]:
    """A Clever with one empty district."""
    record = {"id": DISTRICT, "name": "#DEMO Test", "sis_type": "sftp", "portal_url": "", "login_methods": [], "launch_date": "2025-01-01"}
    with SandboxServer(Sandbox(District(record))) as server:
        yield server


@pytest.fixture
def world(database: Database, clever: SandboxServer) -> Scenario:
    """A district with three students."""
    world = Scenario(database, clever, "typing_agent")
    world.students(world.school("A"), 3)
    return world


def in_child(world: Scenario, *, work: Work = sync_here, **limits: Any) -> Outcome:
    settings = world.settings.model_copy(update=limits)
    return sync_in_child(world.database, settings, SyncRequest(DISTRICT, NIGHT), work=work)


def last_sync(world: Scenario) -> tuple[str, str]:
    """Status and message of the only sync."""
    ((status, message),) = world.rows("select status, message from ops.syncs")
    return status, message


def instead_of_planning(action: Callable[..., NoReturn], settings: Settings, request: SyncRequest) -> Outcome:
    """Runs in the child: a sync that pulls, and then does this."""
    pytest.MonkeyPatch().setattr(run, "make_plan", action)  # Never undone, because the process ends.
    return sync_here(settings, request)


def use_too_much_memory(settings: Settings, request: SyncRequest) -> Outcome:
    def action(*_: object, **__: object) -> NoReturn:
        memory = b"x" * 600 * 2**20
        while memory:
            time.sleep(1)
        raise AssertionError

    return instead_of_planning(action, settings, request)


def die(settings: Settings, request: SyncRequest) -> Outcome:
    return instead_of_planning(lambda *_, **__: os._exit(9), settings, request)


def raise_marker(settings: Settings, request: SyncRequest) -> Outcome:
    def action(*_: object, **__: object) -> NoReturn:
        raise KeyError(MARKER) from ValueError(MARKER)

    return instead_of_planning(action, settings, request)


def test_a_child_syncs_like_its_parent(world: Scenario) -> None:
    """R11.5: the child returns the report, and writes the same rows."""
    outcome = in_child(world)
    assert isinstance(outcome, SyncReport)
    assert (outcome.status, outcome.counts["changes"]["users"]) == ("successful", {"create": 3})
    assert outcome.steps
    assert world.rows("select sync_id, status, dagster_run_id, requested_role from ops.syncs") == [
        (outcome.sync_id, "successful", "run-1", None)
    ]
    assert len(world.active()) == 3
    again = in_child(world)
    assert isinstance(again, SyncReport)
    assert not again.counts["changes"]


def test_a_sync_that_hangs_is_stopped(world: Scenario, clever: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row says that it took too long. The alert waits for the digest of the night. The next sync succeeds."""
    clever.sandbox.misbehave("delay", "/v3.0/sections", seconds=600)

    def monotonic() -> float:
        """The real time, plus the time limit as soon as the sync has started."""
        started: int = world.value("select count(*) from ops.syncs where status = 'processing'")
        return time.monotonic() + started * world.settings.roster_district_timeout_s

    with monkeypatch.context() as patch:
        patch.setattr(children, "time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))
        outcome = in_child(world)
    assert isinstance(outcome, Failure)
    assert (outcome.status, outcome.is_transient) == ("failed", False)
    assert "took longer than 3,600 s" in outcome.reason
    assert last_sync(world) == ("failed", outcome.reason)
    assert world.rows("select kind, is_urgent from ops.alerts") == [("sync_failed", False)]
    assert world.value("select count(*) from app.users") == 0
    clever.sandbox.behave()
    assert isinstance(in_child(world), SyncReport)
    assert len(world.active()) == 3


def test_a_sync_that_needs_too_much_memory_is_stopped(world: Scenario) -> None:
    """Other processes need the machine's memory too. The row says why the sync was stopped, and nothing of it was applied."""
    outcome = in_child(world, work=use_too_much_memory, roster_district_memory_mb=500)
    assert isinstance(outcome, Failure)
    assert "more than 500 MB" in outcome.reason
    assert not outcome.is_transient
    assert last_sync(world) == ("failed", outcome.reason)
    assert world.value("select count(*) from app.users") == 0


def test_a_sync_that_dies_is_marked(world: Scenario) -> None:
    """R11.4: as crashed, at once. It is worth another attempt."""
    assert in_child(world, work=die) == Failure("failed", ledger.CRASHED, is_transient=True)
    assert last_sync(world) == ("failed", ledger.CRASHED)


def test_an_unexpected_error_is_reported_by_class_and_lines_only(world: Scenario, capfd: pytest.CaptureFixture[str]) -> None:
    """SPEC 12: its text may quote a value."""
    outcome = in_child(world, work=raise_marker)
    assert isinstance(outcome, Failure)
    assert outcome.reason.startswith("Internal error: KeyError (")
    assert "action test_children.py:" in outcome.reason
    assert last_sync(world) == ("failed", "Internal error: KeyError.")
    printed = capfd.readouterr()
    assert MARKER not in outcome.reason + printed.out + printed.err


def test_the_child_reports_why_a_sync_failed(world: Scenario, clever: SandboxServer) -> None:
    """The reason, and whether trying again can help: it can if Clever is down, but not if the district has no token."""
    world.settings = world.settings.model_copy(update={"clever_max_attempts": 1})
    clever.sandbox.misbehave("status", "/v3.0/schools", status=503)
    down = in_child(world)
    assert isinstance(down, Failure)
    assert (down.status, down.is_transient) == ("failed", True)
    clever.sandbox.behave()
    world.change.disconnect()
    disconnected = in_child(world)
    assert isinstance(disconnected, Failure)
    assert (disconnected.status, disconnected.is_transient) == ("failed", False)
    assert "no token" in disconnected.reason


def test_a_district_that_is_not_active_is_skipped(world: Scenario) -> None:
    """It was paused after the schedule started the run: that is no failure."""
    world.execute("update app.districts set status = 'paused'")
    outcome = in_child(world)
    assert isinstance(outcome, Failure)
    assert outcome.status == "skipped"


def test_a_request_that_has_been_answered_is_skipped(world: Scenario) -> None:
    """R11.4: another sync answered it before the child began."""
    world.execute("insert into ops.syncs (district_id, status, finished_at, message) values (1, 'skipped', now(), 'Answered by sync 2.')")
    outcome = sync_in_child(world.database, world.settings, SyncRequest(DISTRICT, Origin(sync_id=1, dagster_run_id="run-1")))
    assert outcome == Failure("skipped", "Request 1 has ended already (skipped). Answered by sync 2.")
    assert last_sync(world) == ("skipped", "Answered by sync 2.")


def test_a_district_that_is_being_synced(world: Scenario) -> None:
    """R11.2: there is no row, and another attempt is worth it later."""
    district_id = world.value("select district_id from app.districts")
    with world.database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        with district_lock(connection, district_id, DISTRICT):
            outcome = in_child(world)
    assert isinstance(outcome, Failure)
    assert (outcome.status, outcome.is_transient) == ("running", True)
    assert world.rows("select * from ops.syncs") == []


PARENT = """
import sys
from roster_pipeline.database.engine import open_database
from roster_pipeline.settings import settings
from roster_pipeline.fleet.children import sync_in_child
from roster_pipeline.sync.run import SyncRequest
with open_database(settings()) as database:
    sync_in_child(database, settings(), SyncRequest(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_child_outlives_its_parent(world: Scenario, clever: SandboxServer, number: signal.Signals) -> None:
    """When the parent is killed or interrupted, its children end soon. R11.4: the sync rolls back, and its row reads as failed."""
    clever.sandbox.misbehave("delay", "/v3.0/sections", seconds=600)
    environment = {
        "PATH": os.environ["PATH"],
        "ROSTER_HOME": "/nonexistent",
        "ROSTER_DATABASE_URL": world.database.url.render_as_string(hide_password=False),
        "CLEVER_API_URL": world.settings.clever_api_url,
        "CLEVER_AUTH_URL": world.settings.clever_auth_url,
        "CLEVER_CLIENT_ID": "sandbox",
        "CLEVER_CLIENT_SECRET": "sandbox-secret",
    }
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, DISTRICT],
        env=environment,
        stderr=subprocess.DEVNULL,
        # If a shell runs the tests in the background, they ignore Ctrl-C, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        until(lambda: world.value("select count(*) from ops.syncs where status = 'processing'") == 1, seconds=WAIT_SECONDS)
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) >= 2  # the fork server and the sync
        parent.send_signal(number)
        parent.wait(WAIT_SECONDS)
        _, alive = psutil.wait_procs(family, timeout=WAIT_SECONDS)
        assert alive == []
    finally:
        parent.kill()
        parent.wait()
    with world.database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        until(
            lambda: mark_crashed_syncs(connection, now=world.clock(connection)) == 1 or last_sync(world)[0] == "failed",
            seconds=WAIT_SECONDS,
        )
    assert last_sync(world) in {("failed", "Interrupted."), ("failed", ledger.CRASHED)}
