"""Windows in Dagster: a run in a freeze, and what runs show of the window that is on."""

from datetime import timedelta

import dagster as dg

from roster_pipeline.database.clock import time_of
from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.districts.nights import night_of
from roster_pipeline.districts.windows import Kind, NewWindow, add_window

from .runs import run


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
