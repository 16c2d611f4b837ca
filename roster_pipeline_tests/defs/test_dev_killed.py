"""`roster dev` when its web server or its daemon is killed while a sync runs (R11.4, R11.5)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from benchmarks import fleet
from roster_pipeline.database.engine import Database
from roster_pipeline.fleet.requests import request_sync
from roster_pipeline.sandbox import Sandbox
from roster_pipeline.settings import settings
from roster_pipeline.sync.ledger import Origin
from roster_pipeline.sync.run import SyncRequest, run_sync
from roster_pipeline_tests.alive import alive, running
from roster_pipeline_tests.defs.test_dev import free_port
from roster_pipeline_tests.until import until

DEADLINE_S = 180


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(rate_limit=None)


@pytest.fixture
def clever_id(sandbox: Sandbox, database: Database) -> str:
    (signed_up,) = fleet.sign_up(database, sandbox, [60])
    return signed_up


@contextmanager
def roster_dev(database: Database, directory: Path) -> Iterator[tuple[psutil.Popen, Path]]:
    """The process of `roster dev` while the block runs, and the file of its output. Dagster's database is dropped afterwards."""
    command = [sys.executable, "-m", "roster_pipeline.cli", "dev", "--port", str(free_port())]
    own = {name: value for name, value in os.environ.items() if name not in ("DAGSTER_HOME", "ROSTER_DAGSTER_URL")}
    output = directory / "output"
    with output.open("wb") as sink:
        dev = psutil.Popen(command, cwd=directory, env=own, stdout=sink, stderr=subprocess.STDOUT)
    try:
        yield dev, output
    finally:
        if dev.poll() is None:
            dev.terminate()
            dev.wait(DEADLINE_S)
        url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as connection:
            name = sql.Identifier(str(database.dagster_url.database))
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(name))


@pytest.mark.parametrize(("argument", "name"), [("--writable", "dagster-webserver"), ("daemon", "dagster-daemon")])
def test_killed_while_a_sync_runs(
    argument: str,
    name: str,
    environment: None,
    database: Database,
    sandbox: Sandbox,
    clever_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R11.4, R11.5: all processes end, with exit status 1 and a reason. The sync reads as failed and has applied nothing, and the next one
    succeeds."""
    # A pull that takes two minutes, without any error.
    monkeypatch.setenv("CLEVER_PAGE_LIMIT", "1")
    sandbox.misbehave("delay", "/v3.0/users", seconds=2)
    with database.engine.begin() as connection:
        request_sync(connection, clever_id, Origin(requested_by="support"), now=datetime.now(UTC))
    with roster_dev(database, tmp_path) as (dev, output):
        until(lambda: "Dagster's UI" in output.read_text() and any("/v3.0/users" in each.uri for each in sandbox.seen), seconds=DEADLINE_S)
        assert rows(database, "select status from ops.recent_syncs") == [("processing",)]
        started = dev.children(recursive=True)
        (process,) = running(argument, started)
        process.kill()
        assert dev.wait(DEADLINE_S) == 1, output.read_text()
        assert alive(started) == []
        said = output.read_text()
    assert f"{name} process shut down unexpectedly" in said
    assert "Error: Dagster ended by itself" in said
    assert rows(database, "select status from ops.recent_syncs") == [("failed",)]
    for table in ("app.users", "app.classrooms", "staging.districts", "ops.changes"):
        assert rows(database, f"select count(*) from {table}") == [(0,)]

    sandbox.behave()
    monkeypatch.setenv("CLEVER_PAGE_LIMIT", "100")
    settings.cache_clear()
    run_sync(database, settings(), SyncRequest(clever_id))
    assert rows(database, "select status from ops.syncs order by sync_id") == [("failed",), ("successful",)]
    assert fleet.differences_from_model(database, sandbox, datetime.now(UTC)) == []
    assert rows(database, "select event from ops.alerts where kind = 'sync_failed'") == [("sync_failed:1",)]


def test_its_own_kill_leaves_nothing_running(environment: None, database: Database, clever_id: str, tmp_path: Path) -> None:
    """R11.2: a second daemon would start everything twice, so the processes of a killed `roster dev` end by themselves."""
    with roster_dev(database, tmp_path) as (dev, output):
        until(lambda: "Dagster's UI" in output.read_text(), seconds=DEADLINE_S)
        second = subprocess.run(dev.args, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert "cannot be used" in second.stderr
        *command, _ = dev.args
        second = subprocess.run([*command, str(free_port())], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert "Another `roster dev` runs on this database." in second.stderr
        started = dev.children(recursive=True)
        assert len(started) >= 4
        dev.kill()
        until(lambda: alive(started) == [], seconds=DEADLINE_S)


def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]
