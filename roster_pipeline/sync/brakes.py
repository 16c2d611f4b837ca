"""Whether a sync may do what it planned: the brakes of R7.3, the first sync of R7.6, the license policy `hold` of R9.2, and what people
approved.

Belongs here: limits, the decision that a brake trips, and the life of a row of `ops.holds` (R7.5). Does not belong here: what a brake
counts and what a hold covers (`dbt_like_sql/reconcile/`). Everything runs inside the transaction that writes, on the plan that is
written: no other way to the tables exists.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.tables import holds
from roster_pipeline.profiles import Brakes

LICENSES = "licenses"
# Holds that the next sync looks at.
PENDING = ("open", "approved", "rejected")


@dataclass(frozen=True)
class Brake:
    """One brake and what it would have to let through.

    Attributes:
        kind: as in `ops.holds.kind`.
        school_id: of `school_role`.
        role: of `district_role`, `school_role` and `new_admins`.
        collection: of `empty_collection`.
        acts: how many acts fall under it.
        active: n of R7.3.
        limit: the most acts it lets through; None where it lets none through.
        plan_hash: over the sorted acts (R7.5).
    """

    kind: str
    school_id: int | None
    role: str | None
    collection: str | None
    acts: int
    active: int
    limit: Fraction | None
    plan_hash: str

    @property
    def is_tripped(self) -> bool:
        """Strictly more than the limit (R7.3)."""
        return self.limit is None or self.acts > self.limit

    @property
    def identity(self) -> tuple[str, int | None, str | None, str | None]:
        """Which hold it is, whatever the plan."""
        return (self.kind, self.school_id, self.role, self.collection)

    def as_counts(self) -> dict[str, Any]:
        """For `ops.holds.counts`: numbers and ids only."""
        counts: dict[str, Any] = {"acts": self.acts, "active": self.active}
        if self.limit is not None:
            counts["limit"] = float(self.limit)
        if self.collection is not None:
            counts["collection"] = self.collection
        return counts


@dataclass(frozen=True)
class Decision:
    """What became of one tripped brake.

    Attributes:
        status: of its row in `ops.holds`: `approved` lets the acts through; `open` and `rejected` hold them.
        hold_id: None in a dry run of a hold that does not exist yet.
    """

    brake: Brake
    status: str
    hold_id: int | None

    @property
    def is_holding(self) -> bool:
        """Whether the acts are held."""
        return self.status != "approved"


def limit_of(kind: str, active: int, limits: Brakes) -> Fraction | None:
    """The most acts that pass: the larger of floor and share of n; None where a single one is too many."""
    floor_and_share = {
        "district_role": (limits.role_floor, limits.role_share),
        "school_role": (limits.school_floor, limits.school_share),
        "relinks": (limits.relink_floor, limits.relink_share),
        "new_admins": (limits.admin_floor, limits.admin_share),
    }
    if kind not in floor_and_share:
        return None
    floor, share = floor_and_share[kind]
    # Exact: 5 % of 300 is 15, not a float a little beside it.
    return max(Fraction(floor), Fraction(str(share)) * active)


def decide(
    connection: Connection,
    tripped: Iterable[Brake],
    *,
    kinds: Sequence[str] | None,
    district_id: int,
    sync_id: int | None,
    now: datetime,
) -> list[Decision]:
    """Hold every tripped brake, or let it through because somebody approved exactly this plan; keep `ops.holds` true (R7.5).

    Args:
        tripped: the brakes that trip on this plan.
        kinds: the kinds that were looked at; pending holds of those that no longer trip are superseded. None: all but licenses.
        sync_id: None for a dry run, which reads `ops.holds` and writes nothing.
        now: to tell whether an approval has expired.
    """
    pending = _pending(connection, district_id, kinds)
    decisions = []
    for brake in tripped:
        known = pending.pop(brake.identity, None)
        decisions.append(_decide_one(connection, brake, known, district_id=district_id, sync_id=sync_id, now=now))
    if sync_id is not None:
        for row in pending.values():
            _set_status(connection, row["hold_id"], "superseded")
    return decisions


def use(connection: Connection, decision: Decision) -> None:
    """Note that an approval has let something through. One whose every act another hold still covers has not: it stays approved (R7.5)."""
    assert decision.hold_id is not None  # noqa: S101  (what is approved is in the table)
    _set_status(connection, decision.hold_id, "used")


def _decide_one(connection: Connection, brake: Brake, known: Any, *, district_id: int, sync_id: int | None, now: datetime) -> Decision:
    replaced_by = None
    if known is not None:
        if known["plan_hash"] != brake.plan_hash:
            replaced_by = "superseded"
        elif known["status"] != "approved":
            return Decision(brake, known["status"], hold_id=known["hold_id"])
        elif known["expires_at"] is not None and known["expires_at"] <= now:
            replaced_by = "expired"
        else:
            return Decision(brake, "approved", hold_id=known["hold_id"])
    if sync_id is None:
        return Decision(brake, "open", hold_id=None)
    if replaced_by is not None:
        _set_status(connection, known["hold_id"], replaced_by)
    return Decision(brake, "open", hold_id=_open(connection, brake, district_id=district_id, sync_id=sync_id, now=now))


def _pending(connection: Connection, district_id: int, kinds: Sequence[str] | None) -> dict[Any, Any]:
    """The newest undecided or unused hold of each identity."""
    kind = holds.c.kind.in_(kinds) if kinds is not None else holds.c.kind != LICENSES
    query = sa.select(holds).where(holds.c.district_id == district_id, holds.c.status.in_(PENDING), kind).order_by(holds.c.hold_id)
    return {
        (row["kind"], row["school_id"], row["role"], row["counts"].get("collection")): row for row in connection.execute(query).mappings()
    }


def _open(connection: Connection, brake: Brake, *, district_id: int, sync_id: int, now: datetime) -> int:
    values = {
        "sync_id": sync_id,
        "district_id": district_id,
        "kind": brake.kind,
        "school_id": brake.school_id,
        "role": brake.role,
        "counts": brake.as_counts(),
        "plan_hash": brake.plan_hash,
        "created_at": now,
    }
    return int(connection.execute(sa.insert(holds).values(values).returning(holds.c.hold_id)).scalar_one())


def _set_status(connection: Connection, hold_id: int, status: str) -> None:
    connection.execute(sa.update(holds).where(holds.c.hold_id == hold_id).values(status=status))
