"""One district in a process of its own (R11.2): whatever it does there ends with it, and `ops.syncs` says what became of it (R11.4)."""

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


def instead_of_planning(deed: Callable[..., NoReturn], settings: Settings, request: SyncRequest) -> Outcome:
    """In the child: a sync that does this once it has pulled."""
    pytest.MonkeyPatch().setattr(run, "make_plan", deed)  # Never undone: the process ends.
    return sync_here(settings, request)


def eats(settings: Settings, request: SyncRequest) -> Outcome:
    def deed(*_: object, **__: object) -> NoReturn:
        eaten = b"x" * 600 * 2**20
        while eaten:
            time.sleep(1)
        raise AssertionError

    return instead_of_planning(deed, settings, request)


def dies(settings: Settings, request: SyncRequest) -> Outcome:
    return instead_of_planning(lambda *_, **__: os._exit(9), settings, request)


def chokes(settings: Settings, request: SyncRequest) -> Outcome:
    def deed(*_: object, **__: object) -> NoReturn:
        raise KeyError(MARKER) from ValueError(MARKER)

    return instead_of_planning(deed, settings, request)


def test_a_child_syncs_as_its_parent_would(world: Scenario) -> None:
    """R11.5: the same report, the same rows; the process is gone."""
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
    """The row says that it took too long, at once; the digest of the night tells it; the next sync recovers."""
    clever.sandbox.misbehave("delay", "/v3.0/sections", seconds=600)

    def monotonic() -> float:
        """The real time; the limit later as soon as the sync has begun."""
        begun: int = world.value("select count(*) from ops.syncs where status = 'processing'")
        return time.monotonic() + begun * world.settings.roster_district_timeout_s

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


def test_a_sync_that_eats_memory_is_stopped(world: Scenario) -> None:
    """The machine's memory is everybody's; the row says why, and nothing of the sync was applied."""
    outcome = in_child(world, work=eats, roster_district_memory_mb=500)
    assert isinstance(outcome, Failure)
    assert "more than 500 MB" in outcome.reason
    assert not outcome.is_transient
    assert last_sync(world) == ("failed", outcome.reason)
    assert world.value("select count(*) from app.users") == 0


def test_a_sync_that_dies_is_marked(world: Scenario) -> None:
    """R11.4: as crashed, at once; worth another attempt."""
    assert in_child(world, work=dies) == Failure("failed", ledger.CRASHED, is_transient=True)
    assert last_sync(world) == ("failed", ledger.CRASHED)


def test_a_defect_tells_its_class_and_lines_only(world: Scenario, capfd: pytest.CaptureFixture[str]) -> None:
    """SPEC 12: an unexpected error may quote a value."""
    outcome = in_child(world, work=chokes)
    assert isinstance(outcome, Failure)
    assert outcome.reason.startswith("Internal error: KeyError (")
    assert "deed:" in outcome.reason
    assert last_sync(world) == ("failed", "Internal error: KeyError.")
    printed = capfd.readouterr()
    assert MARKER not in outcome.reason + printed.out + printed.err


def test_what_a_failed_sync_says_survives_the_way(world: Scenario, clever: SandboxServer) -> None:
    """Its reason, and whether trying again can help: not for a token that is gone, but for a Clever that is down."""
    world.settings = world.settings.model_copy(update={"clever_max_attempts": 1})
    clever.sandbox.misbehave("status", "/v3.0/schools", status=503)
    down = in_child(world)
    assert isinstance(down, Failure)
    assert (down.status, down.is_transient) == ("failed", True)
    clever.sandbox.behave()
    world.change.disconnect()
    gone = in_child(world)
    assert isinstance(gone, Failure)
    assert (gone.status, gone.is_transient) == ("failed", False)
    assert "no token" in gone.reason


def test_a_district_that_is_not_active_is_skipped(world: Scenario) -> None:
    """Paused since the schedule looked: no failure."""
    world.execute("update app.districts set status = 'paused'")
    outcome = in_child(world)
    assert isinstance(outcome, Failure)
    assert outcome.status == "skipped"


def test_a_district_that_is_being_synced(world: Scenario) -> None:
    """R11.2: no row, and worth another attempt later."""
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
    """Killed or interrupted: its children are gone soon; R11.4: the sync has rolled back, and its row is told from one that runs."""
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
    parent = subprocess.Popen([sys.executable, "-c", PARENT, DISTRICT], env=environment, stderr=subprocess.DEVNULL)
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
        until(lambda: mark_crashed_syncs(connection, now=world.clock()) == 1 or last_sync(world)[0] == "failed", seconds=WAIT_SECONDS)
    assert last_sync(world) in {("failed", "Interrupted."), ("failed", ledger.CRASHED)}
