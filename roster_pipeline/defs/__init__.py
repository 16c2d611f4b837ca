"""Everything that is Dagster: assets, checks, jobs, schedules and sensors. They are thin: they call `sync/` and `fleet/`, and report.

Does not belong here: any decision about rosters, any write to the application's tables, any SQL. `definitions.py` puts the parts together.
"""
