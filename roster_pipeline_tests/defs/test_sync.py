"""One district synced through Dagster: what the event log contains, and what it must not contain."""

import dataclasses
import logging
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest
import sqlalchemy as sa
from sqlalchemy import create_engine

from roster_pipeline import contracts
from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.definitions import defs
from roster_pipeline.defs.report import WHOLE_SYNC_AT
from roster_pipeline.defs.sync import results_of
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.sandbox import Sandbox
from roster_pipeline.settings import settings
from roster_pipeline.sync.run import SyncReport, SyncRequest, run_sync
from roster_pipeline_tests.defs.runs import check, numbers, run
from roster_pipeline_tests.sync.test_incremental import count_as_large

MARKER = "Zzyzxmarker"


def failure(result: dg.ExecuteInProcessResult) -> dg.DagsterEvent:
    (event,) = result.get_step_failure_events()
    return event


def texts(database: Database) -> str:
    """Everything in Dagster's database, as text."""
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
    """R4.4, R11.4, SPEC 12: every asset and check reports its counts for the partition, ops.syncs names the run, and no person is named."""
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
    # A sync does not evaluate `fresh`, which is about districts without a sync.
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
    assert numbers(result, "clever/districts")["sync_seconds"] == pytest.approx(
        (sync["finished_at"] - sync["started_at"]).total_seconds(), abs=1e-3
    )

    files = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    printed = capfd.readouterr()
    for place in (texts(database), files, caplog.text, printed.out, printed.err):
        assert MARKER not in place
    assert result.run_id in texts(database)


def test_the_seconds_of_a_sync(environment: None, database: Database, clever_id: str) -> None:
    """They are numbers, which Dagster plots: those of every step at its asset, those of the whole sync and its parts at the first asset."""
    report = run_sync(database, settings(), SyncRequest(clever_id))
    reported = reported_by(database, report)
    seconds = {step.name: step.seconds for step in report.steps}
    for asset, metadata in reported.items():
        assert list(plotted(metadata).keys() & {"seconds", "sync_seconds"}) == ["sync_seconds" if asset == WHOLE_SYNC_AT else "seconds"]
        if asset in seconds:
            assert metadata["seconds"] == pytest.approx(seconds[asset], abs=1e-3)
    assert reported["clever.users"]["seconds"] == pytest.approx(
        sum(seconds[f"clever.{each}"] for each in ("students", "teachers", "staff", "district_admins")), abs=1e-3
    )

    whole = plotted(reported[WHOLE_SYNC_AT])
    parts = {each: whole[each] for each in ("pull_seconds", "plan_seconds", "audit_seconds", "apply_seconds")}
    assert sum(parts.values()) == pytest.approx(sum(seconds.values()), abs=0.01)
    assert sum(parts.values()) <= whole["sync_seconds"]
    assert parts["pull_seconds"] == pytest.approx(sum(each for name, each in seconds.items() if name.startswith("clever.")), abs=1e-3)
    assert parts["apply_seconds"] > seconds["app.users"] - 1e-3
    assert parts["plan_seconds"] > seconds["reconcile.user_matches"] - 1e-3
    assert parts["audit_seconds"] > 0
    assert whole["peak_mb"] == report.steps[-1].peak_mb > 50


def test_a_sync_without_a_plan(environment: None, database: Database, sandbox: Sandbox, clever_id: str) -> None:
    """R7.2: the sync of an unchanged district leaves steps out. They have no seconds; everything else is reported as after a full plan."""
    sandbox.change().patch("users", sandbox.district().shared("users", "student")[0], "name.last", "")
    run_sync(database, settings(), SyncRequest(clever_id))
    report = run_sync(database, settings(), SyncRequest(clever_id))
    pulled = [step for step in report.steps if step.name.startswith("clever.")]
    planned, unplanned = reported_by(database, report), reported_by(database, dataclasses.replace(report, steps=pulled))
    assert planned["ops.quarantine"]["rows_written"] == 1
    assert {name: untimed(metadata) for name, metadata in unplanned.items()} == {name: untimed(each) for name, each in planned.items()}
    assert {name for name, metadata in unplanned.items() if metadata.get("seconds")} == {
        f"clever.{name}" for name in contracts.RESOURCES if planned[f"clever.{name}"]["seconds"]
    }
    whole = unplanned[WHOLE_SYNC_AT]
    assert whole["pull_seconds"] == planned[WHOLE_SYNC_AT]["pull_seconds"]
    assert whole["plan_seconds"] == whole["audit_seconds"] == whole["apply_seconds"] == 0


