"""External failures: each gives one clear message and exit status 1, is recorded in `ops.syncs`, writes nothing, shows no traceback."""

from collections.abc import Callable
from typing import Any

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline.sandbox import District, Sandbox

from .conftest import Roster

NOWHERE = "http://127.0.0.1:9"  # the discard port: no server listens


def _no_credentials(patch: pytest.MonkeyPatch, _: Sandbox) -> None:
    patch.delenv("CLEVER_CLIENT_ID")


def _wrong_credentials(patch: pytest.MonkeyPatch, _: Sandbox) -> None:
    patch.setenv("CLEVER_CLIENT_SECRET", "wrong-secret")


def _not_connected(_: pytest.MonkeyPatch, clever: Sandbox) -> None:
    clever.district().connected = False


def _tokens_unreachable(patch: pytest.MonkeyPatch, _: Sandbox) -> None:
    patch.setenv("CLEVER_AUTH_URL", NOWHERE)


def _data_unreachable(patch: pytest.MonkeyPatch, _: Sandbox) -> None:
    patch.setenv("CLEVER_API_URL", NOWHERE)


def _body_not_json(_: pytest.MonkeyPatch, clever: Sandbox) -> None:
    clever.misbehave("html", r"/v3\.0/users")


Break = Callable[[pytest.MonkeyPatch, Sandbox], None]
CASES = [
    pytest.param(_no_credentials, "credentials at Clever are not set", False, id="no credentials"),
    pytest.param(_wrong_credentials, "refused the client id/secret", False, id="wrong credentials"),
    pytest.param(_not_connected, "token", False, id="no token"),
    pytest.param(_tokens_unreachable, "Clever", True, id="token list unreachable"),
    pytest.param(_data_unreachable, "Clever", True, id="data API unreachable"),
    pytest.param(_body_not_json, "JSON", True, id="body not JSON"),
]


def _nothing_written(query: Callable[..., list[Any]]) -> None:
    for table in ("app.users", "app.schools", "staging.users", "staging.districts", "ops.changes"):
        assert query(f"select count(*) from {table}") == [(0,)], table


@pytest.mark.parametrize(("broken", "says", "retryable"), CASES)
def test_clever_cannot_be_read(
    broken: Break,
    says: str,
    retryable: bool,
    roster: Roster,
    clever: Sandbox,
    district: District,
    query: Callable[..., list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R3.2: a pull that is not complete changes nothing. `ops.syncs` has the reason, and the user sees one message."""
    broken(monkeypatch, clever)
    ended = roster("sync", district.id)
    assert (ended.status, ended.out) == (1, "")
    message = [line for line in ended.err.splitlines() if line.startswith("Error: ")]
    assert len(message) == 1
    assert says in message[0]
    assert "Traceback" not in ended.err
    assert "wrong-secret" not in ended.err

    document = roster("sync", district.id, "--json").document
    assert document["retryable"] is retryable
    assert document["exit_status"] == 1
    assert says in document["error"]
    for status, reason in query("select status, message from ops.syncs"):
        assert status == "failed"
        assert document["error"] in reason
    _nothing_written(query)


def test_unknown_district(roster: Roster, query: Callable[..., list[Any]]) -> None:
    """One message, and a row of `ops.syncs` for the attempt."""
    ended = roster("sync", "nosuchdistrict", "--requested-by", "ops-7")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("Error: There is no district nosuchdistrict.\n")
    assert query("select status, message, requested_by, district_id from ops.syncs") == [
        ("failed", "There is no district nosuchdistrict.", "ops-7", None)
    ]
    for command in (("district", "show"), ("district", "pause"), ("status",)):
        assert roster(*command, "nosuchdistrict").status == 1, command


def test_paused_district(roster: Roster, district: District, query: Callable[..., list[Any]]) -> None:
    """SPEC 2: only active districts sync. The row gets the status `skipped` and the reason."""
    assert roster("district", "pause", district.id).status == 0
    ended = roster("sync", district.id, "--json")
    assert ended.status == 1
    assert "paused" in ended.document["error"]
    assert "resume" in ended.document["hint"]
    assert ended.document["district"] == district.id
    assert query("select status, message from ops.syncs") == [("skipped", ended.document["error"])]
    _nothing_written(query)


def test_database_that_does_not_answer(roster: Roster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another attempt can help, and the password is not in the message."""
    monkeypatch.setenv("ROSTER_DATABASE_URL", "postgresql://someone:hidden-word@127.0.0.1:9/roster")
    ended = roster("status")
    assert ended.status == 1
    assert ended.err.startswith("Error: PostgreSQL at 127.0.0.1:9 does not answer.\n")
    assert "hidden-word" not in ended.err
    assert roster("status", "--json").document["retryable"] is True


def test_database_of_a_newer_release(roster: Roster, query: Callable[..., list[Any]]) -> None:
    query("update ops.alembic_version set version_num = '9999'")
    for command in (("sync", "1"), ("status",), ("district", "list"), ("migrate",)):
        ended = roster(*command)
        assert (ended.status, ended.out) == (1, ""), command
        assert "newer release" in ended.err, command


def test_database_without_tables(roster: Roster, empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command says to run `roster migrate`. That is enough, and running it again changes nothing."""
    monkeypatch.setenv("ROSTER_DATABASE_URL", empty_database.url.render_as_string(hide_password=False))
    for command in (("sync", "1"), ("status",), ("district", "list")):
        ended = roster(*command)
        assert ended.status == 1, command
        assert "Run `roster migrate`." in ended.err, command
    first, second = roster("migrate", "--json").document, roster("migrate", "--json").document
    assert first["from_revision"] is None
    assert second["from_revision"] == second["to_revision"] == first["to_revision"]
    assert roster("status").status == 0


def test_debug_shows_the_traceback(roster: Roster) -> None:
    ended = roster("--debug", "sync", "nosuchdistrict")
    assert ended.status == 1
    assert "Traceback" in ended.err
    assert "find_district" in ended.err


def test_broken_settings_of_one_district_stop_no_other(
    roster: Roster, district: District, query: Callable[..., list[Any]], database: Database
) -> None:
    """R11.2: settings that a person broke by hand fail only that district, with a clear message and an alert."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql("""
            insert into app.districts (clever_id, name, domain, profile, status, settings)
            values ('broken', 'Broken', 'broken.example.org', 'typing_agent', 'active', '{"no_such_setting": 1}')
        """)
    assert "broken" in roster("district", "list").out
    assert roster("status").status == 0
    ended = roster("sync", "broken")
    assert ended.status == 2
    assert "no_such_setting" in ended.err
    assert query("select status, message like '%no_such_setting%' from ops.syncs") == [("failed", True)]
    assert query("select kind from ops.alerts") == [("sync_failed",)]
    assert roster("sync", district.id).status == 0
