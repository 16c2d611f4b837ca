"""What a person asks or decides about a district: holds, readiness, why somebody is as they are, removing people for good.

Does not belong here: printing (`commands/`), and the decisions of a sync (`sync/`, `dbt_like_sql/`).
"""
