"""When the schedule syncs districts, and which (R11.1): on ordinary nights and on the two nights on which the clock changes."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import Agreement, District, all_districts, record_agreement
from roster_pipeline.districts.nights import (
    due_districts,
    is_due,
    is_late,
    last_scheduled_at,
    next_scheduled_at,
    night_ends_at,
    night_of,
    scheduled_at,
)

# On 2026-11-01 at 02:00 the clock goes back to standard time (UTC-8), on 2027-03-14 at 02:00 forward to daylight-saving time (UTC-7).
MOMENTS = [
    ("21:00", date(2026, 10, 31), datetime(2026, 11, 1, 4, tzinfo=UTC)),
    ("21:00", date(2026, 11, 1), datetime(2026, 11, 2, 5, tzinfo=UTC)),
    ("21:00", date(2026, 11, 2), datetime(2026, 11, 3, 5, tzinfo=UTC)),
    ("00:00", date(2026, 10, 31), datetime(2026, 10, 31, 7, tzinfo=UTC)),
    ("00:00", date(2026, 11, 1), datetime(2026, 11, 1, 7, tzinfo=UTC)),
    ("00:00", date(2026, 11, 2), datetime(2026, 11, 2, 8, tzinfo=UTC)),
    ("21:00", date(2027, 3, 13), datetime(2027, 3, 14, 5, tzinfo=UTC)),
    ("21:00", date(2027, 3, 14), datetime(2027, 3, 15, 4, tzinfo=UTC)),
    ("21:00", date(2027, 3, 15), datetime(2027, 3, 16, 4, tzinfo=UTC)),
    ("00:00", date(2027, 3, 13), datetime(2027, 3, 13, 8, tzinfo=UTC)),
    ("00:00", date(2027, 3, 14), datetime(2027, 3, 14, 8, tzinfo=UTC)),
    ("00:00", date(2027, 3, 15), datetime(2027, 3, 15, 7, tzinfo=UTC)),
]


@pytest.mark.parametrize(("nightly_at", "day", "moment"), MOMENTS)
def test_the_scheduled_time_follows_the_wall_clock(database: Database, nightly_at: str, day: date, moment: datetime) -> None:
    """R11.1: it is once a local day, at the same hour on the wall clock. `next_scheduled_at` and `is_due` agree with it."""
    assert scheduled_at(nightly_at, day) == moment
    assert last_scheduled_at(nightly_at, moment) == moment
    assert last_scheduled_at(nightly_at, moment - timedelta(seconds=1)) == scheduled_at(nightly_at, day - timedelta(days=1))
    district = add(database, "d1", nightly_at=nightly_at)
    assert next_scheduled_at(district, moment - timedelta(seconds=1)) == moment
    assert next_scheduled_at(district, moment) == scheduled_at(nightly_at, day + timedelta(days=1))
    assert is_due(district, moment)


def test_both_nightly_times_are_in_one_night() -> None:
    """The night has the date of its evening, and ends at six in the morning, also when the clock changes in between."""
    evening, midnight = scheduled_at("21:00", date(2026, 10, 31)), scheduled_at("00:00", date(2026, 11, 1))
    assert night_of(evening) == night_of(midnight) == date(2026, 10, 31)
    assert night_ends_at(evening) == night_ends_at(midnight) == datetime(2026, 11, 1, 14, tzinfo=UTC)
    assert night_of(scheduled_at("21:00", date(2026, 11, 1))) == date(2026, 11, 1)


def test_a_missed_time_is_late_after_the_limit() -> None:
    """R11.1: three hours are not late, and a second more is."""
    moment = scheduled_at("21:00", date(2026, 11, 1))
    assert not is_late(moment, moment + timedelta(hours=3), timedelta(hours=3))
    assert is_late(moment, moment + timedelta(hours=3, seconds=1), timedelta(hours=3))


def test_the_districts_that_are_due(database: Database) -> None:
    """R11.1: they are active, have this time by profile or setting, and their start date has come in Los Angeles."""
    today, tomorrow = date(2026, 10, 31), date(2026, 11, 1)
    add(database, "evening")
    add(database, "midnight", profile="twig_science")
    add(database, "moved", profile="twig_science", nightly_at="21:00")
    add(database, "today", start_date=today)
    add(database, "tomorrow", start_date=tomorrow)
    add(database, "tomorrow-midnight", profile="twig_science", start_date=tomorrow)
    for status in ("requested", "paused", "disconnected"):
        add(database, status)
        with database.engine.begin() as connection:
            connection.exec_driver_sql(f"update app.districts set status = '{status}' where clever_id = '{status}'")

    assert due(database, scheduled_at("21:00", today)) == ["evening", "moved", "today"]
    assert due(database, scheduled_at("21:00", tomorrow)) == ["evening", "moved", "today", "tomorrow"]
    assert due(database, scheduled_at("00:00", today)) == ["midnight"]
    # Three hours after 21:00 of the day before.
    assert due(database, scheduled_at("00:00", tomorrow)) == ["midnight", "tomorrow-midnight"]


def test_the_next_scheduled_time_of_a_district_that_has_not_started(database: Database) -> None:
    """SPEC 2: `next_scheduled_at` is on its start date; a district that is not active has none."""
    now = datetime(2026, 10, 30, 12, tzinfo=UTC)
    starting = add(database, "starting", start_date=date(2026, 11, 1))
    assert next_scheduled_at(starting, now) == datetime(2026, 11, 2, 5, tzinfo=UTC)
    midnight = add(database, "midnight", profile="twig_science", start_date=date(2026, 11, 2))
    assert next_scheduled_at(midnight, now) == datetime(2026, 11, 2, 8, tzinfo=UTC)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("update app.districts set status = 'paused'")
    with database.engine.connect() as connection:
        assert [next_scheduled_at(district, now) for district in all_districts(connection)] == [None, None]


def add(database: Database, clever_id: str, *, profile: str = "typing_agent", start_date: date | None = None, **settings: Any) -> District:
    agreement = Agreement(clever_id, "Test", profile, "test.example", start_date=start_date, settings=settings)
    with database.engine.begin() as connection:
        return record_agreement(connection, agreement)


def due(database: Database, moment: datetime) -> list[str]:
    with database.engine.connect() as connection:
        return [district.clever_id for district in due_districts(connection, moment)]
