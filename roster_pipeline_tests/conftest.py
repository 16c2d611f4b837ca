"""Fixtures that several test modules need. Databases are real: one server per worker of the test run, one database per test.

With `pytest -n`, every worker is a process with its own server, so that tests share no more than without workers.

Does not belong here: fixtures of a single module, and data of districts.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType

import psutil
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, make_url

from roster_pipeline.database.embedded import EmbeddedServer
from roster_pipeline.database.engine import Database, open_database
from roster_pipeline.database.migrate import migrate
from roster_pipeline.settings import Settings

_HERE = Path(__file__).parent
_numbers = count(1)

# What `make test-fast` leaves out: file or folder -> why it takes long.
SLOW = {
    "faults": "kills processes and servers in the middle of syncs",
    "fleet/test_children.py": "a process for every sync",
    "commands/test_cli_status.py": "commands as processes",
    "commands/test_cli.py": "commands as processes",
    "database/test_embedded.py": "a PostgreSQL of its own for every test",
    "database/test_embedded_root.py": "a PostgreSQL of its own for every test",
    "database/test_lock.py": "waits until PostgreSQL notices a dead client",
    "defs/test_dev.py": "starts Dagster's web server and daemon",
    "defs/test_dev_killed.py": "starts Dagster's web server and daemon",
    "defs/test_alerts.py": "whole runs in Dagster",
    "defs/test_decisions.py": "whole runs in Dagster",
    "defs/test_freshness.py": "whole runs in Dagster",
    "defs/test_nightly.py": "whole runs in Dagster",
    "defs/test_sync.py": "whole runs in Dagster",
    "reference/test_model.py": "random histories of many nights",
    "test_benchmarks.py": "each step is a process",
    "test_week.py": "several nights of three districts",
    "test_onboarding.py": "the weeks until a district is connected",
    "test_demo.py": "districts of a thousand people",
    "people/test_imports.py": "a large file",
    "alerts/test_causes.py": "several syncs a test",
    "support/test_explain.py": "several syncs a test",
    "support/test_purge.py": "several syncs a test",
    "support/test_readiness.py": "several syncs a test",
    "sync/test_brakes.py": "several syncs a test",
    "sync/test_first.py": "several syncs a test",
    "sync/test_holds.py": "several syncs a test",
    "sync/test_incremental.py": "several syncs a test, each compared with a full plan",
    "sync/test_incremental_models.py": "several syncs a test",
    "sync/test_licenses.py": "several syncs a test",
    "sync/test_odd_values.py": "hundreds of records a sync, many syncs",
    "sync/test_matching.py": "several syncs a test",
    "sync/test_restore.py": "several syncs a test",
    "sync/test_records.py": "several syncs a test",
    "sync/test_soft_deletes.py": "several syncs a test",
    "sync/test_places.py": "a sync a test",
    "sync/test_unchanged.py": "several syncs a test",
    "sync/test_usernames.py": "several syncs a test",
    "test_profiles.py": "a whole process that syncs by a third profile",
}


def pytest_configure(config: pytest.Config) -> None:
    # A CI job that runs out of time gets SIGTERM: end as with Ctrl-C, with every fixture's clean-up, so that no server stays running.
    def end(number: int, frame: FrameType | None) -> None:
        if config.pluginmanager.has_plugin("dsession"):
            # The workers clean up, not this process. Ctrl-C in a terminal reaches them by itself, SIGTERM does not.
            for worker in psutil.Process().children():
                worker.send_signal(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGTERM, end)
    # A developer's own file with settings must not reach a test.
    os.environ["ROSTER_ENV_FILE"] = ""
    if missing := [each for each in SLOW if not (_HERE / each).exists()]:
        raise pytest.UsageError(f"listed as slow, but missing: {', '.join(missing)}")


def pytest_unconfigure(config: pytest.Config) -> None:
    # A worker that crashed, or did not end within seconds of an interrupt, has left its server running.
    if config.pluginmanager.has_plugin("dsession"):
        for cluster in config._tmp_path_factory.getbasetemp().glob("popen-gw*/*/postgres"):  # type: ignore[attr-defined]
            if cluster.exists():
                with EmbeddedServer(cluster.parent):
                    pass
                shutil.rmtree(cluster.resolve())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.relative_to(_HERE).as_posix()
        if any(f"{path}/".startswith(f"{each}/") for each in SLOW):
            item.add_marker(pytest.mark.slow)


def _database_settings(url: URL) -> Settings:
    """Settings for this database, without variables of the environment that name another one."""
    return Settings(
        roster_home=Path("/nonexistent"), roster_database_url=url.render_as_string(hide_password=False), roster_dagster_database_url=None
    )


def _libpq_url(url: URL) -> str:
    """The URL in the form that psycopg and psql accept."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def _fresh_database(server: URL, template: str = "template0") -> Iterator[URL]:
    """A new database, a copy of `template`. It is dropped after the block, even if sessions are still connected."""
    name = f"roster_test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(_libpq_url(server), autocommit=True) as maintenance:
        copy = sql.SQL("create database {} template {} encoding 'UTF8'")
        maintenance.execute(copy.format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield server.set(database=name)
        finally:
            maintenance.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def database_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """A server for test databases: ROSTER_TEST_DATABASE_URL (its user must be able to create them), else an embedded one of this run."""
    if url := os.environ.get("ROSTER_TEST_DATABASE_URL"):
        yield make_url(url).set(drivername="postgresql+psycopg")
        return
    home = tmp_path_factory.mktemp("home")
    try:
        with EmbeddedServer(home) as server:
            with psycopg.connect(_libpq_url(server.url("postgres")), autocommit=True) as connection:
                # On a slow disk, the two checkpoints of each test take most of its time. The data need not survive a power cut.
                connection.execute("alter system set fsync = off")
                connection.execute("select pg_reload_conf()")
            yield server.url("postgres")
    finally:
        shutil.rmtree((home / "postgres").resolve(), ignore_errors=True)


@pytest.fixture(scope="session")
def migrated_template(database_server: URL) -> Iterator[str]:
    """The name of a migrated database without connections, for copies."""
    with _fresh_database(database_server) as url:
        with open_database(_database_settings(url)) as database:
            migrate(database)
        yield str(url.database)


@pytest.fixture
def empty_database(database_server: URL) -> Iterator[Database]:
    """A database of the test's own, not migrated."""
    with _fresh_database(database_server) as url, open_database(_database_settings(url)) as database:
        yield database


@pytest.fixture
def database(database_server: URL, migrated_template: str) -> Iterator[Database]:
    """A migrated database of the test's own. Another process opens it with ROSTER_DATABASE_URL = database.url."""
    with _fresh_database(database_server, migrated_template) as url, open_database(_database_settings(url)) as database:
        yield database
