"""The nights in Dagster: when the schedules tick, what they start, and what a shard reports about each of its districts."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.event_api import PartitionKeyFilter
from dagster._utils.schedules import schedule_execution_time_iterator

from roster_pipeline.database.engine import Database
from roster_pipeline.definitions import defs
from roster_pipeline.defs import shards
from roster_pipeline.defs.nightly import SCHEDULES, nightly_schedules, schedule_name
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.sync import CHECKS, LAST_REPORTED_AT, SYNCED, SYNCED_AT, second_attempt, sync_assets
from roster_pipeline.districts.agreement import Agreement, record_agreement
from roster_pipeline.districts.nights import PACIFIC
from roster_pipeline.fleet.children import Failure, Outcome
from roster_pipeline.profiles import nightly_times
from roster_pipeline.sandbox import Sandbox, generate_district
from roster_pipeline.settings import settings
from roster_pipeline.sync.run import SyncReport, SyncRequest, run_sync
from roster_pipeline_tests.defs.runs import check, outcomes, run, run_shard

EVENING = datetime(2026, 11, 2, 5, tzinfo=UTC)  # 21:00 on 2026-11-01, the day on which the clock goes back


def add(database: Database, *clever_ids: str, profile: str = "typing_agent") -> None:
    with database.engine.begin() as connection:
        for clever_id in clever_ids:
            record_agreement(connection, Agreement(clever_id, "Test", profile, "test.example"))


def tick(
    instance: dg.DagsterInstance, moment: datetime, *, late: timedelta = timedelta(), shared: bool = False
) -> tuple[Sequence[dg.RunRequest], str | None]:
    """The runs that the schedule of the evening requests, or why it requests none."""
    schedule = nightly_schedules("21:00", clock=lambda _: moment + late)[shared]
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=moment,
        resources={"roster_database": RosterDatabase()},
        repository_def=defs.get_repository_def(),
    ) as context:
        evaluated = schedule.evaluate_tick(context)
    return evaluated.run_requests or [], evaluated.skip_message


@pytest.mark.parametrize(
    ("name", "first", "expected"),
    [
        ("nightly_9pm_pt", date(2026, 10, 31), ["2026-11-01T04", "2026-11-02T05", "2026-11-03T05"]),
        ("nightly_9pm_pt", date(2027, 3, 13), ["2027-03-14T05", "2027-03-15T04", "2027-03-16T04"]),
        ("nightly_midnight_pt", date(2026, 10, 31), ["2026-10-31T07", "2026-11-01T07", "2026-11-02T08"]),
        ("nightly_midnight_pt", date(2027, 3, 13), ["2027-03-13T08", "2027-03-14T08", "2027-03-15T07"]),
    ],
)
@pytest.mark.parametrize("suffix", ["", "_shards"])
def test_one_tick_a_local_day(name: str, suffix: str, first: date, expected: list[str]) -> None:
    """R11.1: also on the two days on which the clock changes. The schedules are on by default."""
    schedule = defs.get_repository_def().get_schedule_def(name + suffix)
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert isinstance(schedule.cron_schedule, str)
    from_midnight = datetime.combine(first, datetime.min.time(), PACIFIC)
    ticks = schedule_execution_time_iterator(from_midnight.timestamp(), schedule.cron_schedule, schedule.execution_timezone)
    found = [next(ticks).astimezone(UTC) for _ in expected]
    assert [f"{moment:%Y-%m-%dT%H}" for moment in found] == expected
    assert [moment.astimezone(PACIFIC).date() for moment in found] == [first + timedelta(days=day) for day in range(len(expected))]


def test_the_schedules_are_those_of_the_profiles_times() -> None:
    """Dagster keeps under the name whether a schedule is on, so that the name of a time never changes."""
    stable = {name + suffix for name in ("nightly_9pm_pt", "nightly_midnight_pt") for suffix in ("", "_shards")}
    derived = {schedule_name(at) + suffix for at in nightly_times() for suffix in ("", "_shards")}
    assert stable <= {each.name for each in SCHEDULES} == derived
    names = {"12:00": "nightly_12pm_pt", "22:30": "nightly_10_30pm_pt", "00:05": "nightly_12_05am_pt", "03:00": "nightly_3am_pt"}
    assert {at: schedule_name(at) for at in names} == names


def test_few_districts_have_a_run_each(environment: None, database: Database) -> None:
    """R11.1: only those of the evening, each with its partition. A tick that is evaluated again requests the same runs."""
    add(database, "d1", "d2")
    add(database, "midnight", profile="twig_science")
    with dg.instance_for_test() as instance:
        requested, _ = tick(instance, EVENING)
        again, _ = tick(instance, EVENING, late=timedelta(seconds=30))
        tomorrow, _ = tick(instance, EVENING + timedelta(days=1))
        nothing, why = tick(instance, EVENING, shared=True)
        assert set(instance.get_dynamic_partitions("districts")) == {"d1", "d2"}
    assert [request.partition_key for request in requested] == ["d1", "d2"]
    assert [request.run_key for request in requested] == [f"2026-11-01:nightly_9pm_pt:{district}" for district in ("d1", "d2")]
    assert [request.run_key for request in again] == [request.run_key for request in requested]
    assert not {request.run_key for request in tomorrow} & {request.run_key for request in requested}
    assert all(request.tags["roster/trigger"] == "scheduled" and request.tags["roster/lane"] == "night" for request in requested)
    assert {request.tags["dagster/max_runtime"] for request in requested} == {"3600"}
    assert (nothing, why) == ([], "2 districts are due: nightly_9pm_pt syncs them.")


def test_many_districts_share_a_few_runs(environment: None, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is in one shard, always the same one, whatever other districts are due. The schedule of single runs requests nothing."""
    monkeypatch.setenv("ROSTER_SHARD_FROM", "20")
    monkeypatch.setenv("ROSTER_SHARDS", "3")
    settings.cache_clear()
    names = [f"d{number}" for number in range(21)]
    add(database, *names)

    def shards_of(requests: Sequence[dg.RunRequest]) -> dict[str, str]:
        members = {request.run_key: request.run_config["ops"]["sync_districts"]["config"]["districts"] for request in requests}
        return {district: str(key) for key, districts in members.items() for district in districts}

    with dg.instance_for_test() as instance:
        requested, _ = tick(instance, EVENING, shared=True)
        nothing, why = tick(instance, EVENING)
        add(database, "new")
        with database.engine.begin() as connection:
            connection.exec_driver_sql("update app.districts set status = 'paused' where clever_id = 'd0'")
        later, _ = tick(instance, EVENING, shared=True)
    assert len(requested) == 3
    before, after = shards_of(requested), shards_of(later)
    assert sorted(before) == sorted(names)
    assert {district: after[district] for district in names[1:]} == {district: before[district] for district in names[1:]}
    assert {request.tags["roster/trigger"] for request in requested} == {"scheduled"}
    assert (nothing, why) == ([], "21 districts are due: nightly_9pm_pt_shards syncs them.")
    sizes: defaultdict[str, int] = defaultdict(int)
    for key in before.values():
        sizes[key] += 1
    assert set(sizes.values()) == {7}


