"""The last snapshot and the last plan of a district, as a whole: all its rows in `staging` and `reconcile` (R18.1, R18.3).

Belongs here: removing them. Does not belong here: when (`fleet/retention.py`, `support/offboarding.py`), and how a sync writes them
(`sync/apply.py`).
"""

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.migrate import known_tables


def clear_plan(connection: Connection, district_id: int) -> dict[str, int]:
    """Remove them in the caller's transaction, with the state that the next sync would compare itself with. Returns rows by table.

    The next sync reads every record again, and plans the whole district. It deletes nobody who is still shared: who is linked is decided by
    `app` alone.
    """
    tables = [each for each in known_tables() if each.startswith(("staging.", "reconcile."))]
    statements = {table: sa.text(f"delete from {table} where district_id = :district_id") for table in [*tables, "ops.settled"]}  # noqa: S608
    removed = {table: connection.execute(each, {"district_id": district_id}).rowcount for table, each in statements.items()}
    return {table: rows for table, rows in removed.items() if rows}