def test_a_sync_with_an_incremental_plan(
    environment: None, database: Database, sandbox: Sandbox, clever_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps build the affected subset of each table, but the reported numbers are of the whole table."""
    count_as_large(monkeypatch)
    for _ in range(2):
        run_sync(database, settings(), SyncRequest(clever_id))
    sandbox.change().patch("users", sandbox.district().shared("users", "student")[0], "name.last", "Other")
    report = run_sync(database, settings(), SyncRequest(clever_id))
    assert "touched" in report.counts
    with database.engine.connect() as connection:
        people = connection.execute(sa.text("select count(*) from staging.users")).scalar_one()
        sections = connection.execute(sa.text("select count(*) from staging.sections")).scalar_one()
    assert {step.name: step.rows for step in report.steps}["staging.users"] < people
    reported = reported_by(database, report)
    for table, rows in {"staging.users": people, "staging.sections": sections, "reconcile.user_matches": people}.items():
        assert reported[table]["dagster/row_count"] == rows
    assert reported["app.users"]["update"] == reported["app.users"]["rows_written"] == 1


def reported_by(database: Database, report: SyncReport) -> dict[str, dict[str, Any]]:
    """The metadata that a sync reports to Dagster, by table."""
    results = [each for each in results_of(database, report) if isinstance(each, dg.MaterializeResult)]
    return {".".join(cast("dg.AssetKey", each.asset_key).path): dict(each.metadata or {}) for each in results}


def plotted(metadata: dict[str, Any]) -> dict[str, float]:
    """The numbers, which the UI plots."""
    normal = dg.AssetMaterialization("any", metadata=metadata).metadata
    return {
        name: cast("float", each.value) for name, each in normal.items() if isinstance(each, dg.IntMetadataValue | dg.FloatMetadataValue)
    }


def untimed(metadata: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if not name.endswith("seconds") and name != "peak_mb"}


def test_a_sync_that_fails(instance: dg.DagsterInstance, database: Database, sandbox: Sandbox, clever_id: str) -> None:
    """R11.4: the run fails with a message and is not tried again. Nothing is materialized, and ops.syncs has the same message."""
    sandbox.change().disconnect()
    result = run(instance, clever_id)
    assert not result.success
    data = failure(result).step_failure_data
    assert data.user_failure_data is not None
    assert data.error is not None
    assert "no token" in str(data.user_failure_data.description)
    assert "Traceback" not in str(data.user_failure_data)
    assert data.error.cause is None
    assert data.error.context is None
    assert not result.asset_materializations_for_node("sync")
    with database.engine.connect() as connection:
        (status, message) = connection.execute(sa.text("select status, message from ops.syncs")).one()
    assert status == "failed"
    assert "no token" in message


def test_a_district_that_is_being_synced(environment: None, database: Database, clever_id: str) -> None:
    """R11.2: the second run fails at once, names the running sync, and leaves no row."""
    with database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        district = find_district(connection, clever_id)
        insert = sa.text("insert into ops.syncs (district_id, status) values (:district, 'processing') returning sync_id")
        running = connection.execute(insert, {"district": district.district_id}).scalar_one()
        with dg.DagsterInstance.ephemeral() as instance, district_lock(connection, district.district_id, clever_id):
            result = run(instance, clever_id)
        rows = connection.execute(sa.text("select count(*) from ops.syncs")).scalar_one()
    assert not result.success
    data = failure(result).step_failure_data.user_failure_data
    assert data is not None
    assert data.metadata["running_sync_id"].value == running
    assert rows == 1


def test_a_first_sync_that_waits_for_approval(environment: None, database: Database, clever_id: str) -> None:
    """R7.6: tables that were not written are not materialized, but the decisions are. A check says that the sync is held."""
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


def test_an_unexpected_error_is_reported_by_class_and_lines_only(
    environment: None, clever_id: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """SPEC 12: its text may quote a value. Dagster shows neither the text nor the error that caused it."""

    def raise_marker(*_args: object, **_options: object) -> None:
        raise KeyError(MARKER) from ValueError(MARKER)

    monkeypatch.setattr("roster_pipeline.sync.run.make_plan", raise_marker)
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(instance, clever_id)
        events = "".join(str(entry) for entry in instance.all_logs(result.run_id))
    assert "Internal error: KeyError" in events
    assert "raise_marker test_sync.py:" in events
    printed = capfd.readouterr()
    assert MARKER not in events + printed.out + printed.err
