"""Landing -> plan: every decision of a sync, as tables, before the first write to `app`.

Belongs here: running the staging and reconcile models and counting what they decided. Does not belong here: the decisions (`dbt_like_sql/`) and the
writing (`apply.py`). The plan is computed in the transaction that writes it, so nothing can come between.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from roster_pipeline.database.models import Models
from roster_pipeline.database.runner import ModelRunner, Step, local_name

# What is planned for each table of `app`: the model that holds the rows to write.
PLANS = {
    "schools": "reconcile.school_changes",
    "classrooms": "reconcile.classroom_changes",
    "users": "reconcile.user_changes",
    "user_roles": "reconcile.role_changes",
    "enrollments": "reconcile.enrollment_changes",
}


@dataclass(frozen=True)
class Plan:
    """What one sync would do.

    Attributes:
        changes: rows to write, by table of `app` and action; a table with nothing to write is left out.
        decisions: people of the snapshot, by decision and rule (`link: clever_id`).
        audits: offending records, by audit; every audit is named, also at zero.
        members_missing: distinct people that rostered sections list and Clever does not share (R3.7).
    """

    changes: Mapping[str, Mapping[str, int]]
    decisions: Mapping[str, int]
    audits: Mapping[str, int]
    members_missing: int

    @property
    def rows(self) -> int:
        """Rows to write in `app`."""
        return sum(sum(actions.values()) for actions in self.changes.values())

    def as_counts(self) -> dict[str, Any]:
        """For `ops.syncs.counts`."""
        return {
            "changes": {table: dict(actions) for table, actions in self.changes.items()},
            "people": dict(self.decisions),
            "audits": dict(self.audits),
            "members_missing": self.members_missing,
        }


def make_plan(runner: ModelRunner, models: Models, on_step: Callable[[Step], None]) -> Plan:
    """Run staging, reconcile and the audits; nothing outside this session's temporary tables is written."""
    for model in models.of("staging", "reconcile"):
        on_step(runner.build(model))
    audits = {}
    for model in models.of("audits"):
        step = runner.audit(model)
        audits[model.table] = step.rows
        on_step(step)
    return Plan(
        changes={table: counts for table, plan in PLANS.items() if (counts := _counts(runner, plan, "action"))},
        decisions=_counts(runner, "reconcile.user_matches", "decision || ': ' || rule"),
        audits=audits,
        members_missing=_members_missing(runner),
    )


def _counts(runner: ModelRunner, name: str, what: str) -> dict[str, int]:
    query = sa.text(f"select {what} as what, count(*) from {local_name(name)} group by 1 order by 1")  # noqa: S608  (our own names)
    return {what: rows for what, rows in runner.connection.execute(query)}


def _members_missing(runner: ModelRunner) -> int:
    memberships = local_name("reconcile.memberships")
    query = f"select count(distinct person) from {memberships} where standing = 'unknown_person'"  # noqa: S608
    return int(runner.connection.exec_driver_sql(query).scalar_one())
