"""The parameters that models name, and those that a sync gives them."""

from datetime import UTC, datetime

import sqlalchemy as sa

from roster_pipeline.database.engine import Database
from roster_pipeline.database.runner import localize
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.sync import run
from roster_pipeline.sync.session import SyncContext
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.scenario import scenario


def test_models_name_the_parameters_that_a_sync_gives(district: LiveDistrict) -> None:
    """SPEC 1: a field of a profile reaches SQL as a parameter. One that is not given would fail in every sync; one that no model names is
    of no use.
    """
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with district.database.engine.connect() as connection:
        found = find_district(connection, district.clever_id)
        context = SyncContext(connection, found, on_step=lambda _step: None, clock=lambda _: now)
        given = run._start_planning(context, sync_id=None, now=now).runner.parameters
    named = {name for model in run.project_models() for name in sa.text(localize(model.sql)).compile().params}
    assert named == given.keys()


def test_a_dry_run_draws_no_ids(database: Database) -> None:
    """SPEC 2: `roster plan` writes nothing, also no number that a rollback does not give back. It counts new rows all the same."""
    with scenario(database) as world:
        school = world.school("A")
        world.change.add_section(school, name="class", students=world.students(school, 3), teachers=[])
        sequences = "select schemaname, sequencename, last_value from pg_sequences order by 1, 2"
        before = world.rows(sequences)
        planned = world.plan()
        assert world.rows(sequences) == before
        done = world.sync().counts["changes"]
        assert planned.plan.changes == done
        assert done["users"] == {"create": 3}
        assert world.value("select max(user_id) from app.users") < 1 << 62
