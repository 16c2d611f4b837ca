"""Health of what the pipeline stands on: the server, the clocks, the districts' locks, and the disk.

Belongs here: the verdicts and their limits. Does not belong here: what syncs and districts show (`health.py`).

Two things cannot be known here: how full the disk of another machine is, and when the last backup was made.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.clock import TOLERANCE, clock_difference, describe
from roster_pipeline.database.lock import lock_holders
from roster_pipeline.fleet.findings import Finding, named

# Times that the pipeline has written, by table. None of them can be in the future, unless a clock was wrong (R11.6).
TIMES: Mapping[str, Sequence[str]] = {
    "app.districts": ("created_at", "updated_at", "active_since"),
    "staging.districts": ("pulled_at",),
    "ops.syncs": ("requested_at", "started_at", "finished_at", "snapshot_at"),
    "ops.holds": ("created_at", "decided_at"),
    "ops.alerts": ("created_at", "closed_at"),
    "ops.alert_deliveries": ("accepted_at",),
    "ops.connections": ("connected_at", "disconnected_at"),
    "ops.token_listings": ("began_at", "doubted_since"),
    "ops.purges": ("purged_at",),
    "ops.erased": ("erased_at",),
    "ops.audit": ("at",),
    "ops.ticks": ("ticked_at",),
    "ops.windows": ("created_at", "cancelled_at"),
}

_GIB = 2**30
# Nearly full: less than so much is free, and less than this share.
_LOW, _LOW_SHARE = 5 * _GIB, 0.10
_FULL, _FULL_SHARE = 1 * _GIB, 0.05

DiskUsage = Callable[[Path], tuple[int, int, int]]


def is_writable(connection: Connection) -> bool:
    """Whether this session can write: not on a standby, and not in a database or role that is set to read only."""
    return str(connection.exec_driver_sql("show transaction_read_only").scalar_one()) == "off"


def server_health(connection: Connection) -> Finding:
    """Whether the server accepts writes."""
    version = connection.exec_driver_sql("show server_version").scalar_one()
    if is_writable(connection):
        return Finding("database", "ok", f"PostgreSQL {version} accepts writes.")
    standby = connection.exec_driver_sql("select pg_is_in_recovery()").scalar_one()
    why = "it is a standby" if standby else "default_transaction_read_only is on"
    do = "Let ROSTER_DATABASE_URL lead to the primary (target_session_attrs=read-write)." if standby else "Switch it off."
    return Finding("database", "problem", f"PostgreSQL {version} only reads: {why}. Nothing can sync.", do, {"standby": standby})


def clock_health(connection: Connection, now: datetime) -> Finding:
    """Whether this machine has the database's time, and whether all stored times are in the past."""
    difference = clock_difference(connection)
    future = _in_the_future(connection, now)
    numbers = {
        "difference_s": round(difference.total_seconds(), 1),
        "in_the_future": {table: count for table, (count, _) in future.items()},
    }
    if abs(difference) > TOLERANCE:
        says = f"This machine's clock is {describe(difference)} the database's. It does not sync."
        return Finding("clock", "problem", says, "Set the clock of the machine that is wrong; NTP does it continuously.", numbers)
    if future:
        tables = ", ".join(f"{table} {count:,}" for table, (count, _) in future.items())
        until = max(latest for _, latest in future.values())
        says = f"A clock was wrong: rows with times in the future, up to {until:%Y-%m-%d %H:%M} UTC ({tables})."
        do = "They stop nothing, and count as unknown. Find out which clock it was; set the times to now() with SQL if they disturb."
        return Finding("clock", "warning", says, do, numbers)
    return Finding("clock", "ok", "This machine and the database have the same time.", numbers=numbers)


def _in_the_future(connection: Connection, now: datetime) -> dict[str, tuple[int, datetime]]:
    """How many rows of each table have a time in the future, and the latest one."""
    found = {}
    for table, columns in TIMES.items():
        latest = f"greatest({', '.join(columns)})"
        query = sa.text(f"select count(*), max({latest}) from {table} where {latest} > :limit")  # noqa: S608  (our own names)
        count, until = connection.execute(query, {"limit": now + TOLERANCE}).one()
        if count:
            found[table] = (count, until)
    return found


def lock_health(connection: Connection) -> Finding:
    """Whether only the pipeline holds the locks of districts (R11.2). Every role that can connect can take one."""
    holders = lock_holders(connection)
    strangers = [each for each in holders if not each.is_ours]
    numbers = {"held": len(holders), "strangers": [{"district_id": each.district_id, "pid": each.pid} for each in strangers]}
    if not strangers:
        return Finding("locks", "ok", f"{len(holders)} districts are being synced.", numbers=numbers)
    listed = named(f"district {each.district_id}: process {each.pid}, role {each.role}" for each in strangers)
    says = f"{len(strangers)} locks of districts are held by sessions that are not the pipeline's; these districts cannot sync. {listed}."
    do = "`select * from pg_stat_activity where pid = ...` shows the session; `select pg_terminate_backend(...)` ends it."
    return Finding("locks", "problem", says, do, numbers)


def disk_health(places: Mapping[str, Path], usage: DiskUsage = shutil.disk_usage) -> Finding:
    """Whether the disks have space.

    Args:
        places: what is there -> path. A path that does not exist yet stands for the folder in which it will be.
        usage: total, used and free bytes of a path's disk.
    """
    worst, says, numbers = "ok", [], {}
    for what, path in places.items():
        total, _, free = usage(_existing(path))
        share = free / total if total else 0
        numbers[what] = {"free_bytes": free, "free_share": round(share, 3)}
        if free < _FULL and share < _FULL_SHARE:
            worst = "problem"
        elif free < _LOW and share < _LOW_SHARE and worst == "ok":
            worst = "warning"
        says.append(f"{what}: {free / _GIB:,.1f} GiB free ({share:.0%})")
    text = "; ".join(says) + "."
    if worst == "ok":
        return Finding("disk", "ok", text, numbers=numbers)
    do = "Free some space, or shorten ROSTER_KEEP_CHANGES_DAYS, ROSTER_KEEP_RUNS_DAYS and ROSTER_KEEP_SYNCS_DAYS."
    return Finding("disk", "problem" if worst == "problem" else "warning", f"Nearly full. {text}", do, numbers)


def _existing(path: Path) -> Path:
    return next(each for each in (path.resolve(), *path.resolve().parents) if each.exists())
