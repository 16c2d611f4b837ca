"""What people decide about holds (R7.5, R13.3, R13.4): listing, approving, rejecting and revoking.

Belongs here: the statuses that people set, and who may set them. Does not belong here: those that a sync sets (`sync/brakes.py`), which
opens, uses, supersedes and expires holds; and what a hold holds (`held_acts.py`). `database/tables.py` lists all statuses.

Every decision is in `ops.audit`, in the same transaction. So a later one never erases an earlier one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.audit import os_principal, record_act
from roster_pipeline.database.tables import PENDING_HOLDS, districts, holds
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.errors import PermanentError
from roster_pipeline.support.held_acts import held_user_ids

_schools = sa.table("schools", sa.column("school_id"), sa.column("name"), schema="app")
_OPEN = ("open", "rejected")
_LIST = "`roster holds` lists the holds that wait."


@dataclass(frozen=True)
class Decider:
    """Who decides about holds, and why.

    Attributes:
        by: what the person said of themselves.
        principal: who it is, as `kind:name`; None: the operating-system user of this process.
    """

    by: str | None
    reason: str | None = None
    principal: str | None = None


def list_holds(connection: Connection, *, district_id: int | None = None, every: bool = False) -> list[Mapping[str, Any]]:
    """Holds with the district's Clever id and the school's name, newest first; only pending ones unless `every` is set."""
    query = _with_names().order_by(holds.c.hold_id.desc())
    if district_id is not None:
        query = query.where(holds.c.district_id == district_id)
    if not every:
        query = query.where(holds.c.status.in_(PENDING_HOLDS))
    return [dict(row) for row in connection.execute(query).mappings()]


def find_hold(connection: Connection, hold_id: int) -> Mapping[str, Any]:
    """One hold, as `list_holds` returns it.

    Raises:
        PermanentError: there is no such hold.
    """
    return _found(connection, [hold_id], _with_names())[0]


def holds_of_sync(connection: Connection, sync_id: int, *, kind: str | None = None) -> list[int]:
    """The holds on which a sync has ended and about which nobody has decided, of one kind or of all.

    Raises:
        PermanentError: there is none.
    """
    query = sa.select(holds.c.hold_id).where(holds.c.sync_id == sync_id, holds.c.status == "open").order_by(holds.c.hold_id)
    found = list(connection.execute(query.where(holds.c.kind == kind) if kind else query).scalars()) if 0 < sync_id < 1 << 63 else []
    if not found:
        what = f"no open hold of kind {kind}" if kind else "no open hold"
        raise PermanentError(f"Sync {sync_id} has {what}.", hint=f"Only the latest sync that ended on a hold has it. {_LIST}")
    return found


def approve(
    connection: Connection, hold_ids: Sequence[int], decider: Decider, *, now: datetime, seen: Collection[str] = ()
) -> list[Mapping[str, Any]]:
    """Let the next sync do exactly what these holds stop, until the approval expires (the district's setting `approval_hours`).

    Args:
        seen: the plan hashes that were shown. Every hold's must be among them; empty: the holds as they are now.

    Raises:
        PermanentError: one of them does not exist, is not waiting for a decision, or has changed. Nothing is decided then.
    """
    decided = []
    for row in _decidable(connection, hold_ids, allowed=_OPEN, verb="approved", seen=seen):
        rules = find_district(connection, row["district"]).rules
        expires_at = now + timedelta(hours=rules.approval_hours if rules is not None else 0)
        decided.append(_decide(connection, row, "approve", decider, status="approved", decided_at=now, expires_at=expires_at))
    return decided


def reject(
    connection: Connection, hold_ids: Sequence[int], decider: Decider, *, now: datetime, seen: Collection[str] = ()
) -> list[Mapping[str, Any]]:
    """Keep these holds, until their plan changes or a person approves them after all. Arguments and errors are those of `approve`."""
    rows = _decidable(connection, hold_ids, allowed=("open", "approved"), verb="rejected", seen=seen)
    return [_decide(connection, row, "reject", decider, status="rejected", decided_at=now, expires_at=None) for row in rows]


def revoke(connection: Connection, hold_id: int, decider: Decider) -> Mapping[str, Any]:
    """Take an approval back that no sync has used: the hold is open again (R13.4).

    Raises:
        PermanentError: there is no such hold, it is not approved, or a sync has used the approval.
    """
    (found,) = _found(connection, [hold_id], _locked())
    if found["status"] == "used":
        sync = f"sync {found['used_by']}" if found["used_by"] else "a sync"
        raise PermanentError(
            f"The approval of hold {hold_id} was used by {sync}, so it cannot be revoked.",
            hint="`ops.changes` has what it wrote, and `roster explain` shows that for one person.",
            district=found["district"],
        )
    (row,) = _decidable(connection, [hold_id], allowed=("approved",), verb="revoked")
    return _decide(connection, row, "revoke", decider, status="open", decided_at=None, expires_at=None)


def why_owner_may_not_decide(connection: Connection, hold_id: int, user_id: int) -> str | None:
    """Why a user of the district may not decide about a hold, as a sentence; None if they may (R13.6)."""
    row = find_hold(connection, hold_id)
    rules = find_district(connection, row["district"]).require_rules()
    if row["kind"] not in rules.district_may_approve:
        return "Only our support decides about this."
    if user_id in held_user_ids(connection, hold_id):
        return "You are among the people that this is about, so somebody else has to decide."
    return None


def _with_names() -> sa.Select[Any]:
    return (
        sa.select(holds, districts.c.clever_id.label("district"), districts.c.name.label("district_name"), _schools.c.name.label("school"))
        .join(districts, districts.c.district_id == holds.c.district_id)
        .outerjoin(_schools, _schools.c.school_id == holds.c.school_id)
    )


def _locked() -> sa.Select[Any]:
    query = sa.select(holds, districts.c.clever_id.label("district")).join(districts, districts.c.district_id == holds.c.district_id)
    return query.with_for_update(of=holds)


def _found(connection: Connection, hold_ids: Sequence[int], query: sa.Select[Any]) -> list[Mapping[str, Any]]:
    """The rows of these holds, in the order of their ids, so that two callers never wait for each other."""
    # A number that no bigint holds is not one of a hold either.
    possible = sorted({each for each in hold_ids if 0 < each < 1 << 63})
    rows = connection.execute(query.where(holds.c.hold_id.in_(possible)).order_by(holds.c.hold_id)).mappings()
    found = {row["hold_id"]: dict(row) for row in rows}
    if missing := [each for each in hold_ids if each not in found]:
        raise PermanentError(f"There is no hold {missing[0]}.", hint="`roster holds` lists them.")
    return list(found.values())


def _decidable(
    connection: Connection, hold_ids: Sequence[int], *, allowed: tuple[str, ...], verb: str, seen: Collection[str] = ()
) -> list[Mapping[str, Any]]:
    rows = _found(connection, hold_ids, _locked())
    for row in rows:
        if seen and (row["plan_hash"] not in seen or row["status"] == "superseded"):
            raise PermanentError(
                f"Hold {row['hold_id']} has changed since you looked.", hint="Look at it again: `roster holds`.", district=row["district"]
            )
        if row["status"] not in allowed:
            raise PermanentError(
                f"Hold {row['hold_id']} is {row['status']} and cannot be {verb}.",
                hint=_LIST,
                district=row["district"],
            )
    return rows


def _decide(
    connection: Connection,
    row: Mapping[str, Any],
    act: str,
    decider: Decider,
    *,
    status: str,
    decided_at: datetime | None,
    expires_at: datetime | None,
) -> Mapping[str, Any]:
    principal = decider.principal or os_principal()
    is_decided = decided_at is not None
    values = {
        "status": status,
        "decided_by": (decider.by or principal) if is_decided else None,
        "decided_principal": principal if is_decided else None,
        "decided_at": decided_at,
        "expires_at": expires_at,
    }
    facts = {"plan_hash": row["plan_hash"], "kind": row["kind"], "acts": row["counts"].get("acts"), "was": row["status"]}
    record_act(
        connection,
        act,
        given_name=decider.by,
        reason=decider.reason,
        district_id=row["district_id"],
        subject=f"hold {row['hold_id']}",
        facts=facts,
        principal=principal,
    )
    statement = sa.update(holds).where(holds.c.hold_id == row["hold_id"]).values(values).returning(holds)
    return {**dict(connection.execute(statement).mappings().one()), "district": row["district"]}
