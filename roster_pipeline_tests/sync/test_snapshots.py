"""R11.4, R11.6: an older snapshot is never applied over a newer one, a wrong clock stops nothing, and a sync ends only once."""

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from roster_pipeline.database import clock
from roster_pipeline.database.clock import database_time
from roster_pipeline.database.engine import Database
from roster_pipeline.errors import PermanentError, TransientError
from roster_pipeline.sync import ledger
from roster_pipeline.sync.run import SyncRequest, run_sync
from roster_pipeline_tests.sync.scenario import DISTRICT, scenario

YEAR = timedelta(days=400)


def test_an_older_snapshot_is_never_applied_over_a_newer_one(database: Database) -> None:
    """R11.6: if a pull began before that of an applied sync, the sync fails with this reason and writes nothing."""
    with scenario(database) as world:
        students = world.students(world.school("a"), 3)
        world.sync()
        world.change.remove_users(students[:1])
        steps = count()

        def overtake(_: object) -> None:
            if not next(steps):
                world.execute(
                    "insert into ops.syncs (district_id, status, started_at, finished_at, pull_no)"
                    " select district_id, 'successful', now(), now(), max(pull_no) + 1 from ops.syncs group by district_id"
                )

        with pytest.raises(TransientError, match=r"R11\.6"):
            run_sync(database, world.settings, SyncRequest(DISTRICT), on_step=overtake)
        assert world.active() == set(students)
        assert world.rows("select status, pull_no from ops.syncs order by sync_id") == [("successful", 1), ("failed", 2), ("successful", 3)]
        assert world.sync().status == "successful"


def test_a_clock_that_was_wrong_once_blocks_nothing(database: Database) -> None:
    """R11.6: the database's clock was years ahead during one sync. Afterwards everything goes on."""
    with scenario(database) as world:
        students = world.students(world.school("a"), 30)
        world.clock = lambda connection: database_time(connection) + YEAR
        world.sync()
        world.clock = database_time
        world.change.remove_users(students[:1])
        assert world.sync().status == "successful"
        assert world.active() == set(students[1:])
        assert world.plan().plan.rows == 0
        now = world.value("select clock_timestamp()")
        assert world.value("select max(pulled_at) from staging.districts") < now
        (began,) = world.rows("select began_at < now() from ops.token_listings")[0]
        assert began


def test_an_approval_of_the_future_is_as_good_as_expired(database: Database) -> None:
    """R11.6, R7.5: nobody knows how old it is. The next approval counts."""
    with scenario(database) as world:
        students = world.students(world.school("a"), 30)
        world.sync()
        world.change.remove_users(students[:20])
        world.sync()
        world.clock = lambda connection: database_time(connection) + YEAR
        world.approve()
        world.clock = database_time
        assert world.sync().status == "held"
        world.approve()
        assert world.sync().status == "successful"
        assert world.active() == set(students[20:])


@pytest.mark.parametrize(("difference", "says"), [(-90, "90 seconds behind"), (3 * 86_400, "3 days ahead of")])
def test_a_machine_with_another_time_does_not_sync(database: Database, monkeypatch: pytest.MonkeyPatch, difference: int, says: str) -> None:
    """R11.6: a sync refuses to start if this machine's clock is more than a minute off the database's. The row has the database's time."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            del tz
            return datetime.now(UTC) + timedelta(seconds=difference)

    with scenario(database) as world:
        world.students(world.school("a"), 1)
        with monkeypatch.context() as patch:
            patch.setattr(clock, "datetime", Wrong)
            with pytest.raises(PermanentError, match=says):
                world.sync()
        assert world.rows("select status, abs(extract(epoch from now() - finished_at)) < 60 from ops.syncs") == [("failed", True)]
        assert says in world.value("select message from ops.syncs")
        assert world.sync().status == "successful"


def test_an_error_after_the_commit_does_not_make_an_applied_sync_a_failed_one(database: Database) -> None:
    """R11.4: the row says what is in the database."""
    with scenario(database) as world:
        world.students(world.school("a"), 1)
        report = world.sync()
        with database.engine.begin() as connection:
            ledger.end(connection, report.sync_id, now=datetime.now(UTC), status="failed", counts={}, message="too late")
        assert world.rows("select status from ops.syncs") == [("successful",)]
