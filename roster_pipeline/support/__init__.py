"""What people ask or decide about a district: holds, the readiness report, the previews of a sync and of a rollover, the explanation of one
person, and purging users.

Does not belong here: printing (`commands/`), and the decisions of a sync (`sync/`, `dbt_like_sql/`).
"""
