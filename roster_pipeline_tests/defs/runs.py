"""Runs a job for one district, and reads the events of the run.

Belongs here: helpers that the tests of runs share. Does not belong here: assertions about results.
"""

from typing import Any

import dagster as dg

from roster_pipeline.definitions import defs
from roster_pipeline.defs import shards


def run(instance: dg.DagsterInstance, clever_id: str, *, job: str = "sync_district", **tags: str) -> dg.ExecuteInProcessResult:
    """Run a job for the district's partition."""
    instance.add_dynamic_partitions("districts", [clever_id])
    return defs.resolve_job_def(job).execute_in_process(partition_key=clever_id, instance=instance, tags=tags, raise_on_error=False)


def numbers(result: dg.ExecuteInProcessResult, name: str) -> dict[str, Any]:
    """The metadata of one asset's materialization."""
    (event,) = [each for each in result.asset_materializations_for_node("sync") if each.asset_key == dg.AssetKey(name.split("/"))]
    return {key: value.value for key, value in event.metadata.items()}


def check(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    """One check's result."""
    (found,) = [each for each in result.get_asset_check_evaluations() if each.check_name == name]
    return found


def check_numbers(result: dg.ExecuteInProcessResult, name: str) -> dict[str, Any]:
    """The metadata of one check's result."""
    return {key: value.value for key, value in check(result, name).metadata.items()}


def records(table: dg.TableMetadataValue) -> list[dict[str, Any]]:
    """The rows of a table in metadata."""
    return [dict(record.data) for record in table.records]


def run_shard(instance: dg.DagsterInstance, *districts: str) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("sync_shard").execute_in_process(
        run_config=dg.RunConfig({"sync_districts": shards.Shard(districts=list(districts))}),
        instance=instance,
        tags={"roster/trigger": "scheduled"},
        raise_on_error=False,
    )


def outcomes(result: dg.ExecuteInProcessResult) -> dict[str, tuple[str, int]]:
    """District -> status and attempts, from the table at the end of the run."""
    (output,) = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_OUTPUT]
    table = output.step_output_data.metadata["outcomes"]
    assert isinstance(table, dg.TableMetadataValue)
    return {str(row.data["district"]): (str(row.data["status"]), int(str(row.data["attempts"]))) for row in table.records}
