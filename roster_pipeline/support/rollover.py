"""What the rollover to a new school year would do, before it is done (R14.5).

Belongs here: reading a plan without holds, by school and grade, and its brakes with and without a window. Does not belong here: making a
plan (`sync/plan.py`), what a window is (`districts/windows.py`), and printing (`commands/rollover.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from roster_pipeline.brake_kinds import KINDS
from roster_pipeline.contracts import GRADES
from roster_pipeline.database.clock import Clock, database_time
from roster_pipeline.database.engine import Database
from roster_pipeline.database.runner import ModelRunner, Step, local_name, localize
from roster_pipeline.districts.agreement import District
from roster_pipeline.districts.nights import night_of
from roster_pipeline.districts.windows import Window, current_windows
from roster_pipeline.profiles import Brakes
from roster_pipeline.settings import Settings
from roster_pipeline.sync.brakes import BRAKES, DECIDED
from roster_pipeline.sync.plan import Plan
from roster_pipeline.sync.run import plan_sync
from roster_pipeline.sync.session import PlanningContext
from roster_pipeline.sync.sources import OpenSource, open_clever

_STUDENTS = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
CATEGORIES = ("stay", "promoted", "move", "graduate", "lost", "return", "new")
_SCHOOLS = """
    select schools.school_id, schools.clever_id, schools.name from app.schools as schools where schools.district_id = :district_id
    union
    select schools.school_id, schools.clever_id, schools.name from reconcile.school_status as schools where schools.is_new
"""
# Rosters of one year and the next share no classroom, so their numbers say enough.
_CLASSROOMS = """
    select
        (select count(*) from reconcile.soft_deletes as removed where removed.entity = 'classrooms') as ending,
        (select count(*) from reconcile.classroom_changes as changes where changes.action in ('create', 'restore')) as beginning,
        (
            select count(*) from app.classrooms as classrooms
            where classrooms.district_id = :district_id and classrooms.deleted_at is null
        ) as active
