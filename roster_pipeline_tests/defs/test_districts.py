"""The partitions equal app.districts (R11.1)."""

import dagster as dg
import sqlalchemy as sa

from roster_pipeline.database.engine import Database
from roster_pipeline.defs.districts import add_missing_partitions, districts_partitions
from roster_pipeline.defs.resources import RosterDatabase

UNKNOWN, SYNCED_ONCE = "5f0000000000000000000001", "5f0000000000000000000002"


def tick(instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    with dg.build_sensor_context(instance=instance, resources={"roster_database": RosterDatabase()}) as context:
        result = districts_partitions(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def requested(result: dg.SensorResult | dg.SkipReason) -> list[tuple[str, list[str]]]:
    assert isinstance(result, dg.SensorResult)
    return [(type(each).__name__, list(each.partition_keys)) for each in result.dynamic_partitions_requests or []]


def test_a_recorded_district_becomes_a_partition(environment: None, clever_id: str) -> None:
    """The next tick has nothing to do."""
    with dg.DagsterInstance.ephemeral() as instance:
        assert ("AddDynamicPartitionsRequest", [clever_id]) in requested(tick(instance))
        instance.add_dynamic_partitions("districts", [clever_id])
        assert isinstance(tick(instance), dg.SkipReason)


def test_an_unknown_partition_is_removed_unless_it_has_a_history(environment: None, database: Database) -> None:
    """Anybody can add a partition in the UI. A partition that was ever synced stays, even without its district."""
    with database.engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from app.districts")).scalar_one() == 0
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("districts", [UNKNOWN, SYNCED_ONCE])
        instance.report_runless_asset_event(dg.AssetMaterialization(["clever", "districts"], partition=SYNCED_ONCE))
        assert ("DeleteDynamicPartitionsRequest", [UNKNOWN]) in requested(tick(instance))


def test_partitions_exist_when_the_ui_starts(instance: dg.DagsterInstance, database: Database, clever_id: str) -> None:
    """`roster dev` adds them on the instance of DAGSTER_HOME, and removes none."""
    instance.add_dynamic_partitions("districts", [UNKNOWN])
    add_missing_partitions(database)
    assert set(instance.get_dynamic_partitions("districts")) == {clever_id, UNKNOWN}
