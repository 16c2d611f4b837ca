"""The command line as a person uses it: arguments in, exit status and two streams out; with a real database and a simulated Clever."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from roster_pipeline import cli
from roster_pipeline.database.engine import Database
from roster_pipeline.sandbox import District, Sandbox, SandboxServer, generate_district
from roster_pipeline.settings import Settings
from roster_pipeline_tests.ended import Ended

Roster = Callable[..., Ended]


@pytest.fixture
def clever() -> Iterator[Sandbox]:
    """A simulated Clever with one small district. The CLEVER_* variables point to it."""
    sandbox = Sandbox(generate_district(7, 30))
    with SandboxServer(sandbox) as server, pytest.MonkeyPatch.context() as patch:
        for name in ("CLEVER_API_URL", "CLEVER_AUTH_URL"):
            patch.setenv(name, server.url)
        patch.setenv("CLEVER_CLIENT_ID", sandbox.client_id)
        patch.setenv("CLEVER_CLIENT_SECRET", sandbox.client_secret)
        yield sandbox


@pytest.fixture
def district(roster: Roster, clever: Sandbox) -> District:
    """The simulated Clever's district, with its agreement recorded."""
    connected = clever.district()
    assert (
        roster("district", "add", connected.id, "--name", "Test", "--profile", "typing_agent", "--domain", "test.example.org").status == 0
    )
    return connected


@pytest.fixture
def environment(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that names the test's database and nothing else, in a folder without `.env`."""
    for name in Settings.model_fields:
        if not name.startswith("clever_client") and name not in ("clever_api_url", "clever_auth_url"):
            monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("ROSTER_ENV_FILE", "")
    monkeypatch.setenv("ROSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ROSTER_DATABASE_URL", database.url.render_as_string(hide_password=False))
    monkeypatch.setenv("CLEVER_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def roster(environment: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Roster:
    """Runs one command in this process."""
    monkeypatch.setattr(cli, "_install_handlers", lambda **_: None)  # they would stay installed for the rest of the test run

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def query(database: Database) -> Callable[..., list[Any]]:
    """Runs a statement in the test's database, and returns its rows."""

    def rows(statement: str, **values: object) -> list[Any]:
        with database.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    return rows


@pytest.fixture
def program() -> list[str]:
    """The command line that starts `roster` as a process of its own."""
    return [sys.executable, "-m", "roster_pipeline.cli"]
