"""R14.6: reminders of windows, one each, on the days when the clock changes too."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection

from roster_pipeline.alerts.messages import Alert, compose
from roster_pipeline.database.engine import Database
from roster_pipeline.districts.nights import PACIFIC
from roster_pipeline.districts.windows import cancel_window
from roster_pipeline.fleet.windows import alert_windows
from roster_pipeline_tests.districts.test_windows import NOW, add, add_district

# The clock goes back on 2026-11-01, between the first reminder and the beginning.
FIRST, LAST = "2026-11-05", "2026-11-14"
MOMENTS = {
    "begins:7": datetime(2026, 10, 29, 12, tzinfo=PACIFIC),
    "begins:1": datetime(2026, 11, 4, 12, tzinfo=PACIFIC),
    "ends:1": datetime(2026, 11, 14, 12, tzinfo=PACIFIC),
}


def reported(connection: Connection) -> list[str]:
    return list(connection.exec_driver_sql("select event from ops.alerts order by alert_id").scalars())


@pytest.mark.parametrize("whose", ["district", "typing_agent"])
def test_one_alert_each(database: Database, whose: str) -> None:
    """R14.6: seven days and one day before a window begins, one day before it ends, each from its moment on, and once."""
    district_id = add_district(database)
    window = add(database, district_id if whose == "district" else whose, FIRST, LAST, "rollover")
    with database.engine.begin() as connection:
        expected: list[str] = []
        for name, moment in MOMENTS.items():
            alert_windows(connection, moment - timedelta(seconds=1))
            assert reported(connection) == expected
            expected.append(f"window:{window.window_id}:{name}")
            for later in (timedelta(), timedelta(hours=5)):
                assert alert_windows(connection, moment + later) == 1
                assert reported(connection) == expected
        assert alert_windows(connection, window.ends_at) == 0
        (facts,) = connection.exec_driver_sql("select facts from ops.alerts order by alert_id limit 1").scalars()
        named = "district d1" if whose == "district" else "profile typing_agent"
        assert facts == {"window_id": window.window_id, "window": "rollover", "what": "begins", "day": FIRST, "whose": named}


def test_late_reminders_are_not_repeated(database: Database) -> None:
    """R14.6: after days without the daemon only the newest is sent; one that was due before the window was added is none."""
    district_id = add_district(database)
    added = datetime(2026, 11, 2, tzinfo=UTC)
    late = add(database, district_id, FIRST, LAST, now=added)
    with database.engine.begin() as connection:
        assert alert_windows(connection, added) == 0
        assert alert_windows(connection, MOMENTS["begins:1"] + timedelta(hours=3)) == 1
        assert reported(connection) == [f"window:{late.window_id}:begins:1"]
        cancel_window(connection, late.window_id, by="Ann", reason=None, now=MOMENTS["begins:1"] + timedelta(hours=4))
        assert alert_windows(connection, MOMENTS["ends:1"]) == 0


def test_the_text_says_when_and_what_to_do() -> None:
    """R14.6: no reason and no name of a person is in it."""
    facts = {"window_id": 3, "window": "rollover", "what": "begins", "day": FIRST, "whose": "district 5f"}
    alert = Alert(1, "window", "5f", 1, None, None, facts, is_urgent=True, created_at=NOW, synced_since=False)
    message = compose([alert], "http://localhost:3000")
    assert message.subject == f"[roster] Window 3 of district 5f (rollover) begins at noon on {FIRST} in Los Angeles"
    assert "`roster rollover preview 5f`" in message.text
    assert "`roster window cancel 3 --by YOU`" in message.text
