"""Health as the application's database shows it: the last nights, silent districts, and what waits.

Belongs here: the verdicts and their limits. Does not belong here: Dagster's own state (`defs/health.py`) and printing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.alerts.delivery import receivers
from roster_pipeline.database.lock import locked_districts
from roster_pipeline.database.tables import alert_receivers, alerts, holds, syncs
from roster_pipeline.districts.nights import NIGHTLY_TIMES, due_districts, last_scheduled_at, night_ends_at, night_of
from roster_pipeline.fleet.freshness import freshness
from roster_pipeline.fleet.recovery import mark_crashed_syncs
from roster_pipeline.settings import Settings

Verdict = Literal["ok", "warning", "problem"]

# A request starts within 30 s (R11.3); the daemon may be restarting.
REQUEST_LATE, REQUEST_LOST = timedelta(seconds=30), timedelta(minutes=5)
_NAMED = 10


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        what: the name of the check. It never changes, so that monitoring can rely on it.
        verdict: one problem makes the overall verdict unhealthy; a warning does not.
        says: the state in one sentence, with ids and counts only.
        do: what to do about it; empty if the verdict is ok.
        numbers: the same facts for programs.
    """

    what: str
    verdict: Verdict
    says: str
    do: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)


def database_health(connection: Connection, settings: Settings, *, now: datetime) -> list[Finding]:
    """Every finding, the most important first. Crashed syncs are marked as failed (R11.4).

    Args:
        connection: in autocommit.
        now: aware UTC.
    """
    return [
        _crashed(connection, now),
        *(_night(connection, nightly_at, now) for nightly_at in NIGHTLY_TIMES),
        _silent(connection, now),
        _requests(connection, now),
        _holds(connection),
        _alerts(connection, settings),
    ]


def _crashed(connection: Connection, now: datetime) -> Finding:
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
        .where(began >= moment, syncs.c.status.in_(["successful", "held", "failed"]))
        .order_by(syncs.c.sync_id)
    )
    ended = {row.district_id: row.status for row in connection.execute(since)}
    # The schedule did not start districts that were recorded or resumed after it began.
    due = [each for each in due_districts(connection, moment) if each.district_id in ended or each.row["updated_at"] <= moment]
    failed = [each.clever_id for each in due if ended.get(each.district_id) == "failed"]
    missing = [each.clever_id for each in due if each.district_id not in ended]
    numbers = {"scheduled_at": moment, "due": len(due), "ended": len(due) - len(missing), "failed": failed, "missing": missing}
    says = f"Night of {night_of(moment)}: {len(due)} due, {len(due) - len(missing)} ended, {len(failed)} failed."
    if missing and now >= night_ends_at(moment):
        return Finding(what, "problem", f"{says} Not synced: {_named(missing)}.", "Sync each with `roster request DISTRICT`.", numbers)
    if failed:
        return Finding(what, "warning", f"{says} Failed: {_named(failed)}.", "`roster status DISTRICT` says why.", numbers)
    return Finding(what, "ok", f"{says} Not over yet." if missing else says, numbers=numbers)


def _silent(connection: Connection, now: datetime) -> Finding:
    found = freshness(connection, now)
    silent = [each.district.clever_id for each in found if not each.is_fresh]
    numbers = {"active": len(found), "silent": silent}
    if not silent:
        return Finding("freshness", "ok", f"{len(found)} active districts, all synced within 26 hours.", numbers=numbers)
    says = f"{len(silent)} of {len(found)} active districts without a sync for over 26 hours: {_named(silent)}."
    return Finding("freshness", "problem", says, "`roster status DISTRICT` shows how the last syncs ended.", numbers)


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
        return Finding("alerts", "problem", f"{says} Not a URL that Apprise knows: {_named(unusable)}.", do, numbers)
    if refusing:
        do = "Try the URL at this position in ROSTER_ALERT_URLS by hand. It gets the missed alerts when it accepts again."
        return Finding("alerts", "problem", f"{says} Not accepting: {_named(refusing)}.", do, numbers)
    return Finding("alerts", "ok", says, numbers=numbers)


def _named(ids: Iterable[object]) -> str:
    listed = [str(each) for each in ids]
    return ", ".join(listed[:_NAMED]) + (f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else "")
