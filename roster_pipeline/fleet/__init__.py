"""What runs unattended, for all districts: processes, requests, freshness, recovery, retention, health.

Does not belong here: the steps of one sync (`sync/`), and Dagster, which starts what is here (`defs/`).
"""
