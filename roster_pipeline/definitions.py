"""Dagster's entry point: puts the parts of `defs/` together, and nothing else. Loading it touches no network, database, secret or clock."""

import dagster as dg

from roster_pipeline.defs.districts import districts_partitions
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.sync import AGREEMENT, job, sync_assets

defs = dg.Definitions(
    assets=[sync_assets, *AGREEMENT],
    jobs=[job],
    sensors=[districts_partitions],
    resources={"roster_database": RosterDatabase()},
    # One process per run: every further one costs seconds, and a sync is one step.
    executor=dg.in_process_executor,
)
