"""Health as the application's database shows it: the last nights, silent districts, connections, and what waits.

Belongs here: the verdicts and their limits. Does not belong here: the server, clocks, locks and disks (`surroundings.py`), Dagster's own
state (`defs/health.py`), and printing.

A check that says "all of them" says how many, and looks for those that are missing. A time in the future is no success.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.alerts.delivery import receivers
from roster_pipeline.brake_kinds import loosened
from roster_pipeline.database.clock import is_future
from roster_pipeline.database.lock import locked_districts
from roster_pipeline.database.tables import alert_receivers, alerts, connections, holds, syncs, token_listings
from roster_pipeline.districts.agreement import District, all_districts
from roster_pipeline.districts.nights import NIGHTLY_TIMES, due_districts, last_scheduled_at, night_ends_at, night_of, was_active
from roster_pipeline.districts.windows import freezes_at, windows_at
from roster_pipeline.fleet.findings import Finding, named
from roster_pipeline.fleet.freshness import freshness
from roster_pipeline.fleet.recovery import crashed_districts, mark_crashed_syncs
from roster_pipeline.fleet.surroundings import clock_health, is_writable, lock_health, server_health
from roster_pipeline.profiles import PROFILES
from roster_pipeline.settings import Settings

# A request starts within 30 s (R11.3); the daemon may be restarting.
REQUEST_LATE, REQUEST_LOST = timedelta(seconds=30), timedelta(minutes=5)
# The sensor `connections` lists every ten minutes.
LISTING_LATE = timedelta(hours=1)


def database_health(connection: Connection, settings: Settings, *, now: datetime) -> list[Finding]:
    """Every finding, the most important first. Crashed syncs are marked as failed (R11.4), if the database can be written.

    Args:
        connection: in autocommit.
        now: by the database's clock, aware UTC.
    """
    every = all_districts(connection)
    return [
        server_health(connection),
        clock_health(connection, now),
        _districts(connection, every, now),
        _connections(connection, every, now),
        _crashed(connection, now),
        *(_night(connection, nightly_at, now) for nightly_at in NIGHTLY_TIMES),
        _silent(connection, now),
        _windows(connection, every, now),
        _requests(connection, now),
        lock_health(connection),
        _brakes(every),
        _holds(connection),
        _alerts(connection, settings),
    ]


def _districts(connection: Connection, every: Sequence[District], now: datetime) -> Finding:
    """Whether anybody is synced at all, and who waits to be."""
    counts = Counter(each.status for each in every)
    since = {row.district_id: row.disconnected_at or row.connected_at for row in connection.execute(sa.select(connections))}
    waiting = [
        f"{each.clever_id} {each.status} for {max((now - since.get(each.district_id, each.row['updated_at'])).days, 0)} days"
        for each in every
        if each.status in ("disconnected", "requested")
    ]
    numbers = dict(counts)
    listed = ", ".join(f"{counts[status]:,} {status}" for status in ("active", "paused", "requested", "disconnected") if counts[status])
    says = f"{listed or 'There is none'}." + (f" {named(waiting)}." if waiting else "")
    if not counts["active"] and any(each.profile is not None for each in every):
        do = (
            "`roster district list` shows them. `roster district resume` for a paused one; a disconnected one returns when Clever lists it."
        )
        return Finding("districts", "problem", f"No district is active, so none is synced: {says}", do, numbers)
    if counts["disconnected"]:
        do = "Ask each disconnected district whether it meant to. Nobody is deactivated."
        return Finding("districts", "warning", says, do, numbers)
    return Finding("districts", "ok", says, numbers=numbers)


def _connections(connection: Connection, every: Sequence[District], now: datetime) -> Finding:
    """Whether the list of connected districts is read, and believed (R11.7). It also shows whether Clever can be reached."""
    newest = connection.execute(sa.select(token_listings)).mappings().one_or_none()
    if newest is None:
        if not any(each.status == "active" for each in every):
            return Finding("connections", "ok", "Clever has not been listed yet.")
        return Finding(
            "connections", "warning", "Clever has never been listed.", "`roster sync DISTRICT` does, and the sensor `connections`."
        )
    began, doubt = newest["began_at"], newest["doubt"]
    numbers = {"listed_at": began, "doubted_since": newest["doubted_since"], "doubt": doubt}
    if doubt is not None:
        says = f"{doubt['reason']} Nothing has been changed since {newest['doubted_since']:%Y-%m-%d %H:%M} UTC."
        do = "Check CLEVER_CLIENT_ID and Clever's dashboard. If the list is right, `roster connections accept --by WHO` applies it."
        return Finding("connections", "problem", says, do, numbers)
    if now - began > LISTING_LATE or is_future(began, now):
        says = f"The last list of connected districts is of {began:%Y-%m-%d %H:%M} UTC."
        do = "Clever cannot be reached, or the sensor `connections` does not run: its ticks in Dagster's UI, page Automation, say which."
        return Finding("connections", "problem", says, do, numbers)
    return Finding("connections", "ok", f"Listed at {began:%H:%M} UTC.", numbers=numbers)


def _crashed(connection: Connection, now: datetime) -> Finding:
    if not is_writable(connection):
        found = len(crashed_districts(connection))
        says = f"{found} had crashed; they are marked as failed when the database can be written." if found else "None."
        return Finding("crashed syncs", "warning" if found else "ok", says, "See database." if found else "", {"found": found})
    marked = mark_crashed_syncs(connection, now=now)
    numbers = {"marked_as_failed": marked}
    if not marked:
        return Finding("crashed syncs", "ok", "None.", numbers=numbers)
    do = "`roster status` shows them. The next sync of each district starts from the beginning."
    return Finding("crashed syncs", "warning", f"{marked} had crashed and are now marked as failed.", do, numbers)


def _night(connection: Connection, nightly_at: str, now: datetime) -> Finding:
    """Whether every district that was due at the last nightly time has had a sync that ended."""
    what, moment = f"night {nightly_at}", last_scheduled_at(nightly_at, now)
    began = sa.func.coalesce(syncs.c.started_at, syncs.c.requested_at)
    since = (
        sa.select(syncs.c.district_id, syncs.c.status)
        .where(began.between(moment, now), syncs.c.status.in_(["successful", "held", "failed"]))
        .order_by(syncs.c.sync_id)
    )
    ended = {row.district_id: row.status for row in connection.execute(since)}
    # The schedule did not start districts that were recorded or resumed after it began.
    in_freeze = freezes_at(connection, moment)
    scheduled = [each for each in due_districts(connection, moment) if was_active(each, moment, now)]
    due = [each for each in scheduled if each.district_id not in in_freeze]
    failed = [each.clever_id for each in due if ended.get(each.district_id) == "failed"]
    missing = [each.clever_id for each in due if each.district_id not in ended]
    numbers = {"scheduled_at": moment, "due": len(due), "ended": len(due) - len(missing), "failed": failed, "missing": missing}
    numbers["in_freeze"] = len(scheduled) - len(due)
    says = f"Night of {night_of(moment)}: {len(due)} due, {len(due) - len(missing)} ended, {len(failed)} failed."
    if missing and now >= night_ends_at(moment):
        return Finding(what, "problem", f"{says} Not synced: {named(missing)}.", "Sync each with `roster request DISTRICT`.", numbers)
    if len(failed) > max(1, len(due) / 2):
        do = "One cause for all: Clever, its credentials, or the database. `roster status` says which."
        return Finding(what, "problem", f"{says} Failed: {named(failed)}.", do, numbers)
    if failed:
        return Finding(what, "warning", f"{says} Failed: {named(failed)}.", "`roster status DISTRICT` says why.", numbers)
    return Finding(what, "ok", f"{says} Not over yet." if missing else says, numbers=numbers)


def _silent(connection: Connection, now: datetime) -> Finding:
    found = freshness(connection, now)
    silent = [each.district.clever_id for each in found if not each.is_fresh]
    never = [each.district.clever_id for each in found if each.sync_id is None]
    numbers = {"active": len(found), "silent": silent, "never_synced": never}
    new = f" Never synced: {named(never)}." if never else ""
    if silent:
        says = f"{len(silent)} of {len(found)} active districts without a sync for over 26 hours: {named(silent)}.{new}"
        return Finding("freshness", "problem", says, "`roster status DISTRICT` shows how the last syncs ended.", numbers)
    if not found:
        return Finding("freshness", "ok", "No district is active whose start date has come.", numbers=numbers)
    if never:
        return Finding(
            "freshness", "ok", f"{len(found) - len(never)} of {len(found)} active districts synced within 26 hours.{new}", "", numbers
        )
    return Finding("freshness", "ok", f"{len(found)} active districts, all synced within 26 hours.", numbers=numbers)


def _windows(connection: Connection, every: Sequence[District], now: datetime) -> Finding:
    """Which windows are on (R14.6). That is information, and never a fault."""
    on = windows_at(connection, now)
    numbers = {each.clever_id: on[each.district_id].facts for each in every if each.district_id in on}
    if not numbers:
        return Finding("windows", "ok", "None is on.", numbers={"on": {}})
    listed = named(f"{clever_id} {facts['kind']} through the night of {facts['last_night']}" for clever_id, facts in numbers.items())
    return Finding("windows", "ok", f"On in {len(numbers)} districts: {listed}.", numbers={"on": numbers})


def _requests(connection: Connection, now: datetime) -> Finding:
    queued = connection.execute(sa.select(syncs.c.district_id, syncs.c.requested_at).where(syncs.c.status == "queued")).all()
    # A request waits while its district is being synced; that is no delay of ours.
    running = locked_districts(connection)
    longest = max((now - row.requested_at for row in queued if row.district_id not in running), default=timedelta())
    seconds = int(longest.total_seconds())
    numbers = {"queued": len(queued), "longest_s": seconds}
    says = f"{len(queued)} queued; the longest wait is {seconds} s." if queued else "None waits."
    if longest <= REQUEST_LATE:
        return Finding("requests", "ok", says, numbers=numbers)
    do = "The sensor `requests` starts them: check that the daemon runs and has a free slot. `roster sync DISTRICT` needs neither."
    return Finding("requests", "problem" if longest > REQUEST_LOST else "warning", says, do, numbers)


def _brakes(every: Sequence[District]) -> Finding:
    """Whether a brake of an active district is switched off, or far above the limit of its profile (R13.2)."""
    loose = {
        each.clever_id: kinds
        for each in every
        if each.status == "active" and each.rules is not None and (kinds := loosened(each.rules, PROFILES[each.profile or ""]))
    }
    if not loose:
        return Finding("brakes", "ok", "All are near their defaults.", numbers={"loosened": {}})
    says = f"Off, or far above their default, in {len(loose)} districts: " + named(
        f"{each} ({', '.join(kinds)})" for each, kinds in loose.items()
    )
    do = "`roster district show DISTRICT` shows the limits, `roster district set DISTRICT brakes.KEY=` sets one back."
    return Finding("brakes", "warning", f"{says}.", do, {"loosened": loose})


def _holds(connection: Connection) -> Finding:
    query = sa.select(sa.func.count(), sa.func.min(holds.c.created_at)).where(holds.c.status == "open")
    count, oldest = connection.execute(query).one()
    numbers = {"open": count, "oldest": oldest}
    if not count:
        return Finding("holds", "ok", "None open.", numbers=numbers)
    says = f"{count} open, the oldest since {oldest:%Y-%m-%d %H:%M} UTC."
    return Finding("holds", "warning", says, "`roster holds` shows them, `roster approve HOLD` or `roster reject HOLD` decides.", numbers)


def _alerts(connection: Connection, settings: Settings) -> Finding:
    count = connection.execute(sa.select(sa.func.count()).where(alerts.c.closed_at.is_(None)).select_from(alerts)).scalar_one()
    everybody = receivers(settings)
    failures = {row.receiver: row.failures for row in connection.execute(sa.select(alert_receivers))}
    # Receivers are named by position, because their URLs hold secrets.
    unusable = [each.position for each in everybody if each.service is None]
    refusing = [each.position for each in everybody if each.service is not None and failures.get(each.name)]
    numbers = {"open": count, "receivers": len(everybody), "refusing": refusing, "unusable": unusable}
    says = f"{count} open, {len(everybody)} receivers."
    if not everybody:
        return Finding("alerts", "warning", f"{says} Alerts reach nobody.", "Set ROSTER_ALERT_URLS.", numbers)
    if unusable:
        do = "Correct the URL at this position in ROSTER_ALERT_URLS."
        return Finding("alerts", "problem", f"{says} Not a URL that Apprise knows: {named(unusable)}.", do, numbers)
    if refusing:
        do = "Try the URL at this position in ROSTER_ALERT_URLS by hand. It gets the missed alerts when it accepts again."
        return Finding("alerts", "problem", f"{says} Not accepting: {named(refusing)}.", do, numbers)
    return Finding("alerts", "ok", says, numbers=numbers)
