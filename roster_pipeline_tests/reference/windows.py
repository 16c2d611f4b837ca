"""Windows of a district without HTTP: adding them, and a naive answer to which one is on, what its limits are, and what it keeps (R14.1,
R14.3, R14.4).

Does not belong here: the rest of a sync (`one_pass.py`), and graduates (`brakes.py`).
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from roster_pipeline.database.engine import Database
from roster_pipeline.districts.windows import Kind, NewWindow, Window, add_window, cancel_window
from roster_pipeline.profiles import Brakes
from roster_pipeline_tests.reference.brakes import active_roles
from roster_pipeline_tests.reference.rows import State


def night(moment: datetime) -> date:
    """The day on which the last noon was, by a wall clock in Los Angeles."""
    local = moment.astimezone(ZoneInfo("America/Los_Angeles"))
    return local.date() if local.hour >= 12 else local.date() - timedelta(days=1)


def on_at(windows: Sequence[Window], now: datetime) -> Window | None:
    """The window that is on."""
    return next((each for each in windows if each.first_night <= night(now) <= each.last_night), None)


def in_rollover(brakes: Brakes, window: Window | None) -> Brakes:
    """The limits: in a rollover half of the district, a whole school, and everything of the other three kinds."""
    if window is None or window.kind != "rollover":
        return brakes
    loose: dict[str, float] = {f"{each}_floor": 10**6 for each in ("classroom", "enrollment", "identity")}
    loose |= {"role_share": max(brakes.role_share, 0.5), "school_share": 1.0, **window.limits}
    return brakes.model_copy(update=loose)


def agree_on(
    database: Database,
    district_id: int,
    windows: Sequence[Window],
    kind: Kind,
    first: int,
    last: int,
    limits: Mapping[str, float],
    now: datetime,
) -> list[Window]:
    """Add a window. Returns those that were not cancelled, the new one last.

    Args:
        windows: the windows of the district. One with a night of the new one is cancelled.
        first, last: its nights, counted from tonight. It begins after a window that is over.
    """
    begin, end = (night(now) + timedelta(days=each) for each in (first, last))
    begin = max([begin, *(each.last_night + timedelta(days=1) for each in windows if each.ends_at <= now)])
    left = list(windows)
    with database.engine.begin() as connection:
        for other in windows:
            if other.first_night <= end and other.last_night >= begin and now < other.ends_at:
                cancel_window(connection, other.window_id, by="support", reason=None, now=now)
                left.remove(other)
        new = NewWindow(district_id, None, kind, begin, end, limits)
        return [*left, add_window(connection, new, by="support", reason="a test", now=now)]


def keep_losses(before: State, after: State) -> int:
    """R14.3: put back what would end, but for roles and classes that a move to another school replaces. Changes `after`.

    Returns:
        How many roles and enrollments are put back.
    """

    def ended(table: str) -> list[Any]:
        old, new = getattr(before, table), getattr(after, table)
        return [each for each, row in old.items() if row.deleted_at is None and new[each].deleted_at is not None]

    gained = {
        (user_id, role)
        for (user_id, role, school), row in after.roles.items()
        if school is not None and row.deleted_at is None and (role, school) not in active_roles(before, user_id)
    }
    replaced = {each for each in ended("roles") if each[:2] in gained and each[2] is not None}
    kept = [each for each in ended("roles") if each not in replaced]
    stay = [
        (at, user_id, role)
        for at, user_id, role in ended("enrollments")
        if (user_id, role, before.classrooms[at].school_id) not in replaced
    ]
    for table, keys in (("schools", ended("schools")), ("classrooms", ended("classrooms")), ("roles", kept), ("enrollments", stay)):
        getattr(after, table).update({each: getattr(before, table)[each] for each in keys})
    return len(kept) + len(stay)
