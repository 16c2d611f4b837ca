"""Whether a sync may do what it has planned: the brakes of R7.3, the first sync of R7.6, the license policy `hold` of R9.2, and approvals.

Belongs here: the decision that a brake trips, and what a sync does to a hold (R7.5): it opens it, uses it, supersedes it or lets it expire.
Does not belong here: what people decide (`support/holds.py`), what distinguishes the kinds (`brake_kinds.py`), and what a brake counts and
a hold covers (`dbt_like_sql/reconcile/`). All of it runs inside the transaction that writes, on the plan that is written. There is no other
way to write.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.brake_kinds import INITIAL, KINDS, LICENSES, kinds_counted_by
from roster_pipeline.database.clock import is_future
from roster_pipeline.database.runner import local_name
from roster_pipeline.database.tables import PENDING_HOLDS, holds
from roster_pipeline.sync.session import PlanningContext

# The tables that the gate makes, and the models that each is made from. Those of the first group are empty in the plan without holds; they
# are filled from its own end, so no model comes before them.
DECIDED: dict[str, tuple[str, ...]] = {
    "reconcile.holds": (),
    "reconcile.held_identities": (),
    "reconcile.names_without_holds": (),
    "reconcile.withheld_names": (),
    "reconcile.license_hold": ("reconcile.license_acts",),
}
ACTS, BRAKES = "reconcile.brake_acts", "reconcile.brakes"

_TABLES = """
    create temporary table "reconcile.holds" (kind text, school_id bigint, role text, collection text) on commit drop;
    -- Users whose names, username and ways to sign in stay.
    create temporary table "reconcile.held_identities" (user_id bigint primary key) on commit drop;
    -- People who would get their username if nothing were held.
    create temporary table "reconcile.names_without_holds" (clever_id text primary key) on commit drop;
    create temporary table "reconcile.license_hold" (is_released boolean not null) on commit drop;
    insert into pg_temp."reconcile.license_hold" values (true);
    -- People who were refused their username only because of a hold, by the last plan.
    create temporary table "reconcile.withheld_names" on commit drop as
    select clever_id from reconcile.user_matches where district_id = {district_id} and username_rule = 'withheld';
"""
_HELD_IDENTITIES = """
    insert into pg_temp."reconcile.held_identities"
    select acts.user_id
    from pg_temp."reconcile.brake_acts" as acts
    where acts.kind = 'identities' and exists (select 1 from pg_temp."reconcile.holds" as holds where holds.kind = 'identities')
"""
_NAMES_WITHOUT_HOLDS = """
    insert into pg_temp."reconcile.names_without_holds"
    select clever_id from pg_temp."reconcile.usernames" where rule in ('given', 'kept')
"""

# Which acts a new hold holds. As the hash, of the plan without holds; an empty collection may have none.
_KEEP_ACTS = """
    insert into ops.held_acts (hold_id, act)
    select distinct :hold_id, act
    from pg_temp."reconcile.brake_acts"
    where
        act is not null and kind = :kind and school_id is not distinct from :school_id
        and role is not distinct from :role and collection is not distinct from :collection
"""
_KEEP_SEATS = 'insert into ops.held_acts (hold_id, act) select :hold_id, act from pg_temp."reconcile.license_acts"'


@dataclass(frozen=True)
class Brake:
    """One brake, and the acts that fall under it.

    Attributes:
        kind: as in `ops.holds.kind`.
        school_id, role, collection: which brake of its kind; None if the kind has no such column (`BrakeKind.columns`).
        acts: how many acts fall under it.
        active: n of R7.3.
        limit: the most acts that it lets pass; None if it lets none pass.
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
        """Whether there are more acts than the limit allows (R7.3)."""
        return self.limit is None or self.acts > self.limit

    @property
    def identity(self) -> tuple[str, int | None, str | None, str | None]:
        """Which hold it is, independent of the plan."""
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
    """The decision about one tripped brake.

    Attributes:
        status: the status of its row in `ops.holds`: `approved` releases the acts; `open` and `rejected` hold them.
        hold_id: None in a dry run of a hold that does not exist yet.
        is_first: whether this is the district's first sync (R7.6).
    """

    brake: Brake
    status: str
    hold_id: int | None
    is_first: bool

    @property
    def is_holding(self) -> bool:
        """Whether the acts are held."""
        return self.status != "approved"

    @property
    def holds_whole_sync(self) -> bool:
        """Whether nothing is written at all (R7.6)."""
        kind = KINDS[self.brake.kind]
        return self.is_holding and (kind.holds_whole_sync or (self.is_first and kind.holds_first_sync))


def held_kinds(decisions: Iterable[Decision]) -> str:
    """The kinds of these decisions, for a sentence."""
    return ", ".join(sorted({each.brake.kind for each in decisions}))


