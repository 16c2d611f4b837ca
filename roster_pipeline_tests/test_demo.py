"""The demo does what it prints, twice in a row, and its district can be synced again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from roster_pipeline import cli
from roster_pipeline.database.engine import Database
from roster_pipeline.demo import demo_clever
from roster_pipeline.settings import Settings
from roster_pipeline.sync.run import SyncRequest, run_sync

Demo = Callable[..., int]


@pytest.fixture
def demo(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Demo:
    """Runs `roster demo`, and returns its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROSTER_DATABASE_URL", database.url.render_as_string(hide_password=False))
    monkeypatch.setattr(cli, "_install_handlers", lambda **_: None)

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main(["demo", *arguments])
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run


def test_demo_twice(demo: Demo, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """R7.2: the third sync writes no row version in `app`. A second run makes another district; `demo_clever` serves the newest."""
    assert demo("--yes") == 0
    printed = capsys.readouterr().out
    assert "PostgreSQL wrote 0 rows in the application's tables" in printed
    assert "roster dev" in printed

    assert demo("--yes", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    first, second, third = report["syncs"]
    assert first["changes"]["users"]["create"] >= 1_000
    assert second["changes"]["users"]["soft_delete"] == report["night"]["left"]
    assert second["changes"]["users"]["relink"] == report["night"]["new_ids"]
    # The earlier demo's district is not in the token list of the first sync, and becomes `disconnected` (R11.7).
    for sync, disconnected in ((first, 1), (second, 0)):
        assert sync["row_versions"] == sum(sum(actions.values()) for actions in sync["changes"].values()) + disconnected
    assert (third["changes"], third["row_versions"]) == ({}, 0)
    with database.engine.connect() as connection:
        districts = connection.execute(text("select clever_id, status from app.districts order by district_id")).all()
    assert [status for _, status in districts] == ["disconnected", "active"]
    assert districts[1][0] == report["district"]

    with demo_clever(database, Settings()) as settings:
        assert settings is not None
        again = run_sync(database, settings, SyncRequest(report["district"]))
    assert again.counts["changes"] == {}


def test_another_database_needs_yes(demo: Demo, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """With ROSTER_DATABASE_URL set, nothing happens without --yes."""
    assert demo() == 1
    assert "ROSTER_DATABASE_URL is set" in capsys.readouterr().err
    with database.engine.connect() as connection:
        assert connection.execute(text("select count(*) from app.districts")).scalar_one() == 0


def test_without_a_demo_there_is_no_simulated_clever(database: Database) -> None:
    with demo_clever(database, Settings()) as settings:
        assert settings is None
