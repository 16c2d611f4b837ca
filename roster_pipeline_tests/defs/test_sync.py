"""One district synced through Dagster: what the event log then says, and what it must not say."""

import logging
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from sqlalchemy import create_engine

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.definitions import defs
from roster_pipeline.sandbox import Sandbox
from roster_pipeline.sync.districts import find_district
from roster_pipeline_tests.defs.runs import check, numbers, run

MARKER = "Zzyzxmarker"


def failure(result: dg.ExecuteInProcessResult) -> dg.Failure:
    (event,) = result.get_step_failure_events()
    return event.step_failure_data  # type: ignore[return-value]


def texts(database: Database) -> str:
    """Everything Dagster keeps, as text."""
    engine = create_engine(database.dagster_url)
    try:
        with engine.connect() as connection:
            tables = (
                connection.execute(sa.text("select table_name from information_schema.tables where table_schema = 'public'"))
                .scalars()
                .all()
            )
            rows = [str(row) for table in tables for row in connection.execute(sa.text(f'select * from "{table}"'))]
    finally:
        engine.dispose()
    return "\n".join(rows)


def test_a_sync(
    instance: dg.DagsterInstance, database: Database, sandbox: Sandbox, clever_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """R4.4, R11.4, SPEC 12: every asset and check reports its counts for the partition, ops.syncs names the run, no name is anywhere."""
    students = sandbox.district().shared("users", "student")
    change = sandbox.change()
    change.patch("users", students[0], "name.first", MARKER)
    change.patch("users", students[1], "last_modified", MARKER)
    change.patch("users", students[2], "name.last", "")
    change.patch("users", students[2], "name.first", MARKER)
    caplog.set_level(logging.DEBUG)

    result = run(instance, clever_id, requested_by="support", reason="ticket 7")
    assert result.success

    graph = defs.resolve_asset_graph()
    materialized = {each.asset_key for each in result.asset_materializations_for_node("sync")}
    assert materialized == set(graph.materializable_asset_keys)
    assert {each.partition for each in result.asset_materializations_for_node("sync")} == {clever_id}
    evaluations = {(each.asset_key.to_user_string(), each.check_name): each for each in result.get_asset_check_evaluations()}
    # `fresh` says something of districts that were not synced.
    assert len(evaluations) == len(graph.asset_check_keys) - 1
    assert {each.partition for each in evaluations.values()} == {clever_id}

    modified, last_name = evaluations["clever/users", "last_modified_format"], evaluations["clever/users", "last_name_missing"]
    assert (modified.passed, modified.severity, modified.metadata["count"].value) == (False, dg.AssetCheckSeverity.WARN, 1)
    assert (last_name.passed, last_name.severity, last_name.metadata["count"].value) == (False, dg.AssetCheckSeverity.ERROR, 1)
    assert evaluations["clever/users", "first_name_missing"].passed
    missing = evaluations["staging/users", "username_missing"]
    assert not missing.passed

    with database.engine.connect() as connection:
        sync = connection.execute(sa.text("select * from ops.syncs")).mappings().one()
        staged = connection.execute(sa.text("select count(*) from staging.users")).scalar_one()
        users = connection.execute(sa.text("select count(*) from app.users where deleted_at is null")).scalar_one()
    assert (sync["status"], sync["requested_by"], sync["reason"], sync["dagster_run_id"]) == (
        "successful",
        "support",
        "ticket 7",
        result.run_id,
    )
    assert missing.metadata["count"].value == sync["counts"]["audits"]["username_missing"] > 0
    assert numbers(result, "clever/users")["students"] == 60
    assert numbers(result, "staging/users")["dagster/row_count"] == staged
    app = numbers(result, "app/users")
    assert app["dagster/row_count"] == app["rows_written"] == app["create"] == users
    assert numbers(result, "reconcile/user_matches")["create: new"] == users
    assert numbers(result, "ops/quarantine")["rows_written"] == 2

    files = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    printed = capfd.readouterr()
    for place in (texts(database), files, caplog.text, printed.out, printed.err):
        assert MARKER not in place
    assert result.run_id in texts(database)


def test_a_sync_that_fails(instance: dg.DagsterInstance, database: Database, sandbox: Sandbox, clever_id: str) -> None:
    """R11.4: the run fails with a sentence and is not tried again; nothing is materialized, and ops.syncs says the same."""
    sandbox.change().disconnect()
    result = run(instance, clever_id)
    assert not result.success
    error = failure(result)
    assert "no token" in str(error.user_failure_data.description)  # type: ignore[attr-defined]
    assert "Traceback" not in str(error.user_failure_data)  # type: ignore[attr-defined]
    assert error.error.cause is None  # type: ignore[attr-defined]
    assert error.error.context is None  # type: ignore[attr-defined]
    assert not result.asset_materializations_for_node("sync")
    with database.engine.connect() as connection:
        (status, message) = connection.execute(sa.text("select status, message from ops.syncs")).one()
    assert status == "failed"
    assert "no token" in message


def test_a_district_that_is_being_synced(environment: None, database: Database, clever_id: str) -> None:
    """R11.2: the run that comes second fails at once, names the sync that is running, and leaves no row."""
    with database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        district = find_district(connection, clever_id)
        insert = sa.text("insert into ops.syncs (district_id, status) values (:district, 'processing') returning sync_id")
        running = connection.execute(insert, {"district": district.district_id}).scalar_one()
        with dg.DagsterInstance.ephemeral() as instance, district_lock(connection, district.district_id, clever_id):
            result = run(instance, clever_id)
        rows = connection.execute(sa.text("select count(*) from ops.syncs")).scalar_one()
    assert not result.success
    metadata = failure(result).user_failure_data.metadata  # type: ignore[attr-defined]
    assert metadata["running_sync_id"].value == running
    assert rows == 1


def test_a_first_sync_that_waits_for_approval(environment: None, database: Database, clever_id: str) -> None:
    """R7.6: what was not written is not materialized; the decisions are, and a check says that the sync is held."""
    with database.engine.begin() as connection:
        district = find_district(connection, clever_id)
        insert = sa.text(
            "insert into app.users (district_id, username, first_name, last_name) values (:district, 'existing.user', 'A', 'B')"
        )
        connection.execute(insert, {"district": district.district_id})
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(instance, clever_id)
    assert result.success
    layers = {each.asset_key.path[0] for each in result.asset_materializations_for_node("sync")}
    assert layers == {"clever", "reconcile", "ops"}
    held = check(result, "brake_initial")
    assert (held.passed, held.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (held.metadata["holds"].value, held.metadata["acts"].value) == (1, 1)


def test_a_defect_tells_its_class_and_lines_only(
    environment: None, clever_id: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """SPEC 12: an unexpected error may quote the value it choked on; Dagster shows neither its text nor what it was raised from."""

    def choke(*_args: object, **_options: object) -> None:
        raise KeyError(MARKER) from ValueError(MARKER)

    monkeypatch.setattr("roster_pipeline.sync.run.make_plan", choke)
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(instance, clever_id)
        events = "".join(str(entry) for entry in instance.all_logs(result.run_id))
    assert "Internal error: KeyError" in events
    assert "choke (test_sync.py:" in events
    printed = capfd.readouterr()
    assert MARKER not in events + printed.out + printed.err
