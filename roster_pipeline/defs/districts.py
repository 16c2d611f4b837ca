"""The partitions: one per district, named by its Clever id (R11.1).

Belongs here: the partitions definition, and the sensor that keeps it equal to `app.districts`. Does not belong here: which districts sync
tonight (`nightly.py`).
"""

import dagster as dg

from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.districts.agreement import all_districts

districts = dg.DynamicPartitionsDefinition(name="districts")

# All assets of a district are materialized together, so this one shows whether the partition has any history.
_ANY_ASSET = dg.AssetKey(["clever", "districts"])


def missing_and_unknown(instance: dg.DagsterInstance, database: Database) -> tuple[list[str], list[str]]:
    """Clever ids of districts without a partition, and unknown partitions: they have neither a district nor a sync (a typing error)."""
    with translate_database_errors(), database.engine.connect() as connection:
        recorded = {district.clever_id for district in all_districts(connection)}
    present = set(instance.get_dynamic_partitions("districts"))
    unknown = present - recorded
    if unknown:
        unknown -= instance.get_materialized_partitions(_ANY_ASSET)
    return sorted(recorded - present), sorted(unknown)


def add_missing_partitions(database: Database) -> None:
    """Give every district its partition now, on the instance of DAGSTER_HOME."""
    with dg.DagsterInstance.get() as instance:
        missing, _ = missing_and_unknown(instance, database)
        instance.add_dynamic_partitions("districts", missing)


@dg.sensor(
    name="districts_partitions",
    description="Keeps the partitions equal to app.districts, so that a district can be synced in Dagster as soon as it is recorded.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def districts_partitions(context: dg.SensorEvaluationContext, roster_database: RosterDatabase) -> dg.SensorResult | dg.SkipReason:
    """Adds partitions of new districts. Removes partitions without a district, unless they have a history."""
    with roster_database.open() as database:
        missing, unknown = missing_and_unknown(context.instance, database)
    if not missing and not unknown:
        return dg.SkipReason("The partitions equal app.districts.")
    return dg.SensorResult(dynamic_partitions_requests=[districts.build_add_request(missing), districts.build_delete_request(unknown)])