def brake_counts(brake: Brake, status: str, hold_id: int | None) -> dict[str, Any]:
    """One brake for `ops.syncs.counts`."""
    return {
        "kind": brake.kind,
        "school_id": brake.school_id,
        "role": brake.role,
        **brake.as_counts(),
        "status": status,
        "hold_id": hold_id,
    }


class Gate:
    """Decides what is held. It makes the tables of DECIDED.

    A plan is made without any hold first, and the brakes count its acts (R7.3). If nothing is held, that is the plan. Otherwise the models
    that a hold can change are built again (`plan.py`).

    Attributes:
        brakes: every brake that any act falls under.
        decisions: the decisions about the brakes that tripped.
    """

    def __init__(self, context: PlanningContext) -> None:
        self.brakes: list[Brake] = []
        self.decisions: list[Decision] = []
        self._approved: list[Decision] = []
        self._context = context
        self._rules = context.rules
        for statement in _TABLES.format(district_id=context.district_id).split(";\n"):
            if statement.strip():
                context.connection.exec_driver_sql(statement)
        self._analyze()

    def decide_brakes(self) -> bool:
        """Decide about the brakes, after the plan without holds. Returns whether anything is held."""
        # In a fixed order, so that the same plan always opens its holds in the same order of ids.
        order = 'kind collate "C", role collate "C", school_id, collection collate "C"'
        query = f"select * from {local_name(BRAKES)} order by {order}"  # noqa: S608
        connection = self._context.connection
        for row in connection.exec_driver_sql(query).mappings():
            limit = KINDS[row["kind"]].limit_of(row["role"], row["active"], self._rules.brakes)
            self.brakes.append(Brake(limit=limit, **row))
        tripped = [brake for brake in self.brakes if brake.is_tripped and not self._is_waived(brake)]
        decisions = self._decide(tripped, kinds_counted_by(ACTS))
        if self._context.sync_id is not None:
            self._approved = [each for each in decisions if not each.is_holding]
        # What holds the whole sync holds no single row of the plan: its approval releases all of them.
        whole = (INITIAL.name, None, None, None)
        identities = {whole if each.holds_whole_sync else each.brake.identity for each in decisions if each.is_holding}
        held = [dict(zip(("kind", "school_id", "role", "collection"), each, strict=True)) for each in identities]
        if held:
            insert = f"insert into {local_name('reconcile.holds')} values (:kind, :school_id, :role, :collection)"  # noqa: S608
            connection.execute(sa.text(insert), held)
            connection.exec_driver_sql(_HELD_IDENTITIES)
            self._remember_names()
        return bool(held)

    def _is_waived(self, brake: Brake) -> bool:
        # What the district agreed about its first sync does not cover a new Clever id (R6.5).
        return KINDS[brake.kind].is_waived(self._rules) and not self._context.district.is_rekeyed

    def decide_licenses(self) -> bool:
        """Decide about the students beyond the licenses. Returns whether they are held.

        Each of them is one act. The policy `hold` releases none of them without approval (R9.2).
        """
        acts, connection = local_name("reconcile.license_acts"), self._context.connection
        query = f"""
            select count(*), encode(sha256(convert_to(coalesce(string_agg(act, chr(10) order by act collate "C"), ''), 'UTF8')), 'hex')
            from {acts}
        """  # noqa: S608
        beyond, plan_hash = connection.exec_driver_sql(query).one()
        brake = Brake(LICENSES.name, None, None, None, beyond, 0, LICENSES.limit_of(None, 0, self._rules.brakes), plan_hash)
        # While the whole first sync is held, its one hold covers everybody (R7.6).
        is_waiting = any(each.holds_whole_sync for each in self.decisions)
        decisions = [] if is_waiting else self._decide([brake] if beyond else [], kinds_counted_by("reconcile.license_acts"))
        if beyond:
            self.brakes.append(brake)
        is_held = beyond > 0 and (is_waiting or any(each.is_holding for each in decisions))
        if self._context.sync_id is not None:
            for decision in decisions:
                if not decision.is_holding:
                    mark_used(self._context, decision)
        if is_held:
            connection.exec_driver_sql(f"update {local_name('reconcile.license_hold')} set is_released = false")  # noqa: S608
            self._remember_names()
        return is_held

    @property
    def has_approvals(self) -> bool:
        """Whether an approval releases a brake, so that somebody has to see what it has released."""
        return bool(self._approved)

    def use_approvals(self) -> None:
        """Mark the approvals of which the plan carries out an act. A hold stays approved while others cover all its acts (R7.5)."""
        acts = local_name(ACTS)
        query = f"select distinct kind, school_id, role, collection from {acts} where act is not null"  # noqa: S608  (our own names)
        released = {tuple(row) for row in self._context.connection.exec_driver_sql(query)} if self._approved else set()
        for decision in self._approved:
            # An empty collection can have no acts: then there is nothing that another hold can cover.
            if decision.brake.identity in released or not decision.brake.acts:
                mark_used(self._context, decision)

    def _remember_names(self) -> None:
        """Which names the plan without holds gives; once, before that plan is replaced."""
        names = self._context.connection.exec_driver_sql(f"select count(*) from {local_name('reconcile.names_without_holds')}")  # noqa: S608
        if not names.scalar_one():
            self._context.connection.exec_driver_sql(_NAMES_WITHOUT_HOLDS)
        self._analyze()

    def _analyze(self) -> None:
        # Without statistics the planner takes an empty table for one of some thousand rows.
        for name in DECIDED:
            self._context.connection.exec_driver_sql(f"analyze {local_name(name)}")

    def _decide(self, tripped: Sequence[Brake], kinds: Sequence[str]) -> list[Decision]:
        decisions = decide(self._context, tripped, kinds)
        self.decisions += decisions
        return decisions


