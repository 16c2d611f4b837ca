"""When the schedule syncs districts, and which (R11.1).

Belongs here: the nightly times on the wall clock in Los Angeles, daylight-saving time included, and the districts that are due. Does not
belong here: starting anything (`defs/nightly.py`).
"""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from roster_pipeline.database.clock import is_future
from roster_pipeline.districts.agreement import District, all_districts
from roster_pipeline.profiles import PROFILES, nightly_times

PACIFIC = ZoneInfo("America/Los_Angeles")
NIGHTLY_TIMES = nightly_times()
# Clever's last load of the night is over by then, with time to spare. Until then, newer data is pulled in the same night (R3.7).
NIGHT_ENDS = time(6, 0)


def scheduled_at(nightly_at: str, day: date) -> datetime:
    """The moment (UTC) at which the clock in Los Angeles shows `nightly_at` on that day; no nightly time is ever skipped or repeated."""
    return datetime.combine(day, time.fromisoformat(nightly_at), PACIFIC).astimezone(UTC)


def last_scheduled_at(nightly_at: str, now: datetime) -> datetime:
    """The last time (UTC) at which the schedule of `nightly_at` was due, up to `now`."""
    today = now.astimezone(PACIFIC).date()
    moment = scheduled_at(nightly_at, today)
    return moment if moment <= now else scheduled_at(nightly_at, today - timedelta(days=1))


def night_of(moment: datetime) -> date:
    """The date of the evening on which the night began: 00:00 belongs to the same night as the 21:00 before it."""
    return (moment.astimezone(PACIFIC) - timedelta(hours=12)).date()


def noon_of(day: date) -> datetime:
    """Noon (UTC) of that day in Los Angeles: when the night of the day begins, and the night of the day before ends."""
    return datetime.combine(day, time(12), PACIFIC).astimezone(UTC)


def night_ends_at(moment: datetime) -> datetime:
    """When the night of this scheduled time ends (UTC)."""
    return datetime.combine(night_of(moment) + timedelta(days=1), NIGHT_ENDS, PACIFIC).astimezone(UTC)


def is_late(moment: datetime, now: datetime, limit: timedelta) -> bool:
    """Whether it is too late to start the syncs of a missed scheduled time: nobody expects a sync during the day."""
    return now - moment > limit


def nightly_at(district: District) -> str | None:
    """The district's nightly time; None if it is not active.

    It is read from the district's row, without checking the row: invalid settings or an unknown profile fail the district's own sync, and
    must not stop the syncs of other districts (R11.2).
    """
    if district.status != "active" or district.profile is None:
        return None
    chosen = district.row["settings"].get("nightly_at")
    if chosen in NIGHTLY_TIMES:
        return str(chosen)
    return PROFILES[district.profile].nightly_at if district.profile in PROFILES else NIGHTLY_TIMES[0]


def is_due(district: District, moment: datetime) -> bool:
    """Whether the schedule syncs the district at this time: it is active, has this nightly time, and its start date has come."""
    starts = district.row["start_date"]
    local = moment.astimezone(PACIFIC)
    return nightly_at(district) == f"{local:%H:%M}" and (starts is None or starts <= local.date())


def due_districts(connection: Connection, moment: datetime) -> list[District]:
    """The districts that are due at a scheduled time (UTC), oldest first."""
    return [district for district in all_districts(connection) if is_due(district, moment)]


def was_active(district: District, moment: datetime, now: datetime) -> bool:
    """Whether a district that is active now was active at that time already. A time in the future is unknown (R11.6)."""
    since = district.row["active_since"]
    return since is not None and (since <= moment or is_future(since, now))


def next_scheduled_at(district: District, now: datetime) -> datetime | None:
    """When the schedule syncs the district next (UTC); None if it is not active, or starts on a day without end."""
    at = nightly_at(district)
    if at is None:
        return None
    today = now.astimezone(PACIFIC).date()
    starts = district.row["start_date"]
    day = max(today, starts) if starts is not None else today
    try:
        moment = scheduled_at(at, day)
    except OverflowError:
        # The last days of the calendar, which somebody has written into the row. One district must not end a list of all.
        return None
    return moment if moment > now else scheduled_at(at, day + timedelta(days=1))
