"""Plan -> `app`: all writes of a sync, with their history, in the caller's transaction (R11.5).

Belongs here: running the statements of `app/` in order, and updating the permanent tables of staging and reconcile to match the plan. Does
not belong here: what is written (`dbt_like_sql/`), and whether it may be written (`run.py`).
"""

from roster_pipeline.database.models import Model
from roster_pipeline.districts.rekey import forget_old_id
from roster_pipeline.sync.session import PlanningContext

# Written before the state of the tables is recorded, because it is no row of the roster and has no history.
_AGREEMENT = "app.agreed_schools"


def record_plan(context: PlanningContext) -> None:
    """Store the decisions and the quarantine, also if the whole sync is held."""
    for model in context.models.of("ops"):
        context.on_step(context.runner.act(model))
    for model in context.models.of("reconcile"):
        _persist(context, model)


def write_agreement(context: PlanningContext) -> bool:
    """Keep the Clever ids of the agreement's schools (R6.4), and the district's own (R6.5). Returns whether a school's was written."""
    forget_old_id(context.connection, context.district)
    step = context.runner.act(context.models.by_name[_AGREEMENT])
    context.on_step(step)
    return step.rows > 0


def apply_plan(context: PlanningContext) -> None:
    """Accept the snapshot, and write exactly the changes of the plan.

    `app` comes last, so that rows which the application uses are locked as short as possible.
    """
    for model in context.models.of("staging"):
        _persist(context, model)
    # Usernames swap and rotate within one statement (R5.6), so uniqueness is checked after it, not row by row.
    context.connection.exec_driver_sql("set constraints all deferred")
    for model in (each for each in context.models.of("app") if each.name != _AGREEMENT):
        context.on_step(context.runner.act(model))
    context.connection.exec_driver_sql("set constraints all immediate")


def accept_district(context: PlanningContext) -> None:
    """Accept a snapshot that is unchanged: only the time of the pull is new."""
    model = context.models.by_name["staging.districts"]
    context.on_step(context.runner.build(model))
    _persist(context, model)


def _persist(context: PlanningContext, model: Model) -> None:
    for step in context.runner.persist(model):
        context.on_step(step)
