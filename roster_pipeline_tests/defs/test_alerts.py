"""R11.8 through Dagster: the sensor that delivers alerts, and the one for runs that failed without a sync in `ops.syncs`."""

import dagster as dg
import pytest
import sqlalchemy as sa

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.definitions import defs
from roster_pipeline.defs.alerts import alerts, failed_runs
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.tags import night_tags
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.sandbox import Sandbox
from roster_pipeline.settings import settings
from roster_pipeline_tests.alerts.receivers import webhook
from roster_pipeline_tests.defs.runs import run


def recorded(database: Database) -> list[tuple[str, bool]]:
    """Event and urgency of every alert, oldest first."""
    with database.engine.connect() as connection:
        return [(row[0], row[1]) for row in connection.execute(sa.text("select event, is_urgent from ops.alerts order by alert_id"))]


def notice(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult, **tags: str) -> None:
    """Evaluate the sensor for a failed run; twice, as after a restart of the daemon."""
    event = result.get_run_failure_event()
    record = instance.get_run_by_id(result.run_id)
    assert record is not None
    context = dg.build_run_status_sensor_context(
        sensor_name="failed_runs",
        dagster_event=event,
        dagster_instance=instance,
        dagster_run=record.with_tags({**record.tags, **tags}),
        resources={"roster_database": RosterDatabase()},
    )
    for _ in range(2):
        failed_runs(context.for_run_failure())


def break_before_the_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make later runs fail before they write a row of ops.syncs."""
    monkeypatch.setenv("ROSTER_DATABASE_URL", "mysql://nowhere/none")
    settings.cache_clear()


def repair(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    monkeypatch.setenv("ROSTER_DATABASE_URL", database.url.render_as_string(hide_password=False))
    settings.cache_clear()


@pytest.mark.parametrize("name", ["alerts", "failed_runs"])
def test_the_sensors_run_from_the_start(name: str) -> None:
    """R11.8: nobody has to switch them on."""
    assert defs.resolve_sensor_def(name).default_status is dg.DefaultSensorStatus.RUNNING


def test_a_tick_delivers(environment: None, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """R11.8: the open alerts go to the URLs of the environment. A wrong URL does not fail the tick."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql("insert into ops.alerts (event, kind, facts) values ('connected:1', 'connected', '{}')")
    with webhook() as hook:
        monkeypatch.setenv("ROSTER_ALERT_URLS", f"secret-typing-error,{hook.url()}")
        settings.cache_clear()
        with dg.build_sensor_context(resources={"roster_database": RosterDatabase()}) as context:
            tick = alerts(context)
        assert len(hook.received) == 1
    assert isinstance(tick, dg.SkipReason)
    assert tick.skip_message == "Due: 1. Positions in ROSTER_ALERT_URLS: accepted [2], did not accept [], cannot be used [1]."


def test_a_run_without_a_sync(instance: dg.DagsterInstance, database: Database, clever_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """R11.8: one alert, with the run's id, for a run that left no row. It is urgent unless the schedule started the run."""
    break_before_the_sync(monkeypatch)
    failed = run(instance, clever_id)
    repair(monkeypatch, database)
    notice(instance, failed, **{"dagster/will_retry": "true"})
    assert recorded(database) == [], "Dagster tries it again"
    notice(instance, failed)
    assert recorded(database) == [(f"run_failed:{failed.run_id}", True)]
    with database.engine.connect() as connection:
        row = connection.execute(sa.text("select a.facts, d.clever_id from ops.alerts a join app.districts d using (district_id)")).one()
    assert (row[0], row[1]) == ({"run_id": failed.run_id, "job": "sync_district"}, clever_id)
    break_before_the_sync(monkeypatch)
    nightly = run(instance, clever_id, **night_tags("scheduled"))
    repair(monkeypatch, database)
    notice(instance, nightly)
    assert recorded(database)[1:] == [(f"run_failed:{nightly.run_id}", False)]


def test_a_run_whose_sync_is_reported(instance: dg.DagsterInstance, database: Database, sandbox: Sandbox, clever_id: str) -> None:
    """R11.8: a failed sync has one alert, that of its row. A paused district and a locked district make none."""
    sandbox.client_secret = "changed"
    failed = run(instance, clever_id)
    notice(instance, failed)
    with database.engine.connect() as connection:
        sync_id = connection.execute(sa.text("select sync_id from ops.syncs")).scalar_one()
    assert recorded(database) == [(f"sync_failed:{sync_id}", True)]
    with database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        with district_lock(connection, find_district(connection, clever_id).district_id, clever_id):
            connection.execute(sa.text("insert into ops.syncs (district_id, status) select district_id, 'processing' from app.districts"))
            locked = run(instance, clever_id)
            connection.execute(sa.text("update ops.syncs set status = 'successful', finished_at = now() where status = 'processing'"))
        connection.execute(sa.text("update app.districts set status = 'paused'"))
        paused = run(instance, clever_id)
    for each in (locked, paused):
        assert not each.success
        notice(instance, each)
    assert len(recorded(database)) == 1


def test_a_run_whose_process_died(
    instance: dg.DagsterInstance, database: Database, clever_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11.4, R11.8: its row is marked as failed, which records the only alert."""
    break_before_the_sync(monkeypatch)
    failed = run(instance, clever_id)
    repair(monkeypatch, database)
    insert = """
        insert into ops.syncs (district_id, status, dagster_run_id) select district_id, 'processing', :run from app.districts
        returning sync_id
    """
    with database.engine.begin() as connection:
        sync_id = connection.execute(sa.text(insert), {"run": failed.run_id}).scalar_one()
    notice(instance, failed)
    assert recorded(database) == [(f"sync_failed:{sync_id}", True)]


def test_a_run_is_not_forgotten_while_the_database_is_away(
    instance: dg.DagsterInstance, database: Database, clever_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11.8: the tick fails, so that the next tick begins with the same run."""
    start = evaluate(instance, None)
    break_before_the_sync(monkeypatch)
    failed = run(instance, clever_id)
    with pytest.raises(dg.DagsterError, match="not a PostgreSQL URL"):
        evaluate(instance, start)
    repair(monkeypatch, database)
    end = evaluate(instance, start)
    assert recorded(database) == [(f"run_failed:{failed.run_id}", True)]
    assert evaluate(instance, end) == end


def evaluate(instance: dg.DagsterInstance, cursor: str | None) -> str | None:
    """Evaluate a tick of `failed_runs` as the daemon does. Returns the cursor of the next tick; it raises if the tick fails."""
    repository = defs.get_repository_def()
    resources = repository.get_top_level_resources()
    with dg.SensorEvaluationContext(instance.get_ref(), cursor=cursor, repository_def=repository, resources=resources) as context:
        evaluated = defs.resolve_sensor_def("failed_runs").evaluate_tick(context)
    assert [each.error for each in evaluated.dagster_run_reactions or []] in ([], [None])
    return evaluated.cursor