"""


@dataclass(frozen=True)
class Rollover:
    """What a sync would do now if nothing were held.

    Attributes:
        window: the rollover window that is on or comes next, whose limits are compared; None: the defaults of a rollover are.
        students: one row per school (id, Clever id and name; null without a school) and grade, with the CATEGORIES.
        classrooms: how many end, begin, and are active now.
        licenses: `reconcile.license_reconciliation` of the plan.
        brakes: one row per brake with an act: acts and limit without and with a window, and whether it would trip.
        held_today: kinds that the limits of today would hold.
    """

    district: District
    window: Window | None
    students: Sequence[Mapping[str, Any]]
    classrooms: Mapping[str, int]
    licenses: Sequence[Mapping[str, Any]]
    brakes: Sequence[Mapping[str, Any]]
    held_today: Sequence[str]


def preview_rollover(
    database: Database,
    settings: Settings,
    reference: str,
    *,
    open_source: OpenSource = open_clever,
    on_step: Callable[[Step], None] = lambda _step: None,
    clock: Clock = database_time,
) -> Rollover:
    """What a sync would do now, with and without a rollover window. Nothing is written; errors are those of `plan_sync`."""
    return plan_sync(database, settings, reference, _describe, open_source=open_source, on_step=on_step, clock=clock)


def _describe(context: PlanningContext, plan: Plan) -> Rollover:
    runner = _without_holds(context)
    own = context.district.require_rules().brakes
    window = _next_rollover(context)
    limits = (window or _default_window(context)).brakes(own)
    schools = {row["school_id"]: row for row in _rows(runner, _SCHOOLS)}
    unknown = {"clever_id": None, "name": None}

    def at(row: Mapping[str, Any]) -> dict[str, Any]:
        known = schools.get(row["school_id"], unknown)
        return {**row, "school": known["clever_id"], "school_name": known["name"]}

    students = [at(row) for row in _rows(runner, _STUDENTS, grades=list(GRADES))]
    classrooms = _rows(runner, _CLASSROOMS)[0]
    licenses = _rows(runner, "select scope, licenses, used, without_seat, is_over from reconcile.license_reconciliation order by scope")
    inside = _brakes(context, runner)
    outside = _brakes(context, _with(runner, is_rollover=False), again=True)
    compared = [at(each) for each in _compared(outside, inside, own, limits)]
    return Rollover(context.district, window, students, classrooms, licenses, compared, _held_today(context, plan, compared))


def _without_holds(context: PlanningContext) -> ModelRunner:
    """Plan again, as in a rollover and as if nothing were held. Returns the runner with these parameters."""
    for name in DECIDED:
        if name == "reconcile.license_hold":
            context.connection.exec_driver_sql(f"update {local_name(name)} set is_released = true")  # noqa: S608  (our own names)
        elif name != "reconcile.withheld_names":
            context.connection.exec_driver_sql(f"delete from {local_name(name)}")  # noqa: S608
    runner = _with(context.runner, is_rollover=not context.is_first, is_additions_only=False)
    for model in context.models.of("reconcile"):
        context.on_step(runner.rebuild(model))
    return runner


def _with(runner: ModelRunner, **parameters: bool) -> ModelRunner:
    return replace(runner, parameters={**runner.parameters, **parameters})


def _next_rollover(context: PlanningContext) -> Window | None:
    known = current_windows(context.connection, district_id=context.district_id, now=context.now)
    rollovers = [each for each in known if each.kind == "rollover"]
    # Of two that begin in one night, the district's own goes first.
    return min(rollovers, key=lambda each: (each.first_night, each.district_id is None), default=None)


def _default_window(context: PlanningContext) -> Window:
    tonight = night_of(context.now)
    return Window(0, context.district_id, None, "rollover", tonight, tonight + timedelta(days=1), {}, "", "", context.now, None, None)


def _brakes(context: PlanningContext, runner: ModelRunner, *, again: bool = False) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    """Every brake with an act, by kind, school, role and collection.

    Args:
        again: count the acts again, because who graduates has changed.
    """
    for name in ("reconcile.graduates", "reconcile.brake_acts", BRAKES) if again else ():
        runner.rebuild(context.models.by_name[name])
    rows = _rows(runner, f"select * from {BRAKES}")  # noqa: S608
    return {tuple(row[each] for each in ("kind", "school_id", "role", "collection")): row for row in rows}


def _compared(
    outside: Mapping[tuple[Any, ...], Mapping[str, Any]], inside: Mapping[tuple[Any, ...], Mapping[str, Any]], own: Brakes, limits: Brakes
) -> list[dict[str, Any]]:
    found = []
    for identity in sorted({*outside, *inside}, key=str):
        kind, school_id, role, collection = identity
        row: dict[str, Any] = {"kind": kind, "school_id": school_id, "role": role, "collection": collection}
        # A brake without an act has no row; its n is the same.
        active = (outside.get(identity) or inside[identity])["active"]
        for name, brakes, settings in (("without", outside, own), ("with", inside, limits)):
            acts = brakes[identity]["acts"] if identity in brakes else 0
            limit = KINDS[kind].limit_of(role, active, settings)
            row |= {
                f"acts_{name}_window": acts,
                f"limit_{name}_window": None if limit is None else float(limit),
                f"trips_{name}_window": identity in brakes and (limit is None or Fraction(acts) > limit),
            }
        found.append(row)
    return found


def _held_today(context: PlanningContext, plan: Plan, compared: Sequence[Mapping[str, Any]]) -> list[str]:
    """The kinds that the limits of today would hold: those of the rollover window if one is on. What is approved is not held."""
    column = "trips_with_window" if context.is_rollover else "trips_without_window"
    approved = {each.brake.identity for each in plan.decisions if not each.is_holding}
    tripped = [each for each in compared if each[column]]
    identities = {tuple(each[part] for part in ("kind", "school_id", "role", "collection")) for each in tripped}
    return sorted({identity[0] for identity in identities - approved} | {each.brake.kind for each in plan.holding})


def _rows(runner: ModelRunner, query: str, **values: Any) -> list[dict[str, Any]]:
    parameters = {"district_id": runner.parameters["district_id"], **values}
    return [dict(row) for row in runner.connection.execute(sa.text(localize(query)), parameters).mappings()]
