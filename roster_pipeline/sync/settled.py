"""Districts in which the last sync has left nothing to do: when nothing has changed since, neither has the answer.

Belongs here: what a plan is made from, as two fingerprints, and the row of `ops.settled`. Does not belong here: the plan itself
(`dbt_like_sql/`), single records that are known again (`recall.py`), and what is done where little has changed (`touched.py`).

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
from roster_pipeline.database.tables import holds, settled, syncs
from roster_pipeline.sync.brakes import PENDING

_STATE = sa.text(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Settled:
    """What the last applied sync of a district has left, if nobody has written anything since.

    Attributes:
        sync_id: that sync.
        since_sync_id: the sync that compared everything.
        snapshot: the fingerprint of what Clever sent.
        counts: of the sync.
    """

    sync_id: int
    since_sync_id: int
    snapshot: str
    counts: Mapping[str, Any]

    def answers(self, snapshot: str) -> bool:
        """Whether a sync of this snapshot would do, and find, what the last one did: nothing."""
        return self.snapshot == snapshot and not self.counts["changes"]


def find_settled(connection: Connection, district_id: int) -> Settled | None:
    """The district's row, where it is true of what is in the tables now."""
    query = (
        sa.select(settled, syncs.c.counts)
        .join(syncs, syncs.c.sync_id == settled.c.sync_id)
        .where(settled.c.district_id == district_id, ~_has_pending_holds(district_id))
    )
    row = connection.execute(query).mappings().one_or_none()
    # What takes time is asked last.
    if row is None or row["state"] != _state(connection, district_id):
        return None
    return Settled(row["sync_id"], row["since_sync_id"], row["snapshot"], row["counts"])


def repeat(connection: Connection, district_id: int, found: Settled, sync_id: int) -> None:
    """Let this sync stand for the last one: what that found about the records, this one has found too."""
    connection.execute(_COPY_QUARANTINE, {"sync_id": sync_id, "last": found.sync_id})
    connection.execute(sa.update(settled).where(settled.c.district_id == district_id).values(sync_id=sync_id))


def settle(connection: Connection, district_id: int, snapshot: str, sync_id: int, *, since_sync_id: int | None) -> None:
    """Note what a sync has left, after all is written.

    Args:
        since_sync_id: the sync that compared everything. None if this one does not settle the district: something is held, or somebody had
            approved something, or it was the first plan, which has no brakes but one (R7.6).
    """
    connection.execute(sa.delete(settled).where(settled.c.district_id == district_id))
    if since_sync_id is not None:
        row = {"district_id": district_id, "sync_id": sync_id, "snapshot": snapshot, "since_sync_id": since_sync_id}
        connection.execute(sa.insert(settled).values(**row, state=_state(connection, district_id)))


_COPY_QUARANTINE = sa.text("""
    insert into ops.quarantine (sync_id, district_id, resource, clever_id, rule, severity)
    select :sync_id, district_id, resource, clever_id, rule, severity from ops.quarantine where sync_id = :last
""")


def _has_pending_holds(district_id: int) -> sa.ColumnElement[bool]:
    return sa.exists().where(holds.c.district_id == district_id, holds.c.status.in_(PENDING))


def _state(connection: Connection, district_id: int) -> str:
    return f"{code_digest()} {connection.execute(_STATE, {'district_id': district_id}).scalar_one()}"


@cache
def code_digest() -> str:
    """Of every rule: another release asks anew."""
    package = Path(roster_pipeline.__file__).parent
    files = sorted([*package.rglob("*.py"), *package.rglob("*.sql"), *SQL.rglob("*.sql")])
    return blake2b(b"".join(file.read_bytes() for file in files), digest_size=16).hexdigest()
