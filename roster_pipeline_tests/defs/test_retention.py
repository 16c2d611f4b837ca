"""The daily clean-up in Dagster: which runs are deleted with their logs. No asset or partition loses its status."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from sqlalchemy import create_engine

from roster_pipeline.database.engine import Database
from roster_pipeline.definitions import defs
from roster_pipeline.defs import retention
from roster_pipeline.defs.retention import prune_runs
from roster_pipeline.settings import settings

PARTITIONS = dg.StaticPartitionsDefinition(["a", "b"])


@dg.asset(partitions_def=PARTITIONS, config_schema={"fails": dg.Field(bool, default_value=False)})
def district(context: dg.AssetExecutionContext) -> None:
    print("a line in the compute log")  # noqa: T201
    if context.op_execution_context.op_config["fails"]:
        raise dg.Failure("as asked")


@dg.asset
def whole() -> None:
    """An asset without partitions."""


@dg.op(config_schema={"partitions": dg.Field([str], default_value=[])})
def shard(context: dg.OpExecutionContext) -> None:
    """A run that syncs many districts."""
    for partition in context.op_config["partitions"]:
        context.log_event(dg.AssetMaterialization("district", partition=partition))


@dg.job
def shards() -> None:
    shard()


TEST = dg.Definitions(
    assets=[district, whole],
    jobs=[shards, dg.define_asset_job("one", [district]), dg.define_asset_job("all", [whole])],
    executor=dg.in_process_executor,
)


def run(instance: dg.DagsterInstance, job: str, partition: str | None = None, **config: object) -> str:
    """Run a job of the definitions above. Returns the run's id."""
    ops = {"shard" if job == "shards" else "district": {"config": config}} if config else {}
    result = TEST.resolve_job_def(job).execute_in_process(
        run_config={"ops": ops}, partition_key=partition, instance=instance, raise_on_error=False
    )
    return result.run_id


def make_old(database: Database, *run_ids: str, days: int = 61) -> None:
    """Make these runs look as if they had been created so many days ago."""
    engine = create_engine(database.dagster_url)
    try:
        with engine.begin() as connection:
            connection.execute(
                sa.text("update runs set create_timestamp = :made where run_id = any(:runs)"),
                {"made": datetime.now(UTC).replace(tzinfo=None) - timedelta(days=days), "runs": list(run_ids)},
            )
    finally:
        engine.dispose()


def left(instance: dg.DagsterInstance) -> set[str]:
    return {each.run_id for each in instance.get_runs()}


def prune(instance: dg.DagsterInstance, **more: int) -> int:
    """Prune as if all present runs were old."""
    return prune_runs(instance, older_than=datetime.now(UTC) + timedelta(days=1), **more)


def status(instance: dg.DagsterInstance) -> dict[str, str]:
    """The status of each partition, as the UI shows it."""
    found = instance.get_status_by_partition(dg.AssetKey("district"), ["a", "b"], PARTITIONS)
    return {partition: found_status.name for partition, found_status in (found or {}).items() if found_status is not None}


