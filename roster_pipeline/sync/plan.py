"""Landing -> plan: every decision of a sync, as tables, before the first write to `app`.

Belongs here: running the staging and reconcile models, asking the brakes in between, and counting what was decided. Does not belong here:
the decisions (`dbt_like_sql/` and `brakes.py`) and the writing (`apply.py`). The plan is computed in the transaction that writes it, so
nothing can come between.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from roster_pipeline.database.models import Models
from roster_pipeline.database.runner import ModelRunner, Step, local_name
from roster_pipeline.profiles import Profile
from roster_pipeline.sync.brakes import LICENSES, Brake, Decision, decide, limit_of, use

# What is planned for each table of `app`: the model that holds the rows to write.
PLANS = {
    "schools": "reconcile.school_changes",
    "classrooms": "reconcile.classroom_changes",
    "users": "reconcile.user_changes",
    "user_roles": "reconcile.role_changes",
    "enrollments": "reconcile.enrollment_changes",
}

# Tables that Python decides between models, and what it decides them from.
DECIDED = {"reconcile.holds": ("reconcile.brakes",), "reconcile.license_hold": ("reconcile.license_acts",)}


@dataclass(frozen=True)
class Plan:
    """What one sync would do.

    Attributes:
        changes: rows to write, by table of `app` and action; a table with nothing to write is left out.
        people: people of the snapshot, by decision and rule (`link: clever_id`).
        audits: offending records, by audit; every audit is named, also at zero.
        members_missing: distinct people that rostered sections list and Clever does not share (R3.7).
        brakes: every brake that anything falls under, tripped or not.
        decisions: what became of the tripped ones.
    """

    changes: Mapping[str, Mapping[str, int]]
    people: Mapping[str, int]
    audits: Mapping[str, int]
    members_missing: int
    brakes: Sequence[Brake]
    decisions: Sequence[Decision]

    @property
    def rows(self) -> int:
        """Rows to write in `app`."""
        return sum(sum(actions.values()) for actions in self.changes.values())

    @property
    def holding(self) -> list[Decision]:
        """The tripped brakes that hold something."""
        return [decision for decision in self.decisions if decision.is_holding]

    @property
    def writes_nothing(self) -> bool:
        """The first sync of a district waits as a whole for approval (R7.6)."""
        return any(decision.brake.kind == "initial" for decision in self.holding)

    def as_counts(self) -> dict[str, Any]:
        """For `ops.syncs.counts`.

        `held` are the brakes that hold; `passed` those that an approval released, and of the others the one of each kind nearest its limit.
        """
        return {
            "changes": {} if self.writes_nothing else {table: dict(actions) for table, actions in self.changes.items()},
            "people": dict(self.people),
            "audits": dict(self.audits),
            "members_missing": self.members_missing,
            "held": [_brake_counts(each.brake, each.status, each.hold_id) for each in self.holding],
            "passed": [_brake_counts(each.brake, each.status, each.hold_id) for each in self.decisions if not each.is_holding]
            + [_brake_counts(each, "passes", None) for each in self._nearest()],
        }

    def _nearest(self) -> list[Brake]:
        """Of the brakes that needed no decision, the one of each kind nearest its limit: there is one per school and role."""
        decided = {decision.brake.identity for decision in self.decisions}
        nearest: dict[str, Brake] = {}
        for brake in sorted(self.brakes, key=lambda each: (each.acts / each.limit if each.limit else 0, each.acts)):
            if brake.identity not in decided:
                nearest[brake.kind] = brake
        return list(nearest.values())


def take_in(runner: ModelRunner, models: Models, on_step: Callable[[Step], None]) -> None:
    """Make the snapshot of what has landed."""
    for model in models.of("staging"):
        on_step(runner.build(model))


def make_plan(runner: ModelRunner, models: Models, rules: Profile, on_step: Callable[[Step], None]) -> Plan:
    """Run reconcile and the audits on a snapshot; outside this session's temporary tables only `ops.holds` is written.

    Args:
        runner: its parameter `sync_id` is None for a dry run, which writes nothing at all.
        rules: the district's.
    """
    gate = _Gate(runner, rules)
    for model in models.of("reconcile"):
        for name in model.reads & DECIDED.keys() - gate.made:
            gate.make(name)
        on_step(runner.build(model))
    audits = {}
    for model in models.of("audits"):
        step = runner.audit(model)
        audits[model.table] = step.rows
        on_step(step)
    return Plan(
        changes={table: counts for table, plan in PLANS.items() if (counts := _counts(runner, plan, "action"))},
        people=_counts(runner, "reconcile.user_matches", "decision || ': ' || rule"),
        audits=audits,
        members_missing=_members_missing(runner),
        brakes=gate.brakes,
        decisions=gate.decisions,
    )


class _Gate:
    """Makes the tables of DECIDED, each from the models before it."""

    def __init__(self, runner: ModelRunner, rules: Profile) -> None:
        self.made: set[str] = set()
        self.brakes: list[Brake] = []
        self.decisions: list[Decision] = []
        self._runner = runner
        self._rules = rules
        self._sync_id: int | None = runner.parameters["sync_id"]

    def make(self, name: str) -> None:
        self.made.add(name)
        if name == "reconcile.holds":
            self._holds()
        else:
            self._license_hold()

    def _holds(self) -> None:
        # In an order of its own, so that the same plan opens its holds under the same ids, whatever order PostgreSQL finds them in.
        order = 'kind collate "C", role collate "C", school_id, collection collate "C"'
        query = f"select * from {local_name('reconcile.brakes')} order by {order}"  # noqa: S608
        for row in self._runner.connection.exec_driver_sql(query).mappings():
            limit = limit_of(row["kind"], row["active"], self._rules.brakes)
            self.brakes.append(Brake(limit=limit, **row))
        tripped = [brake for brake in self.brakes if brake.is_tripped and not (brake.kind == "initial" and self._rules.auto_initial)]
        decisions = self._decide(tripped, kinds=None)
        held = [
            dict(zip(("kind", "school_id", "role", "collection"), each.brake.identity, strict=True))
            for each in decisions
            if each.is_holding
        ]
        connection = self._runner.connection
        connection.exec_driver_sql(
            'create temporary table "reconcile.holds" (kind text, school_id bigint, role text, collection text) on commit drop'
        )
        if held:
            insert = f"insert into {local_name('reconcile.holds')} values (:kind, :school_id, :role, :collection)"  # noqa: S608
            connection.execute(sa.text(insert), held)
        for decision in decisions:
            if not decision.is_holding and self._lets_something_through(decision.brake):
                self._use(decision)

    def _lets_something_through(self, brake: Brake) -> bool:
        """Whether any act of a released brake is under no other brake that holds."""
        acts, holds = local_name("reconcile.brake_acts"), local_name("reconcile.holds")
        query = f"""
            with held as (
                select acts.act
                from {acts} as acts
                inner join {holds} as holds
                    on (acts.kind, acts.school_id, acts.role, acts.collection)
                    is not distinct from (holds.kind, holds.school_id, holds.role, holds.collection)
            )
            select exists (
                select 1
                from {acts} as acts
                where
                    (acts.kind, acts.school_id, acts.role, acts.collection) is not distinct from
                    (:kind, cast(:school_id as bigint), cast(:role as text), cast(:collection as text))
                    and acts.act not in (select held.act from held where held.act is not null)
            )
        """  # noqa: S608  (names of our own files)
        kind, school_id, role, collection = brake.identity
        parameters = {"kind": kind, "school_id": school_id, "role": role, "collection": collection}
        return not brake.acts or bool(self._runner.connection.execute(sa.text(query), parameters).scalar_one())

    def _use(self, decision: Decision) -> None:
        if self._sync_id is not None:
            use(self._runner.connection, decision)

    def _license_hold(self) -> None:
        """Students beyond the licenses are one act each; the policy `hold` lets none of them through without approval (R9.2)."""
        acts = local_name("reconcile.license_acts")
        query = f"""
            select count(*), encode(sha256(convert_to(coalesce(string_agg(act, chr(10) order by act collate "C"), ''), 'UTF8')), 'hex')
            from {acts}
        """  # noqa: S608
        beyond, plan_hash = self._runner.connection.exec_driver_sql(query).one()
        brake = Brake(LICENSES, None, None, None, beyond, 0, None, plan_hash)
        # While the whole first sync waits, its one hold is over everybody (R7.6).
        is_waiting = any(each.brake.kind == "initial" and each.is_holding for each in self.decisions)
        decisions = [] if is_waiting else self._decide([brake] if beyond else [], kinds=[LICENSES])
        if beyond:
            self.brakes.append(brake)
        released = not is_waiting and not any(each.is_holding for each in decisions)
        for decision in decisions:
            if not decision.is_holding:
                self._use(decision)
        self._runner.connection.exec_driver_sql(
            'create temporary table "reconcile.license_hold" (is_released boolean not null) on commit drop'
        )
        insert = f"insert into {local_name('reconcile.license_hold')} values (:released)"  # noqa: S608
        self._runner.connection.execute(sa.text(insert), {"released": released})

    def _decide(self, tripped: Sequence[Brake], *, kinds: Sequence[str] | None) -> list[Decision]:
        decisions = decide(
            self._runner.connection,
            tripped,
            kinds=kinds,
            district_id=self._runner.parameters["district_id"],
            sync_id=self._sync_id,
            now=self._runner.parameters["synced_at"],
        )
        self.decisions += decisions
        return decisions


def _brake_counts(brake: Brake, status: str, hold_id: int | None) -> dict[str, Any]:
    return {
        "kind": brake.kind,
        "school_id": brake.school_id,
        "role": brake.role,
        **brake.as_counts(),
        "status": status,
        "hold_id": hold_id,
    }


def _counts(runner: ModelRunner, name: str, what: str) -> dict[str, int]:
    query = sa.text(f"select {what} as what, count(*) as rows from {local_name(name)} group by 1 order by 1")  # noqa: S608  (our own names)
    return {row.what: row.rows for row in runner.connection.execute(query)}


def _members_missing(runner: ModelRunner) -> int:
    memberships = local_name("reconcile.memberships")
    query = f"select count(distinct person) from {memberships} where standing = 'unknown_person'"  # noqa: S608
    return int(runner.connection.exec_driver_sql(query).scalar_one())
