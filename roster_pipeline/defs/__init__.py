"""Everything Dagster: assets, checks, the job, the sensor. Thin faces of `sync/`: load, call, report.

Does not belong here: any decision about rosters, any write to the application's tables, any SQL. `definitions.py` puts the parts together.
"""
