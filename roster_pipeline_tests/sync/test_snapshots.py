"""R11.4, R11.6: an older snapshot is never applied over a newer one, and a sync ends only once."""

from datetime import UTC, datetime, timedelta

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline.errors import TransientError
from roster_pipeline.sync import ledger
from roster_pipeline_tests.sync.scenario import scenario


def test_an_older_snapshot_is_never_applied_over_a_newer_one(database: Database) -> None:
    """R11.6: if a pull began before the accepted one, the sync fails with this reason and writes nothing."""
    with scenario(database) as world:
        students = world.students(world.school("a"), 3)
        world.sync()
        world.change.remove_users(students[:1])
        earlier = datetime.now(UTC) - timedelta(hours=1)
        world.clock = lambda: earlier
        with pytest.raises(TransientError, match=r"R11\.6"):
            world.sync()
        assert world.active() == set(students)
        assert world.rows("select status from ops.syncs order by sync_id") == [("successful",), ("failed",)]


def test_an_error_after_the_commit_does_not_make_an_applied_sync_a_failed_one(database: Database) -> None:
    """R11.4: the row says what is in the database."""
    with scenario(database) as world:
        world.students(world.school("a"), 1)
        report = world.sync()
        with database.engine.begin() as connection:
            ledger.end(connection, report.sync_id, now=datetime.now(UTC), status="failed", counts={}, message="too late")
        assert world.rows("select status from ops.syncs") == [("successful",)]