def test_a_tick_that_comes_too_late_starts_nothing(environment: None, database: Database) -> None:
    """R11.1: after a night without the daemon, Dagster evaluates the last missed tick, however old. After three hours it is too late."""
    add(database, "d1")
    with dg.instance_for_test() as instance:
        assert len(tick(instance, EVENING, late=timedelta(hours=3))[0]) == 1
        for shared in (False, True):
            requested, why = tick(instance, EVENING, late=timedelta(hours=3, seconds=1), shared=shared)
            assert requested == []
            assert "Missed by more than 3:00:00" in str(why)


def test_no_district_is_due(environment: None, database: Database) -> None:
    """The tick is skipped with that reason."""
    with dg.instance_for_test() as instance:
        assert tick(instance, EVENING) == ([], "No district is due.")
        assert tick(instance, EVENING, shared=True) == ([], "No district is due.")


def test_the_night_leaves_one_slot_free(instance: dg.DagsterInstance) -> None:
    """R11.3: a sync that a person waits for finds a free slot. A shard may run longer than a run of one district."""
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    limits = {limit["key"]: limit["limit"] for limit in queue.tag_concurrency_limits}
    assert limits["roster/lane"] < queue.max_concurrent_runs
    assert limits["dagster/partition"] == 1
    assert defs.resolve_job_def("sync_shard").run_tags["dagster/max_runtime"] == str(shards.MAX_RUNTIME_SECONDS)


