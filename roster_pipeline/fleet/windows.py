"""Reminders of windows that begin or end soon (R14.6).

Belongs here: when a reminder is due. Does not belong here: which window is on (`districts/windows.py`), and the text and delivery of an
alert (`alerts/`).
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import Connection

from roster_pipeline.alerts.outbox import record_alert
from roster_pipeline.districts.agreement import all_districts
from roster_pipeline.districts.nights import noon_of
from roster_pipeline.districts.windows import Window, current_windows

# Days before a window begins, and before it ends.
BEFORE_IT_BEGINS = (7, 1)
BEFORE_IT_ENDS = (1,)


def alert_windows(connection: Connection, now: datetime) -> int:
    """Record one alert for every reminder that is due. Returns how many reminders are due, reported before or not."""
    due = [(window, what, days) for window in current_windows(connection, now=now) for what, days in _due(window, now)]
    clever_ids = {each.district_id: each.clever_id for each in all_districts(connection)} if due else {}
    for window, what, days in due:
        day = window.first_night if what == "begins" else window.last_night + timedelta(days=1)
        whose = f"profile {window.profile}" if window.district_id is None else f"district {clever_ids[window.district_id]}"
        facts = {"window_id": window.window_id, "window": window.kind, "what": what, "day": day.isoformat(), "whose": whose}
        record_alert(connection, "window", f"{window.window_id}:{what}:{days}", now=now, district_id=window.district_id, facts=facts)
    return len(due)


def _due(window: Window, now: datetime) -> Iterator[tuple[str, int]]:
    """The newest reminder of each end that is due, as what happens and the days before it. One that was due before the window was added is
    none: the person who added it knows."""
    ends = (("begins", BEFORE_IT_BEGINS, window.first_night), ("ends", BEFORE_IT_ENDS, window.last_night + timedelta(days=1)))
    for what, reminders, day in ends:
        passed = [days for days in reminders if noon_of(day - timedelta(days=days)) <= now < noon_of(day)]
        if passed and noon_of(day - timedelta(days=min(passed))) >= window.created_at:
            yield what, min(passed)
