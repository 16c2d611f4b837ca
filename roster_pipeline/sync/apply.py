"""Plan -> `app`: all of a district's writes, with their history, in the caller's one transaction (R11.5).

Belongs here: running the writing statements in order, and bringing the lasting tables of staging and reconcile in line.
Does not belong here: what is written (`dbt_like_sql/`) and whether it may be (`run.py`).
"""

from collections.abc import Callable

from roster_pipeline.database.models import Model, Models
from roster_pipeline.database.runner import ModelRunner, Step


def record_plan(runner: ModelRunner, models: Models, on_step: Callable[[Step], None]) -> None:
    """Keep the decisions and the quarantine, also of a plan that is held as a whole."""
    for model in models.of("ops"):
        on_step(runner.act(model))
    for model in models.of("reconcile"):
        _keep(runner, model, on_step)


def apply_plan(runner: ModelRunner, models: Models, on_step: Callable[[Step], None]) -> None:
    """Accept the snapshot and write what the plan says, and nothing else.

    `app` comes last, so that rows the application uses are locked for as short as possible.
    """
    for model in models.of("staging"):
        _keep(runner, model, on_step)
    # Usernames swap and rotate within one statement (R5.6), which is why uniqueness is checked after it and not row by row.
    runner.connection.exec_driver_sql("set constraints all deferred")
    for model in models.of("app"):
        on_step(runner.act(model))
    runner.connection.exec_driver_sql("set constraints all immediate")


def accept_district(runner: ModelRunner, models: Models, on_step: Callable[[Step], None]) -> None:
    """Accept a snapshot in which nothing is new but the time of the pull."""
    (model,) = [model for model in models.of("staging") if model.name == "staging.districts"]
    on_step(runner.build(model))
    _keep(runner, model, on_step)


def _keep(runner: ModelRunner, model: Model, on_step: Callable[[Step], None]) -> None:
    for step in runner.persist(model):
        on_step(step)
