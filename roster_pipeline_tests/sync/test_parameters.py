"""The parameters that models name, and those that a sync gives them."""

from datetime import UTC, datetime

import sqlalchemy as sa

from roster_pipeline.database.runner import localize
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.sync import run
from roster_pipeline.sync.session import SyncContext
from roster_pipeline_tests.reference.driver import LiveDistrict


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
