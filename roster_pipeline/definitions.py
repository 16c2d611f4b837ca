"""Dagster's entry point: puts the parts of `defs/` together, and nothing else. Loading it uses no network, database, secret or clock."""

import dagster as dg

from roster_pipeline.defs.alerts import alerts, failed_runs
from roster_pipeline.defs.by_day import by_day
from roster_pipeline.defs.connections import connections
from roster_pipeline.defs.districts import districts_partitions
from roster_pipeline.defs.freshness import SYNCS, fresh, freshness, freshness_job, refresh
from roster_pipeline.defs.nightly import SCHEDULES
from roster_pipeline.defs.requests import requests
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.retention import job as retention_job
from roster_pipeline.defs.retention import schedule as retention_schedule
from roster_pipeline.defs.shards import job as shard_job
from roster_pipeline.defs.sync import AGREEMENT, job, sync_assets

defs = dg.Definitions(
    assets=[sync_assets, *AGREEMENT, SYNCS],
    asset_checks=[fresh],
    jobs=[job, shard_job, retention_job, freshness_job],
    schedules=[*SCHEDULES, retention_schedule],
    sensors=[districts_partitions, requests, alerts, failed_runs, connections, refresh, by_day, freshness],
    resources={"roster_database": RosterDatabase()},
    # A sync is one step. A second process per run would only cost seconds.
    executor=dg.in_process_executor,
)