def materialized(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str | None], set[str]]:
    """(asset, partition) -> names of its metadata."""
    events = [event.materialization for event in result.all_events if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION]
    return {(each.asset_key.to_user_string(), each.partition): set(each.metadata) for each in events}


def states(instance: dg.DagsterInstance, partition: str) -> dict[str, bool]:
    """Whether each check of a district passed, in Dagster; without checks that were never reported."""
    keys = list(defs.resolve_asset_graph().asset_check_keys)
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys, PartitionKeyFilter(key=partition))
    return {f"{key.asset_key.to_user_string()}:{key.name}": record.status.value == "SUCCEEDED" for key, record in found.items()}


def expected_states(database: Database, clever_id: str) -> dict[str, bool]:
    """Whether each check passed, by the district's last sync in `ops.syncs`."""
    query = sa.text(
        "select counts from ops.syncs join app.districts using (district_id) where clever_id = :id order by sync_id desc limit 1"
    )
    with database.engine.connect() as connection:
        counts: dict[str, Any] = connection.execute(query, {"id": clever_id}).scalar_one()
    return {f"{each.asset.replace('.', '/')}:{each.name}": each.result(counts).passed for each in CHECKS} | {
        f"{SYNCED_AT.to_user_string()}:{SYNCED}": True
    }


