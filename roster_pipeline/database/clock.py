"""The time, as the database has it: the only clock by which the pipeline orders events and computes ages (R11.6).

Belongs here: reading that clock, and comparing it with this machine's. Does not belong here: the wall clock in Los Angeles
(`districts/nights.py`), and how long something takes, which Python's monotonic clock measures.

Several machines can sync, but there is one database. Its clock can be wrong too, for a while, so a stored time can be in the future. Such a
time must never stop anything: `is_future` recognises it.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.errors import PermanentError

# How a session reads the time, aware UTC. Tests pass a clock of their own.
Clock = Callable[[Connection], datetime]

# Larger differences are no noise: a machine that synchronises its clock is right within a fraction of a second.
TOLERANCE = timedelta(minutes=1)


def database_time(connection: Connection) -> datetime:
    """The time now, aware UTC. Within a transaction too, it moves on."""
    now: datetime = connection.exec_driver_sql("select clock_timestamp()").scalar_one()
    return now


def time_of(database: Database) -> datetime:
    """The same, on a session of its own."""
    with translate_database_errors(), database.engine.connect() as connection:
        return database_time(connection)


def is_future(moment: datetime | None, now: datetime) -> bool:
    """Whether a stored time was written by a clock that was wrong."""
    return moment is not None and moment > now + TOLERANCE


def clock_difference(connection: Connection) -> timedelta:
    """How far this machine's clock is ahead of the database's; negative if it is behind. At least so much: the query takes time too."""
    before = datetime.now(UTC)
    theirs = database_time(connection)
    after = datetime.now(UTC)
    return before - theirs if before > theirs else min(after - theirs, timedelta())


def require_same_time(connection: Connection) -> None:
    """Refuse to work on a machine whose clock is more than a minute off.

    Its schedules would start at wrong times, and its log would contradict the database.

    Raises:
        PermanentError: the two clocks differ.
    """
    difference = clock_difference(connection)
    if abs(difference) > TOLERANCE:
        raise PermanentError(
            f"This machine's clock is {describe(difference)} the database's.",
            hint="Set the clock of the machine that is wrong (NTP does it continuously), then try again.",
        )


def describe(difference: timedelta) -> str:
    """`3 days ahead of`, `90 seconds behind`."""
    seconds = round(abs(difference).total_seconds())
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{round(seconds / length)} {unit} {'ahead of' if difference > timedelta() else 'behind'}"
    return f"{seconds} seconds {'ahead of' if difference > timedelta() else 'behind'}"
