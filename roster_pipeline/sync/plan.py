"""Landing -> plan: every decision of a sync, as tables, before the first write to `app`.

Belongs here: running the staging models, the reconcile models and the gate between them, and counting the decisions. Does not belong here:
the decisions (`dbt_like_sql/` and `brakes.py`) and the writes (`apply.py`). The plan is made in the transaction that writes it, so nobody
can change the data in between.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from roster_pipeline.database.models import Model, Models
from roster_pipeline.database.runner import ModelRunner, local_name
from roster_pipeline.sync.brakes import ACTS, BRAKES, DECIDED, Brake, Decision, Gate, brake_counts
from roster_pipeline.sync.findings import run_audits
from roster_pipeline.sync.session import PlanningContext

# The model with the rows to write, for each table of `app`.
PLANS = {
    "schools": "reconcile.school_changes",
    "classrooms": "reconcile.classroom_changes",
    "users": "reconcile.user_changes",
    "user_roles": "reconcile.role_changes",
    "enrollments": "reconcile.enrollment_changes",
}
LICENSE_HOLD = "reconcile.license_hold"
# Models that say what would happen if nothing were held. They are not built again. (`reconcile.readiness_licenses` counts who is held.)
WITHOUT_HOLDS = frozenset({ACTS, BRAKES, *(f"reconcile.readiness_{each}" for each in ("existing", "people", "places"))})

# What only a window makes a sync count.
IN_WINDOW = ("deferred", "graduated")
_WINDOW_COUNTS = f"select what, rows from {local_name('reconcile.window_counts')}"  # noqa: S608  (our own names)


@dataclass(frozen=True)
class Plan:
    """What one sync would do.

    Attributes:
        changes: number of rows to write, by table of `app` and action. A table with nothing to write is left out.
        people: number of people in the snapshot, by decision and rule (`link: clever_id`).
        audits: number of offending records, by audit; also audits with none.
        members_missing: number of people that rostered sections list and Clever does not share (R3.7).
        brakes: every brake with at least one act, tripped or not.
        decisions: the decisions about the tripped brakes.
        in_window: rows that a window keeps (`deferred`), or users that no brake counts (`graduated`); empty without such a window.
    """

    changes: Mapping[str, Mapping[str, int]]
    people: Mapping[str, int]
    audits: Mapping[str, int]
    members_missing: int
    brakes: Sequence[Brake]
    decisions: Sequence[Decision]
    in_window: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows to write in `app`."""
        return sum(sum(actions.values()) for actions in self.changes.values())

    @property
    def holding(self) -> list[Decision]:
        """The tripped brakes that hold something."""
        return [decision for decision in self.decisions if decision.is_holding]

    @property
    def writes_nothing(self) -> bool:
        """Whether the whole sync is held: the first sync of a district can need approval (R7.6). `ops.syncs.is_applied` reads it."""
        return any(decision.holds_whole_sync for decision in self.decisions)

    def as_counts(self) -> dict[str, Any]:
        """For `ops.syncs.counts`.

        `held` has the brakes that hold. `passed` has those that an approval released, and for each kind the other brake nearest its limit.
        """
        return {
            "changes": {} if self.writes_nothing else {table: dict(actions) for table, actions in self.changes.items()},
            **({"writes_nothing": True} if self.writes_nothing else {}),
            "people": dict(self.people),
            "audits": dict(self.audits),
            **self.in_window,
            "members_missing": self.members_missing,
            "held": [brake_counts(each.brake, each.status, each.hold_id) for each in self.holding],
            "passed": [brake_counts(each.brake, each.status, each.hold_id) for each in self.decisions if not each.is_holding]
            + [brake_counts(each, "passes", None) for each in self._nearest()],
        }

    def _nearest(self) -> list[Brake]:
        """For each kind, the brake nearest its limit that needed no decision. A kind can have one brake per school and role."""
        decided = {decision.brake.identity for decision in self.decisions}
        nearest: dict[str, Brake] = {}
        for brake in sorted(self.brakes, key=lambda each: (each.acts / each.limit if each.limit else 0, each.acts)):
            if brake.identity not in decided:
                nearest[brake.kind] = brake
        return list(nearest.values())


def build_staging(context: PlanningContext) -> None:
    """Build the staging models from the landing: the new snapshot."""
    for model in context.models.of("staging"):
        context.on_step(context.runner.build(model))


def make_plan(context: PlanningContext) -> Plan:
    """Run the reconcile models and the audits on the new snapshot.

    First everything without any hold: that is what the brakes count. If something is held, the models that depend on it are built again.
    Outside this session's temporary tables it writes only `ops.holds`, and in a dry run not even that.
    """
    runner, gate = context.runner, Gate(context)
    for model in context.models.of("reconcile"):
        context.on_step(runner.build(model))
    if gate.decide_brakes():
        _plan_again(context, gate, of_holds=True)
    elif gate.decide_licenses():
        _plan_again(context, gate, of_holds=False)
    gate.use_approvals()
    audits = run_audits(context)
    return Plan(
        changes={table: counts for table, plan in PLANS.items() if (counts := _counts(runner, plan, "action"))},
        people=_counts(runner, "reconcile.user_matches", "decision || ': ' || rule"),
        audits=audits,
        members_missing=_members_missing(runner),
        brakes=gate.brakes,
        decisions=gate.decisions,
        in_window={row.what: row.rows for row in runner.connection.exec_driver_sql(_WINDOW_COUNTS)},
    )


def _plan_again(context: PlanningContext, gate: Gate, *, of_holds: bool) -> None:
    """Build the models again that depend on what is held: on holds and licenses, or on licenses alone.

    Args:
        of_holds: brakes hold something. Licenses are decided then in the middle: after the brakes (R9.2).
    """
    is_open = of_holds
    for model in depending_on(context.models, DECIDED.keys() if of_holds else {LICENSE_HOLD}):
        if is_open and LICENSE_HOLD in model.reads:
            gate.decide_licenses()
            is_open = False
        context.on_step(context.runner.rebuild(model))
    if gate.has_approvals:
        # What is carried out now is what the approvals have released.
        context.on_step(context.runner.rebuild(context.models.by_name[ACTS]))


def depending_on(models: Models, decided: Collection[str]) -> list[Model]:
    """The reconcile models that what is held can change, in run order, without those that are about the plan without holds."""
    changed, found = set(decided), []
    for model in models.of("reconcile"):
        if model.reads & changed and model.name not in WITHOUT_HOLDS:
            changed.add(model.name)
            found.append(model)
    return found


def _counts(runner: ModelRunner, name: str, what: str) -> dict[str, int]:
    query = sa.text(f"select {what} as what, count(*) as rows from {local_name(name)} group by 1 order by 1")  # noqa: S608  (our own names)
    return {row.what: row.rows for row in runner.connection.execute(query)}


def _members_missing(runner: ModelRunner) -> int:
    memberships = local_name("reconcile.memberships")
    query = f"select count(distinct person) from {memberships} where status = 'unknown_person'"  # noqa: S608
    return int(runner.connection.exec_driver_sql(query).scalar_one())
