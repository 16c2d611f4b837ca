"""The unattended work for all districts: processes, requests, freshness, windows, recovery, retention, health.

Does not belong here: the steps of one sync (`sync/`), and Dagster, which starts this work (`defs/`).
"""
