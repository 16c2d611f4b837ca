"""A simulated Clever, a database and a Dagster instance on PostgreSQL, configured through the environment as in production."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from psycopg import sql

from roster_pipeline.database.engine import Database, ensure_dagster_database
from roster_pipeline.districts.agreement import Agreement, record_agreement
from roster_pipeline.sandbox import Sandbox, SandboxServer, generate_district
from roster_pipeline.settings import settings

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(generate_district(3, 60))


@pytest.fixture
def clever_id(sandbox: Sandbox, database: Database) -> str:
    """The sandbox's district, with a recorded agreement."""
    district = sandbox.district().id
    with database.engine.begin() as connection:
        record_agreement(connection, Agreement(district, "Test district", "typing_agent", "test.example.org"))
    return district


@pytest.fixture
def environment(sandbox: Sandbox, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment variables of the test's database and Clever."""
    with SandboxServer(sandbox) as server:
        values = {
            "ROSTER_HOME": str(tmp_path),
            "ROSTER_DATABASE_URL": database.url.render_as_string(hide_password=False),
            "ROSTER_DAGSTER_URL": database.dagster_url.render_as_string(hide_password=False),
            "DAGSTER_HOME": str(tmp_path),
            "CLEVER_API_URL": server.url,
            "CLEVER_AUTH_URL": server.url,
            "CLEVER_CLIENT_ID": sandbox.client_id,
            "CLEVER_CLIENT_SECRET": sandbox.client_secret,
        }
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()
        yield
        settings.cache_clear()


@pytest.fixture
def instance(environment: None, database: Database, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with the project's own dagster.yaml, on a second database of the test's server."""
    ensure_dagster_database(database)
    shutil.copy(PROJECT / "dagster.yaml", tmp_path)
    try:
        with dg.DagsterInstance.get() as opened:
            yield opened
    finally:
        with psycopg.connect(
            database.url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
        ) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(str(database.dagster_url.database))))
