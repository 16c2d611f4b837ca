"""Districts in which the last sync has left nothing to do: when nothing has changed since, neither has the answer.

Belongs here: what a plan is made from, as two fingerprints, and the row of `ops.settled`. Does not belong here: the plan itself
(`dbt_like_sql/`), single records that are known again (`restore.py`), and what is done where little has changed (`incremental.py`).

A sync settles a district unless something is held or was approved. So this decides nothing; it repeats an answer to the same question, and
only the answer that there was nothing to write. Of time, the only thing a plan depends on is when an approval expires: with a pending hold
no district is settled.
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
from roster_pipeline.sync.plan import PLANS
from roster_pipeline.sync.session import PlanningContext

_STATE = sa.text(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


# For each table of `app` its rows, and a number over their versions (`unchanged.sql`).
State = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Settled:
    """What the last applied sync of a district has left, if nobody has written anything since.

    Attributes:
        sync_id: that sync.
        since_sync_id: the sync that compared everything.
        snapshot: the fingerprint of what Clever sent.
        state: what is in the tables.
        counts: of the sync.
    """

    sync_id: int
    since_sync_id: int
    snapshot: str
    state: State
    counts: Mapping[str, Any]

    def answers(self, snapshot: str) -> bool:
        """Whether a sync of this snapshot would do, and find, what the last one did: nothing."""
        return self.snapshot == snapshot and not self.counts["changes"]


def find_settled(connection: Connection, district_id: int) -> Settled | None:
    """The district's row, where it is true of what is in the tables now."""
    query = (
        sa.select(unchanged_districts, syncs.c.counts)
        .join(syncs, syncs.c.sync_id == unchanged_districts.c.sync_id)
        .where(unchanged_districts.c.district_id == district_id, ~_has_pending_holds(district_id))
    )
    row = connection.execute(query).mappings().one_or_none()
    # What takes time is asked last.
    if row is None or row["state"] != _text(state := state_of(connection, district_id)):
        return None
    return Settled(row["sync_id"], row["since_sync_id"], row["snapshot"], state, row["counts"])


def repeat(context: PlanningContext, last: Settled) -> None:
    """Record this sync as a repetition of the last one: the same findings, and the same state."""
    context.connection.execute(_COPY_QUARANTINE, {"sync_id": context.sync_id, "last": last.sync_id})
    context.connection.execute(
        sa.update(unchanged_districts).where(unchanged_districts.c.district_id == context.district_id).values(sync_id=context.sync_id)
    )


def record_state(context: PlanningContext, snapshot: str, state: State, since_sync_id: int) -> None:
    """Record the state that this sync leaves.

    The caller does not record it if a brake has tripped (an act is held or was approved), nor after the first plan, which has only one
    brake (R7.6).

    Args:
        state: the state of the tables, with the rows that this sync writes.
        since_sync_id: the sync that made the last full plan.
    """
    row = {"district_id": context.district_id, "sync_id": context.sync_id, "snapshot": snapshot, "since_sync_id": since_sync_id}
    context.connection.execute(sa.insert(unchanged_districts).values(**row, state=_text(state)))


def unsettle(connection: Connection, district_id: int) -> None:
    """What was noted is true no more."""
    connection.execute(sa.delete(unchanged_districts).where(unchanged_districts.c.district_id == district_id))


# What identifies a row of `app` in the model that plans its table (PLANS).
_KEYS = {
    "schools": ("school_id",),
    "classrooms": ("classroom_id",),
    "users": ("user_id",),
    "user_roles": ("user_id", "role", "school_id"),
    "enrollments": ("classroom_id", "user_id", "role"),
}


def state_of(connection: Connection, district_id: int) -> State:
    """What is in the tables now."""
    return {row.part: (row.rows, int(row.versions)) for row in connection.execute(_STATE, {"district_id": district_id})}


def state_after(connection: Connection, district_id: int, before: State, changes: Mapping[str, Mapping[str, int]]) -> State:
    """What will be in the tables when the plan has been carried out in this transaction. Reading it afterwards would keep the rows locked
    for as long as that takes.

    Args:
        changes: rows that the plan writes, by table and action. Each of them is a new row, or a new version of one.
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
    """Of every rule: another release asks anew."""
    package = Path(roster_pipeline.__file__).parent
    files = sorted([*package.rglob("*.py"), *package.rglob("*.sql"), *SQL.rglob("*.sql")])
    return blake2b(b"".join(file.read_bytes() for file in files), digest_size=16).hexdigest()
