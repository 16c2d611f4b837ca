"""Which districts are followed by day, and when each is asked about (R17.1).

Does not belong here: the sensor (`defs/test_by_day.py`), and the night's refresh (`test_freshness.py`).
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import Agreement, record_agreement
from roster_pipeline.fleet.by_day import REFRESHES_A_DAY, due_by_day

NOON = datetime(2026, 11, 18, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def follow(database: Database) -> Database:
    """Two districts with an applied sync; only the first one is followed by day."""
    with database.engine.begin() as connection:
        for number, settings in ((1, {"freshness": "day"}), (2, {})):
            record_agreement(connection, Agreement(f"c{number}", "District", "typing_agent", f"d{number}.example", settings=settings))
    sync(database, status="successful", mark="a", ago=5 * HOUR)
    sync(database, status="successful", mark="b", ago=4 * HOUR)
    return database


def sync(
    database: Database,
    *,
    status: str,
    mark: str | None = None,
    ago: timedelta = HOUR,
    trigger: str = "scheduled",
    soft_deleted: int = 0,
) -> None:
    counts = {"mark": mark, "changes": {"users": {"soft_delete": soft_deleted}} if soft_deleted else {}}
    values: dict[str, Any] = {"status": status, "at": NOON - ago, "trigger": trigger, "counts": counts}
    with database.engine.begin() as connection:
        statement = sa.text(
            "insert into ops.syncs (district_id, status, trigger, started_at, finished_at, counts) values"
            " (1, :status, :trigger, :at, case when :status not in ('queued', 'processing') then cast(:at as timestamptz) end, :counts)"
        ).bindparams(sa.bindparam("counts", type_=sa.JSON))
        connection.execute(statement, values)


def due(database: Database, asked: dict[str, float] | None = None, now: datetime = NOON) -> list[tuple[str, str | None]]:
    with database.engine.begin() as connection:
        return [(each.clever_id, each.mark) for each in due_by_day(connection, now, asked or {})]


def test_only_districts_that_follow_by_day(follow: Database) -> None:
    """R17.1: with the mark of the last applied sync, which a failed one does not change. Syncs of older releases have only last_sync."""
    assert due(follow) == [("c1", "b")]
    sync(follow, status="failed", mark="c")
    assert due(follow) == [("c1", "b")]
    with follow.engine.begin() as connection:
        connection.exec_driver_sql("""update ops.syncs set counts = '{"last_sync": "x"}' where counts ->> 'mark' = 'b'""")
    assert due(follow) == [("c1", "x")]


@pytest.mark.parametrize(
    "change",
    [
        "update app.districts set status = 'paused'",
        "update app.districts set start_date = '2026-12-01'",
        "update ops.syncs set status = 'failed'",
        "insert into ops.syncs (district_id) values (1)",
        "insert into ops.windows (district_id, kind, first_night, last_night, created_by, principal, reason)"
        " values (1, 'freeze', '2026-11-10', '2026-11-30', 'Ann', 'os:ann', 'exams')",
    ],
)
def test_a_district_that_is_not_to_be_synced_is_not_asked_about(follow: Database, change: str) -> None:
    """R17.1, R14.2: it is not active, has not begun, has never been synced, is about to be synced, or is in a freeze."""
    with follow.engine.begin() as connection:
        connection.exec_driver_sql(change)
    assert due(follow) == []


def test_as_often_as_the_district_says(follow: Database) -> None:
    """R17.1: every `freshness_minutes`, ten if nothing else is said."""
    before = NOON.timestamp()
    assert due(follow, {"c1": before - 599}) == []
    assert due(follow, {"c1": before - 600}) == [("c1", "b")]
    with follow.engine.begin() as connection:
        connection.exec_driver_sql(
            """update app.districts set settings = '{"freshness": "day", "freshness_minutes": 60}' where district_id = 1"""
        )
    assert due(follow, {"c1": before - 600}) == []


def test_not_after_people_were_deactivated(follow: Database) -> None:
    """R17.1: frequency gets around no brake. Above `role_floor` in 24 hours, the district waits for the night."""
    for number, (users, expected) in enumerate(((6, [("c1", "m0")]), (4, [("c1", "m1")]), (1, []))):
        sync(follow, status="successful", mark=f"m{number}", trigger="refresh", ago=(3 - number) * HOUR, soft_deleted=users)
        assert due(follow) == expected
    assert due(follow, now=NOON + 22 * HOUR) == [("c1", "m2")]
    with follow.engine.begin() as connection:
        settings = '{"freshness": "day", "brakes": {"role_floor": 11}}'
        connection.execute(sa.text("update app.districts set settings = cast(:new as jsonb) where district_id = 1"), {"new": settings})
    assert due(follow) == [("c1", "m2")]


def test_at_most_so_often_a_day(follow: Database) -> None:
    """R17.1: 24 refreshes in 24 hours, whatever became of them. Older ones do not count."""
    for number in range(REFRESHES_A_DAY):
        sync(follow, status="successful" if number % 2 else "failed", mark="b", trigger="refresh", ago=2 * HOUR)
    assert due(follow) == []
    assert due(follow, now=NOON + 23 * HOUR) == [("c1", "b")]
