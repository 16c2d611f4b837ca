"""Unchanged districts: if nothing has changed since a sync that had nothing to write, its result is repeated without a plan.

Belongs here: two fingerprints of everything that a plan is made from, and the row of `ops.settled`. Does not belong here: the plan
(`dbt_like_sql/`), single seen records (`restore.py`), and plans of districts in which little has changed (`incremental.py`).

A sync records its state unless a brake has tripped. So nothing is decided here: the same data has the same result, and only the result
"nothing to write" is repeated. The only time that a plan depends on is when an approval expires, so a district with a pending hold never
counts as unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

import roster_pipeline
from roster_pipeline.database.models import SQL
from roster_pipeline.database.runner import local_name
from roster_pipeline.database.tables import PENDING_HOLDS, holds, syncs, unchanged_districts
from roster_pipeline.sync.findings import repeat_findings
from roster_pipeline.sync.plan import PLANS
from roster_pipeline.sync.session import PlanningContext

_STATE = sa.text(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


# Ends the text of a state in which a window has deferred something (R14.3).
_DEFERRED = ", additions_only"

# For each table of `app`, the number of its rows and a sum over their versions (`unchanged.sql`).
State = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class LastState:
    """The state that the last applied sync of a district left. Nobody has written anything since.

    Attributes:
        sync_id: the last applied sync.
        since_sync_id: the sync that made the last full plan.
        snapshot: the fingerprint of its pull.
        state: the state of the tables.
        counts: the counts of the sync.
        deferred: the number of rows that a window keeps (R14.3).
    """

    sync_id: int
    since_sync_id: int
    snapshot: str
    state: State
    counts: Mapping[str, Any]
    deferred: int

    def is_repeated_by(self, snapshot: str) -> bool:
        """Whether a sync of this snapshot has the same result as the last sync: nothing to write."""
        return self.snapshot == snapshot and not self.counts["changes"]


def find_last_state(connection: Connection, district_id: int, is_additions_only: bool = False) -> LastState | None:
    """The recorded state of the district; None if there is none, or if the tables have another state now.

    What a window has deferred is left to do when it is over, so that state is none outside of one.
    """
    query = (
        sa.select(unchanged_districts, syncs.c.counts)
        .join(syncs, syncs.c.sync_id == unchanged_districts.c.sync_id)
        .where(unchanged_districts.c.district_id == district_id, ~_has_pending_holds(district_id))
    )
    row = connection.execute(query).mappings().one_or_none()
    # The slow query comes last.
    if row is None or (_DEFERRED in row["state"] and not is_additions_only):
        return None
    if row["state"].removesuffix(_DEFERRED) != _text(state := state_of(connection, district_id)):
        return None
    deferred = row["counts"].get("deferred", 0) if _DEFERRED in row["state"] else 0
    return LastState(row["sync_id"], row["since_sync_id"], row["snapshot"], state, row["counts"], deferred)


def repeat(context: PlanningContext, last: LastState) -> None:
    """Record this sync as a repetition of the last one: the same findings, and the same state."""
    repeat_findings(context)
    context.connection.execute(_COPY_QUARANTINE, {"sync_id": context.sync_id, "last": last.sync_id})
    context.connection.execute(
        sa.update(unchanged_districts).where(unchanged_districts.c.district_id == context.district_id).values(sync_id=context.sync_id)
    )


def record_state(context: PlanningContext, snapshot: str, state: State, since_sync_id: int, deferred: int) -> None:
    """Record the state that this sync leaves.

    The caller does not record it if a brake has tripped (an act is held or was approved), nor after the first plan, which has only one
    brake (R7.6).

    Args:
        state: the state of the tables, with the rows that this sync writes.
        since_sync_id: the sync that made the last full plan.
        deferred: the number of rows that a window keeps.
    """
    row = {"district_id": context.district_id, "sync_id": context.sync_id, "snapshot": snapshot, "since_sync_id": since_sync_id}
    context.connection.execute(sa.insert(unchanged_districts).values(**row, state=_text(state) + (_DEFERRED if deferred else "")))


def delete_state(connection: Connection, district_id: int) -> None:
    """Delete the recorded state: this sync is about to change it."""
    connection.execute(sa.delete(unchanged_districts).where(unchanged_districts.c.district_id == district_id))


# The columns that identify a row of `app` in the model that plans its table (PLANS).
_KEYS = {
    "schools": ("school_id",),
    "classrooms": ("classroom_id",),
    "users": ("user_id",),
    "user_roles": ("user_id", "role", "school_id"),
    "enrollments": ("classroom_id", "user_id", "role"),
}


def state_of(connection: Connection, district_id: int) -> State:
    """The state of the tables now."""
    return {row.part: (row.rows, int(row.versions)) for row in connection.execute(_STATE, {"district_id": district_id})}


def state_after(connection: Connection, district_id: int, before: State, changes: Mapping[str, Mapping[str, int]]) -> State:
    """The state of the tables after the plan is applied in this transaction.

    It is computed before the writes. If it were read afterwards, the rows would stay locked while it is read.

    Args:
        changes: number of rows that the plan writes, by table and action. Each is a new row or a new version of a row.
    """
    own = int(connection.execute(sa.text("select hashtextextended(cast(cast(pg_current_xact_id() as xid) as text), 0)")).scalar_one())
    after = dict(before)
    for table, actions in changes.items():
        # A role of the whole district has no school.
        same = " and ".join(f"existing.{key} {'is not distinct from' if key == 'school_id' else '='} plan.{key}" for key in _KEYS[table])
        query = f"""
            select count(*) as rows, coalesce(sum(hashtextextended(cast(existing.xmin as text), 0)), 0) as versions
            from {local_name(PLANS[table])} as plan
            inner join app.{table} as existing on existing.district_id = :district_id and {same}
        """  # noqa: S608  (our own names)
        replaced = connection.execute(sa.text(query), {"district_id": district_id}).one()
        rows, versions = before.get(table, (0, 0))
        written = sum(actions.values())
        after[table] = (rows + written - replaced.rows, versions + written * own - int(replaced.versions))
    return after


_COPY_QUARANTINE = sa.text("""
    insert into ops.quarantine (sync_id, district_id, resource, clever_id, rule, severity)
    select :sync_id, district_id, resource, clever_id, rule, severity from ops.quarantine where sync_id = :last
""")


def _has_pending_holds(district_id: int) -> sa.ColumnElement[bool]:
    return sa.exists().where(holds.c.district_id == district_id, holds.c.status.in_(PENDING_HOLDS))


def _text(state: State) -> str:
    return ", ".join([code_digest(), *(f"{part} {rows} {versions}" for part, (rows, versions) in sorted(state.items()))])


@cache
def code_digest() -> str:
    """A hash of all code. After an upgrade no recorded state matches, so every district is planned again."""
    package = Path(roster_pipeline.__file__).parent
    files = sorted([*package.rglob("*.py"), *package.rglob("*.sql"), *SQL.rglob("*.sql")])
    return blake2b(b"".join(file.read_bytes() for file in files), digest_size=16).hexdigest()