def decide(context: PlanningContext, tripped: Iterable[Brake], kinds: Sequence[str]) -> list[Decision]:
    """Hold each tripped brake, unless somebody has approved exactly this plan; update `ops.holds` to match (R7.5).

    A dry run reads `ops.holds` and writes nothing.

    Args:
        tripped: the brakes that trip on this plan.
        kinds: the kinds that were checked. If a brake of these kinds no longer trips, its pending hold is superseded.
    """
    pending = _pending(context.connection, context.district_id, kinds)
    decisions = [_decide_one(context, brake, pending.pop(brake.identity, None)) for brake in tripped]
    if context.sync_id is not None:
        for row in pending.values():
            _set(context.connection, row["hold_id"], status="superseded")
    return decisions


def mark_used(context: PlanningContext, decision: Decision) -> None:
    """Mark an approval as used: it has released an act."""
    assert decision.hold_id is not None  # noqa: S101  (what is approved is in the table)
    _set(context.connection, decision.hold_id, status="used", used_by=context.sync_id)


def _decide_one(context: PlanningContext, brake: Brake, pending: Any) -> Decision:
    """The decision about one tripped brake. `pending` is its row in `ops.holds`, if it has one."""
    replaced_by = None
    if pending is not None:
        if pending["plan_hash"] != brake.plan_hash:
            replaced_by = "superseded"
        elif pending["status"] != "approved":
            if context.sync_id is not None:
                _set(context.connection, pending["hold_id"], sync_id=context.sync_id)
            return Decision(brake, pending["status"], pending["hold_id"], context.is_first)
        elif not _is_valid(pending, context.now):
            replaced_by = "expired"
        else:
            return Decision(brake, "approved", pending["hold_id"], context.is_first)
    if context.sync_id is None:
        return Decision(brake, "open", None, context.is_first)
    if replaced_by is not None:
        _set(context.connection, pending["hold_id"], status=replaced_by)
    return Decision(brake, "open", _open(context, brake), context.is_first)


def _is_valid(approval: Any, now: datetime) -> bool:
    """Whether an approval has not expired. One that was given in the future has: nobody knows how old it is (R11.6)."""
    return not is_future(approval["decided_at"], now) and (approval["expires_at"] is None or approval["expires_at"] > now)


def _pending(connection: Connection, district_id: int, kinds: Sequence[str]) -> dict[Any, Any]:
    """The newest pending hold of each identity."""
    is_pending = sa.and_(holds.c.district_id == district_id, holds.c.status.in_(PENDING_HOLDS), holds.c.kind.in_(kinds))
    query = sa.select(holds).where(is_pending).order_by(holds.c.hold_id)
    return {
        (row["kind"], row["school_id"], row["role"], row["counts"].get("collection")): row for row in connection.execute(query).mappings()
    }


def _open(context: PlanningContext, brake: Brake) -> int:
    values = {
        "sync_id": context.sync_id,
        "district_id": context.district_id,
        "kind": brake.kind,
        "school_id": brake.school_id,
        "role": brake.role,
        "counts": brake.as_counts(),
        "plan_hash": brake.plan_hash,
        "created_at": context.now,
    }
    hold_id = int(context.connection.execute(sa.insert(holds).values(values).returning(holds.c.hold_id)).scalar_one())
    kept = {"hold_id": hold_id, **dict(zip(("kind", "school_id", "role", "collection"), brake.identity, strict=True))}
    context.connection.execute(sa.text(_KEEP_SEATS if brake.kind == LICENSES.name else _KEEP_ACTS), kept)
    return hold_id


def _set(connection: Connection, hold_id: int, **values: object) -> None:
    connection.execute(sa.update(holds).where(holds.c.hold_id == hold_id).values(values))
