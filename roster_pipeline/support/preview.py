"""A plan in numbers and ids, for people who decide about it.

Belongs here: reading the temporary tables of a plan while they exist. Does not belong here: making the plan (`sync/plan.py`), and printing
it (`commands/`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from roster_pipeline.database.clock import Clock, database_time
from roster_pipeline.database.engine import Database
from roster_pipeline.database.runner import ModelRunner, Step, local_name
from roster_pipeline.districts.agreement import District
from roster_pipeline.settings import Settings
from roster_pipeline.sync.plan import Plan
from roster_pipeline.sync.run import plan_sync
from roster_pipeline.sync.session import PlanningContext
from roster_pipeline.sync.sources import OpenSource, open_clever


@dataclass(frozen=True)
class PlanReport:
    """What a sync would do.

    Attributes:
        plan: counts by action, brakes, audits.
        users_by_school: number of users to write, by school (id and Clever id; null if there is no primary school) and action.
        licenses: reconcile.license_reconciliation of this plan.
        brake_schools: names of schools with a brake, by school id.
        conflicts: Clever ids of people who would not get the username that they should have, and why (`taken`, `contested`).
        readiness: reconcile.readiness of this plan.
    """

    district: District
    plan: Plan
    users_by_school: Sequence[Mapping[str, Any]]
    licenses: Sequence[Mapping[str, Any]]
    brake_schools: Mapping[int, str]
    conflicts: Sequence[Mapping[str, Any]]
    readiness: Sequence[Mapping[str, Any]]


def preview_sync(
    database: Database,
    settings: Settings,
    reference: str,
    *,
    open_source: OpenSource = open_clever,
    on_step: Callable[[Step], None] = lambda _step: None,
    clock: Clock = database_time,
) -> PlanReport:
    """What a sync would do now. Nothing is written; errors are those of `plan_sync`."""
    return plan_sync(database, settings, reference, describe_plan, open_source=open_source, on_step=on_step, clock=clock)


def describe_plan(context: PlanningContext, plan: Plan) -> PlanReport:
    """Read the tables of the plan, inside its transaction."""
    runner = context.runner
    return PlanReport(
        context.district,
        plan,
        users_by_school=_rows(
            runner,
            f"""
            select changes.school_id, schools.clever_id as school, changes.action, count(*) as users
            from {local_name("reconcile.user_changes")} as changes
            left join {local_name("reconcile.school_status")} as schools on changes.school_id = schools.school_id
            group by 1, 2, 3
            order by 1 nulls last, 3
            """,  # noqa: S608  (names of our own files)
        ),
        licenses=_rows(
            runner,
            f"""
            select scope, school_id, licenses, used, without_seat, held, is_over
            from {local_name("reconcile.license_reconciliation")}
            order by scope <> 'district', scope
            """,  # noqa: S608
        ),
        brake_schools={
            row["school_id"]: row["name"]
            for row in _rows(
                runner,
                f"""
                select schools.school_id, schools.name
                from app.schools as schools
                inner join {local_name("reconcile.brakes")} as brakes on schools.school_id = brakes.school_id
                """,  # noqa: S608
            )
        },
        conflicts=_rows(
            runner,
            f"""
            select clever_id, rule from {local_name("reconcile.usernames")} where rule in ('taken', 'contested') order by clever_id
            """,  # noqa: S608
        ),
        readiness=_rows(runner, f"select topic, item, count, detail from {local_name('reconcile.readiness')} order by topic, item"),  # noqa: S608
    )


def _rows(runner: ModelRunner, query: str) -> list[dict[str, Any]]:
    return [dict(row) for row in runner.connection.execute(sa.text(query)).mappings()]
