"""Queued rows of ops.syncs become runs: which rows, how often, and how the run ends its row (R11.3)."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
import sqlalchemy as sa

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.definitions import defs
from roster_pipeline.defs.requests import GAVE_UP, requests
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.tags import ON_DEMAND, origin_of, request_tags
from roster_pipeline.districts.agreement import Agreement, record_agreement
from roster_pipeline_tests.defs.runs import run

PLAIN = "insert into ops.syncs (district_id, requested_by) values (1, 'the application')"
FAILURE = dg.DagsterRunStatus.FAILURE


@pytest.fixture
def dagster(environment: None) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def rows(database: Database, statement: str) -> list[Any]:
    with database.engine.begin() as connection:
        result = connection.execute(sa.text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


def tick(instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    with dg.build_sensor_context(instance=instance, resources={"roster_database": RosterDatabase()}) as context:
        result = requests(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def starting(instance: dg.DagsterInstance) -> list[tuple[str | None, str | None]]:
    """What a tick starts: run key and partition."""
    result = tick(instance)
    return [] if isinstance(result, dg.SkipReason) else [(each.run_key, each.partition_key) for each in result.run_requests or []]


def add_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, sync_id: int = 1) -> None:
    """Add a run of this request with this status."""
    instance.add_run(dg.DagsterRun("sync_district", str(uuid4()), status=status, tags={"roster/sync_id": str(sync_id)}))


def test_the_sensor_runs_from_the_start() -> None:
    """R11.3: nobody has to switch it on, and it ticks often enough for a start within 30 seconds."""
    sensor = defs.resolve_sensor_def("requests")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 5
    assert sensor.job_name == "sync_district"


def test_a_queued_row_becomes_a_run_of_its_district(dagster: dg.DagsterInstance, database: Database, clever_id: str) -> None:
    """R11.3: also for a district without a partition. The run is in the lane `on_demand`, has a higher priority than the night, and is not
    retried by Dagster."""
    assert isinstance(tick(dagster), dg.SkipReason)
    rows(database, PLAIN)
    rows(database, PLAIN)
    result = tick(dagster)
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or []
    assert (request.run_key, request.partition_key) == ("request-1-0", clever_id)
    assert request.tags["roster/sync_id"] == "1"
    assert request.tags["roster/lane"] == ON_DEMAND
    assert int(request.tags["dagster/priority"]) > 0
    assert request.tags["dagster/max_retries"] == "0"
    (adding,) = result.dynamic_partitions_requests or []
    assert adding.partition_keys == [clever_id]
    dagster.add_dynamic_partitions("districts", [clever_id])
    again = tick(dagster)
    assert isinstance(again, dg.SensorResult)
    assert again.dynamic_partitions_requests == []
    assert [each.run_key for each in again.run_requests or []] == ["request-1-0"]  # Dagster starts one run for each run key


def test_dagster_accepts_the_request_with_its_new_partition(instance: dg.DagsterInstance, database: Database, clever_id: str) -> None:
    """The tick is evaluated as the daemon does it, which refuses a run of an unknown partition."""
    rows(database, PLAIN)
    repository = defs.get_repository_def()
    resources = repository.get_top_level_resources()
    with dg.SensorEvaluationContext(instance.get_ref(), repository_def=repository, resources=resources) as context:
        evaluated = defs.resolve_sensor_def("requests").evaluate_tick(context)
    (request,) = evaluated.run_requests or []
    assert request.tags["dagster/partition"] == clever_id


def test_a_district_that_is_being_synced_waits_for_the_next_tick(dagster: dg.DagsterInstance, database: Database, clever_id: str) -> None:
    """R11.2: no run is started that would fail because of the lock. The row stays queued."""
    rows(database, PLAIN)
    with database.engine.connect() as connection, district_lock(connection, 1, clever_id):
        assert starting(dagster) == []
    assert starting(dagster) == [("request-1-0", clever_id)]
    assert rows(database, "select status from ops.syncs") == [("queued",)]


def test_a_crashed_sync_is_marked_by_the_tick(dagster: dg.DagsterInstance, database: Database, clever_id: str) -> None:
    """R11.4: it gets an alert, and then the request is started."""
    rows(database, "insert into ops.syncs (district_id, status, started_at) values (1, 'processing', now())")
    rows(database, PLAIN)
    assert starting(dagster) == [("request-2-0", clever_id)]
    assert rows(database, "select status from ops.syncs order by sync_id") == [("failed",), ("queued",)]
    assert rows(database, "select event from ops.alerts") == [("sync_failed:1",)]


def test_a_request_whose_runs_end_too_early_fails_after_the_third(dagster: dg.DagsterInstance, database: Database, clever_id: str) -> None:
    """R11.4: each run ended before its sync began. A new one is started unless one is starting; after the third the row fails, with an
    alert and a reason."""
    rows(database, PLAIN)
    add_run(dagster, FAILURE, sync_id=7)  # of another request
    add_run(dagster, FAILURE)
    assert starting(dagster) == [("request-1-1", clever_id)]
    add_run(dagster, dg.DagsterRunStatus.CANCELED)
    assert starting(dagster) == [("request-1-2", clever_id)]
    add_run(dagster, dg.DagsterRunStatus.STARTING)
    assert starting(dagster) == []
    (waiting,) = dagster.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING]))
    dagster.delete_run(waiting.run_id)
    add_run(dagster, dg.DagsterRunStatus.NOT_STARTED)  # created by a daemon that died: the same run key launches it
    assert starting(dagster) == [("request-1-2", clever_id)]
    add_run(dagster, FAILURE)
    (made,) = dagster.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.NOT_STARTED]))
    dagster.delete_run(made.run_id)
    assert starting(dagster) == []
    assert rows(database, "select status, message, finished_at is not null from ops.syncs") == [("failed", GAVE_UP, True)]
    assert rows(database, "select event, is_urgent, facts ->> 'message' from ops.alerts") == [("sync_failed:1", True, GAVE_UP)]
    assert starting(dagster) == []


def test_from_request_to_end(dagster: dg.DagsterInstance, database: Database, clever_id: str) -> None:
    """R11.3, R11.4: the run begins the sync of the row, and the row names the run. The sync answers the other waiting request too."""
    rows(database, PLAIN)
    rows(database, PLAIN)
    result = tick(dagster)
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or []
    ended = run(dagster, clever_id, **request.tags)
    assert ended.success
    assert origin_of(ended.dagster_run).sync_id == 1
    first, second = rows(database, "select status, requested_by, dagster_run_id, message from ops.syncs order by sync_id")
    assert first[:3] == ("successful", "the application", ended.run_id)
    assert (second[0], second[3]) == ("skipped", "Answered by sync 1.")
    assert starting(dagster) == []


def test_a_request_whose_run_finds_the_lock_taken_stays_queued(dagster: dg.DagsterInstance, database: Database, clever_id: str) -> None:
    """R11.2: somebody started a sync between the tick and the run. The run fails, and the next tick starts another one."""
    rows(database, PLAIN)
    with database.engine.connect() as connection, district_lock(connection, 1, clever_id):
        ended = run(dagster, clever_id, **{"roster/sync_id": "1"})
    assert not ended.success
    assert rows(database, "select status from ops.syncs") == [("queued",)]
    assert starting(dagster) == [("request-1-1", clever_id)]


def test_a_request_that_is_answered_before_its_run_begins(dagster: dg.DagsterInstance, database: Database, clever_id: str) -> None:
    """R11.4: the run of request 2 was started, then that of request 1, whose row became visible later. The sync of 1 answers 2. The run of
    2 succeeds, makes no sync, and reports no result of any asset or check; it says which sync has answered."""
    rows(database, PLAIN)
    rows(database, PLAIN)
    assert run(dagster, clever_id, **request_tags(1)).success
    before = rows(database, "select * from ops.syncs order by sync_id")
    late = run(dagster, clever_id, **request_tags(2))
    assert late.success
    assert rows(database, "select * from ops.syncs order by sync_id") == before
    assert not late.asset_materializations_for_node("sync")
    assert not late.get_asset_check_evaluations()
    (observation,) = late.asset_observations_for_node("sync")
    assert observation.partition == clever_id
    assert observation.metadata["no_sync"].value == "Request 2 has ended already (skipped). Answered by sync 1."
    assert rows(database, "select event from ops.alerts where kind in ('sync_failed', 'run_failed')") == []
    assert starting(dagster) == []


def test_many_requests_are_one_query_to_dagster(dagster: dg.DagsterInstance, database: Database, clever_id: str) -> None:
    """R11.2: and the runs of one district do not count for another."""
    rows(database, "insert into app.districts (clever_id, name, profile, status) select 'd' || n, 'D', 'twig_science', 'active' "
                   "from generate_series(1, 30) as n")  # fmt: skip
    rows(
        database,
        "insert into ops.syncs (district_id, requested_role) select district_id, 'account_owner' from app.districts where name = 'D'",
    )
    add_run(dagster, dg.DagsterRunStatus.STARTED, sync_id=2)
    add_run(dagster, FAILURE, sync_id=3)
    found = starting(dagster)
    assert len(found) == 29
    assert found[:2] == [("request-1-0", "d1"), ("request-3-1", "d3")]


TAGS = {
    "a trigger that is not of the night": {"roster/trigger": "initial"},
    "an unknown trigger": {"roster/trigger": "always"},
    "no number": {"roster/sync_id": "one"},
    "too large a number": {"roster/sync_id": "99999999999999999999"},
    "no request": {"roster/sync_id": "77"},
    "the request of another district": {"roster/sync_id": "1"},
}


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
def test_tags_that_do_not_fit_are_refused(dagster: dg.DagsterInstance, database: Database, clever_id: str, tags: dict[str, str]) -> None:
    """R13.1: anybody can write them at the UI. Nothing is answered or synced, and the message names the tag or the request."""
    with database.engine.begin() as connection:
        record_agreement(connection, Agreement("another", "Test", "typing_agent", "test.example.org"))
    rows(database, "insert into ops.syncs (district_id, requested_by) values (2, 'the application')")
    ended = run(dagster, clever_id, **tags)
    assert not ended.success
    (event,) = ended.get_step_failure_events()
    assert event.step_failure_data.user_failure_data is not None
    assert next(iter(tags)).split("/")[0] in str(event.step_failure_data.user_failure_data.description) or "request" in str(
        event.step_failure_data.user_failure_data.description
    )
    assert rows(database, "select sync_id, status, dagster_run_id from ops.syncs") == [(1, "queued", None)]


def test_who_launched_a_run_is_recorded(dagster: dg.DagsterInstance, database: Database, clever_id: str) -> None:
    """R13.1: a schedule, a sensor, or somebody at the UI; not what the tag `requested_by` says."""
    launched = [
        {"dagster/schedule_name": "nightly", "roster/trigger": "scheduled"},
        {"dagster/sensor_name": "refresh"},
        {"requested_by": "A"},
    ]
    for tags in launched:
        assert run(dagster, clever_id, **tags).success
    assert rows(database, "select principal, requested_by from ops.syncs order by sync_id") == [
        ("schedule:nightly", None),
        ("sensor:refresh", "dagster"),
        ("dagster:ui", "A"),
    ]