def test_a_shard_reports_the_same_results_as_single_runs(
    instance: dg.DagsterInstance, database: Database, sandbox: Sandbox, clever_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11.1, R11.2: for every asset and check of a district. A district that fails is red, and does not stop the others."""
    monkeypatch.setattr(shards, "PAUSE_SECONDS", 0)
    other = sandbox.add(generate_district(4, 20)).id
    lost = sandbox.add(generate_district(5, 20)).id
    add(database, lost, other)
    sandbox.change(lost).disconnect()
    (student, *_) = sandbox.district(clever_id).shared("users", "student")
    sandbox.change(clever_id).patch("users", student, "name.last", "")
    instance.add_dynamic_partitions("districts", [clever_id, other, lost])

    sandbox.seen.clear()
    first = run_shard(instance, lost, clever_id, other)
    assert first.success
    assert len([each for each in sandbox.seen if "/oauth/tokens" in each.uri]) == 1, "R3.1: one list for all districts of the shard"
    assert outcomes(first) == {lost: ("failed", 1), clever_id: ("successful", 1), other: ("successful", 1)}
    graph = defs.resolve_asset_graph()
    assets = {key.to_user_string() for key in graph.materializable_asset_keys}
    assert set(materialized(first)) == {(asset, district) for asset in assets for district in (clever_id, other)}
    assert instance.get_materialized_partitions(SYNCED_AT) == {clever_id, other}
    assert states(instance, clever_id) == expected_states(database, clever_id)
    assert not states(instance, clever_id)["clever/users:last_name_missing"]
    assert states(instance, lost) == {f"{SYNCED_AT.to_user_string()}:{SYNCED}": False}
    with database.engine.connect() as connection:
        query = (
            "select clever_id, syncs.status, trigger, requested_role, dagster_run_id from ops.syncs join app.districts using (district_id)"
        )
        rows = {tuple(row) for row in connection.exec_driver_sql(query)}
    assert {row[:2] for row in rows} == {(lost, "failed"), (clever_id, "successful"), (other, "successful")}
    assert {row[3:] for row in rows} == {(None, first.run_id)}

    # The broken record is fixed, the token is back, another record breaks: every change is reported, and little else.
    sandbox.change(lost).connect()
    sandbox.change(clever_id).patch("users", student, "name.last", "B")
    sandbox.change(clever_id).patch("users", student, "name.first", "")
    second = run_shard(instance, clever_id, lost)
    assert outcomes(second) == {clever_id: ("successful", 1), lost: ("successful", 1)}
    for district in (clever_id, lost):
        assert states(instance, district) == expected_states(database, district)
    reported = [event for event in second.all_events if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION]
    assert len([event for event in reported if event.partition == clever_id]) < len(CHECKS) / 2

    alone = run(instance, clever_id)
    ours = {asset: names for (asset, partition), names in materialized(second).items() if partition == clever_id}
    assert ours == {asset: names for (asset, _), names in materialized(alone).items()}


def test_little_is_reported_about_an_unchanged_district(
    instance: dg.DagsterInstance, database: Database, sandbox: Sandbox, clever_id: str
) -> None:
    """R11.2: if nothing has changed since the last report, the sync is one observation, and all earlier results stay valid."""
    instance.add_dynamic_partitions("districts", [clever_id])
    assets = {(key.to_user_string(), clever_id) for key in defs.resolve_asset_graph().materializable_asset_keys}

    def sync_and_report() -> tuple[set[tuple[str, str | None]], list[dg.AssetObservation]]:
        result = run_shard(instance, clever_id)
        assert outcomes(result) == {clever_id: ("successful", 1)}
        assert states(instance, clever_id) == expected_states(database, clever_id)
        return set(materialized(result)), [
            event.asset_observation_data.asset_observation
            for event in result.all_events
            if event.event_type == dg.DagsterEventType.ASSET_OBSERVATION
        ]

    def sync_elsewhere() -> SyncReport:
        return run_sync(database, settings(), SyncRequest(clever_id))

    # The first sync writes, the second has nothing to write, the third finds the district unchanged.
    assert [sync_and_report() for _ in range(2)] == [(assets, [])] * 2
    built, (observed,) = sync_and_report()
    assert not built
    assert (observed.asset_key, observed.partition) == (SYNCED_AT, clever_id)
    with database.engine.connect() as connection:
        last = connection.execute(sa.text("select sync_id, counts from ops.syncs order by sync_id desc limit 1")).one()
    assert "settled_since" in last.counts
    assert observed.metadata["sync_id"].value == str(last.sync_id)
    compared = observed.metadata["last_syncs"]
    assert isinstance(compared, dg.TableMetadataValue)
    assert [(row.data["sync_id"], row.data["status"]) for row in compared.records] == [
        (3, "successful"),
        (2, "successful"),
        (1, "successful"),
    ]
    assert [bool(row.data["rows_written"]) for row in compared.records] == [False, False, True]
    assert compared.records[0].data["seconds"] == observed.metadata["sync_seconds"].value

    # A sync outside Dagster that found the district unchanged needs no report. One that made a plan does.
    assert "settled_since" in sync_elsewhere().counts
    assert not sync_and_report()[0]
    (student, *_) = sandbox.district(clever_id).shared("users", "student")
    sandbox.change(clever_id).patch("users", student, "name.last", "")
    assert "settled_since" not in sync_elsewhere().counts
    assert "settled_since" in sync_elsewhere().counts
    assert sync_and_report() == (assets, [])
    assert not sync_and_report()[0]

    # Everything is reported if somebody has wiped the asset in Dagster, or reported it by hand, or if Dagster knows a higher sync_id, of an
    # earlier database.
    instance.wipe_assets([LAST_REPORTED_AT])
    assert sync_and_report() == (assets, [])
    for metadata in ({}, {"sync_id": "1000"}):
        instance.report_runless_asset_event(dg.AssetMaterialization(LAST_REPORTED_AT, partition=clever_id, metadata=metadata))
        assert sync_and_report() == (assets, [])


def test_which_districts_are_tried_again(environment: None, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """R11.2: districts that are locked or failed with a transient error, once, after all others. Never others, and never a third time."""
    locked = Failure("running", "Another sync is running.", is_transient=True)
    down = Failure("failed", "Clever is down.", is_transient=True)
    final = Failure("failed", "There is no token.")
    answers: dict[str, list[Outcome]] = {
        "locked": [locked, locked],
        "down": [down, down],
        "better": [down, final],
        "final": [final],
        "paused": [Failure("skipped", "The district is paused.")],
    }
    asked = []

    def sync_in_child(_database: object, _settings: object, request: Any, **_: object) -> Outcome:
        asked.append(request.district)
        return answers[request.district].pop(0)

    monkeypatch.setattr(shards, "sync_in_child", sync_in_child)
    monkeypatch.setattr(shards, "PAUSE_SECONDS", 0)
    monkeypatch.setenv("ROSTER_SHARD_DISTRICTS_AT_ONCE", "1")  # Otherwise the order is any.
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_shard(instance, *answers, "final")
    assert result.success
    assert asked == ["locked", "down", "better", "final", "paused", "locked", "down", "better"]
    assert outcomes(result) == {
        "locked": ("running", 2),
        "down": ("failed", 2),
        "better": ("failed", 2),
        "final": ("failed", 1),
        "paused": ("skipped", 1),
    }
    reported = [(each.partition, each.passed) for each in result.get_asset_check_evaluations()]
    assert reported == [("down", False), ("better", False), ("final", False), ("down", False), ("better", False)]


def test_a_run_is_tried_again_once_and_only_if_that_can_help() -> None:
    """R11.2: if the database was away. There is no retry policy, because Dagster's would also restart a run that somebody cancelled."""
    transient, final = dg.Failure("The database is away."), dg.Failure("There is no token.", allow_retries=False)
    assert isinstance(second_attempt(transient, 0), dg.RetryRequested)
    assert second_attempt(transient, 1) is transient
    assert second_attempt(final, 0) is final
    assert shards.sync_districts.retry_policy is None
    assert sync_assets.op.retry_policy is None


def test_a_run_of_one_district_shows_its_failure_too(environment: None, sandbox: Sandbox, clever_id: str) -> None:
    """R11.2: in the same check as in a shard, with the reason. The check is green again after the next successful sync."""
    with dg.DagsterInstance.ephemeral() as instance:
        sandbox.change().disconnect()
        failed = run(instance, clever_id)
        sandbox.change().connect()
        succeeded = run(instance, clever_id)
    assert not failed.success
    evaluated = check(failed, SYNCED)
    assert (evaluated.passed, evaluated.severity, evaluated.partition) == (False, dg.AssetCheckSeverity.WARN, clever_id)
    assert "no token" in str(evaluated.metadata["reason"].value)
    assert check(succeeded, SYNCED).passed


def test_a_restarted_shard_syncs_the_remaining_districts(environment: None, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """R11.2: its process was killed. The districts that it had synced are not synced twice in the night."""
    add(database, "done", "held", "killed", "next")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("""
            insert into ops.syncs (district_id, status, finished_at, dagster_run_id)
            select district_id, case clever_id when 'done' then 'successful' when 'held' then 'held' else 'failed' end, now(), 'first'
            from app.districts
            where clever_id <> 'next'
        """)
    first = dg.DagsterRun("sync_shard", run_id="first")
    again = dg.DagsterRun("sync_shard", run_id="second", root_run_id="first", parent_run_id="first")
    assert shards._done_before(database, first) == {}
    assert set(shards._done_before(database, again)) == {"done", "held"}
    asked = []

    def sync_in_child(_database: object, _settings: object, request: Any, **_: object) -> Outcome:
        asked.append(request.district)
        return Failure("failed", "There is no token.")

    monkeypatch.setattr(shards, "sync_in_child", sync_in_child)
    monkeypatch.setattr(shards, "_done_before", lambda *_: {"done": 1, "held": 2})
    with dg.instance_for_test() as instance:
        result = run_shard(instance, "done", "held", "killed", "next")
    assert asked == ["killed", "next"]
    assert outcomes(result) == {"done": ("successful", 0), "held": ("successful", 0), "killed": ("failed", 1), "next": ("failed", 1)}
