"""Windows in Dagster: a run in a freeze, and what runs show of the window that is on."""

from datetime import timedelta

import dagster as dg

from roster_pipeline.database.clock import time_of
from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.districts.nights import night_of
from roster_pipeline.districts.windows import Kind, NewWindow, add_window
from roster_pipeline.sandbox import Sandbox

from .runs import numbers, run


def add(database: Database, clever_id: str, kind: Kind) -> None:
    """A window that is on, and tomorrow too."""
    now = time_of(database)
    with database.engine.begin() as connection:
        district_id = find_district(connection, clever_id).district_id
        new = NewWindow(district_id, None, kind, night_of(now), night_of(now) + timedelta(days=1), {})
        add_window(connection, new, by="Ann", reason="new school year", now=now)


def test_a_run_in_a_freeze_is_no_failure(environment: None, database: Database, clever_id: str) -> None:
    """R14.2: it succeeds, says why there was no sync, and no check is red."""
    add(database, clever_id, "freeze")
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(instance, clever_id, **{"roster/trigger": "scheduled"})
    assert result.success
    (observed,) = result.get_asset_observation_events()
    assert "A freeze is on through the night of" in str(observed.asset_observation_data.asset_observation.metadata["no_sync"].value)
    assert result.get_asset_check_evaluations() == []
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("select trigger, status from ops.syncs").all() == [("scheduled", "skipped")]
        assert connection.exec_driver_sql("select count(*) from ops.alerts").scalar_one() == 0


def test_a_run_shows_the_window_that_is_on(environment: None, sandbox: Sandbox, database: Database, clever_id: str) -> None:
    """R14.6: a tag of the run, and metadata of its first asset with what was deferred. Rows that a window keeps are not held."""
    with dg.DagsterInstance.ephemeral() as instance:
        before = run(instance, clever_id)
        add(database, clever_id, "additions_only")
        sandbox.change().remove_users(sandbox.district().shared("users", "student")[:2])
        result = run(instance, clever_id)
        tags = [instance.get_run_by_id(each.run_id).tags for each in (before, result)]  # type: ignore[union-attr]
    assert [each.get("roster/window") for each in tags] == [None, "additions_only 1"]
    assert "window" not in numbers(before, "clever/districts")
    shown = numbers(result, "clever/districts")
    assert shown["window"].startswith("additions_only through the night of ")
    assert shown["deferred"] > 2
    removed = numbers(result, "reconcile/soft_deletes")
    assert (removed["users: deferred"], removed["users: held"], removed["users: soft_delete"]) == (2, 0, 0)
    assert not [each for each in result.get_asset_check_evaluations() if not each.passed and "held" in str(each.metadata)]