@pytest.fixture
def dagster() -> Iterator[dg.DagsterInstance]:
    """An instance that lasts as long as the test."""
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def test_the_newest_run_of_each_partition_stays(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """Older runs are deleted with their compute logs, and nothing else of the folder is. The status of every partition stays."""
    old, newest_a, newest_b = run(instance, "one", "a"), run(instance, "one", "a"), run(instance, "one", "b")
    failed = run(instance, "one", "a", fails=True)
    retried = run(instance, "one", "a")
    before = status(instance)
    assert before == {"a": "MATERIALIZED", "b": "MATERIALIZED"}
    storage = tmp_path / "storage"
    logs = {each: list((storage / each / "compute_logs").glob("*.out")) for each in (old, newest_b)}
    assert all(logs.values())
    (storage / "somebody_elses").mkdir()

    assert prune(instance) == 3
    assert left(instance) == {newest_b, retried}
    assert status(instance) == before
    assert {each.name for each in storage.iterdir()} >= {newest_b, retried, "somebody_elses"}
    assert not {old, newest_a, failed} & {each.name for each in storage.iterdir()}
    assert all(each.exists() for each in logs[newest_b])
    for removed in (old, newest_a, failed):
        assert instance.get_records_for_run(removed).records == []
    assert prune(instance) == 0


def test_a_partition_that_failed_last_keeps_its_status(dagster: dg.DagsterInstance) -> None:
    """The run that failed last stays, and so does the run of the newest materialization."""
    runs = [run(dagster, "one", "a", fails=fails) for fails in (False, True, False, True, True)]
    assert status(dagster)["a"] == "FAILED"
    assert prune(dagster) == 3
    assert left(dagster) == {runs[2], runs[4]}
    assert status(dagster)["a"] == "FAILED"
    assert dagster.get_materialized_partitions(dg.AssetKey("district")) == {"a"}


def test_a_run_of_many_partitions_stays_for_any_of_them(dagster: dg.DagsterInstance) -> None:
    """R11.1: the run of a shard is deleted when every district in it has a newer one."""
    both = run(dagster, "shards", partitions=["a", "b"])
    run(dagster, "one", "b")
    assert prune(dagster) == 0
    assert both in left(dagster)
    newest = run(dagster, "shards", partitions=["a"])
    assert prune(dagster) == 1
    assert newest in left(dagster)
    assert dagster.get_materialized_partitions(dg.AssetKey("district")) == {"a", "b"}


def test_an_asset_without_partitions_keeps_its_newest_run(dagster: dg.DagsterInstance) -> None:
    _, newest = run(dagster, "all"), run(dagster, "all")
    assert prune(dagster) == 1
    assert left(dagster) == {newest}


def test_young_and_unfinished_runs_stay(instance: dg.DagsterInstance, database: Database) -> None:
    """The age of a run counts from its creation. A run that has not ended is never deleted, however old."""
    old, young = run(instance, "shards"), run(instance, "shards")
    job = TEST.resolve_job_def("shards")
    unfinished = [
        instance.create_run_for_job(job, status=each).run_id for each in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED)
    ]
    make_old(database, old, *unfinished)
    make_old(database, young, days=59)
    assert prune_runs(instance, older_than=datetime.now(UTC) - timedelta(days=60)) == 1
    assert left(instance) == {young, *unfinished}


def test_a_day_has_a_limit_and_the_oldest_are_deleted_first(dagster: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if pages of runs that stay come before those that are deleted."""
    monkeypatch.setattr(retention, "_PAGE", 2)
    newest = [run(dagster, "one", partition) for partition in ("a", "b")] + [run(dagster, "all")]
    runs = [run(dagster, "shards") for _ in range(5)]
    assert prune(dagster, limit=3) == 3
    assert left(dagster) == {*newest, *runs[3:]}
    assert prune(dagster, limit=3) == 2
    assert left(dagster) == set(newest)


def test_the_job_cleans_both(instance: dg.DagsterInstance, database: Database, clever_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It uses the ages of the environment. Its own run stays."""
    old = [run(instance, "shards") for _ in range(2)]
    make_old(database, old[0], days=3)
    make_old(database, old[1], days=1)
    with database.engine.begin() as connection:
        connection.execute(
            sa.text(
                "insert into ops.syncs (district_id, status, finished_at)"
                " select 1, 'failed', now() - make_interval(days => ago) from unnest(array[1, 5]) as ago"
            )
        )
        connection.execute(
            sa.text(
                "insert into ops.changes (sync_id, district_id, entity, entity_id, action, after, changed_at)"
                " select sync_id, 1, 'users', '7', 'create', '{}', now() - interval '25 hours' from ops.syncs"
            )
        )
    for name, days in (("SYNCS", "4"), ("CHANGES", "1"), ("RUNS", "2")):
        monkeypatch.setenv(f"ROSTER_KEEP_{name}_DAYS", days)
    result = defs.resolve_job_def("retention").execute_in_process(instance=instance)
    assert result.success
    with database.engine.connect() as connection:
        assert connection.execute(sa.text("select sync_id from ops.syncs")).scalars().all() == [1]
        assert connection.execute(sa.text("select sync_id, after from ops.changes")).all() == [(1, None)]
    assert left(instance) == {old[1], result.run_id}


def test_a_database_that_is_away_fails_the_run(environment: None, monkeypatch: pytest.MonkeyPatch, dagster: dg.DagsterInstance) -> None:
    """With our own message. Like every failed run, it makes an alert."""
    monkeypatch.setenv("ROSTER_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    settings.cache_clear()
    result = defs.resolve_job_def("retention").execute_in_process(instance=dagster, raise_on_error=False)
    [event] = result.get_step_failure_events()
    assert "does not answer" in str(event.step_failure_data.user_failure_data)


def test_it_is_due_once_a_day_away_from_the_nights() -> None:
    """R11.1: at 10:00 on the wall clock in Los Angeles. The schedule is on, and the job has its own lane and may run for an hour."""
    schedule = defs.resolve_schedule_def("retention")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 10 * * *", "America/Los_Angeles")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert schedule.job_name == "retention"
    job = defs.resolve_job_def("retention")
    assert job.executor_def.name == "in_process"
    assert job.tags == {"roster/lane": "retention", "dagster/max_runtime": "3600"}
