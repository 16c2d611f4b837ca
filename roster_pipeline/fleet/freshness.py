"""How old each district's data is: newer data at Clever in the same night (R3.7), and silent districts (R11.8).

Belongs here: choosing the districts to ask Clever about, asking, and finding the silent districts. Does not belong here: starting a sync,
and Dagster's check (`defs/freshness.py`).
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy import Connection

from roster_pipeline.alerts.outbox import record_alert
from roster_pipeline.clever.http import Deadline
from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.database.clock import TOLERANCE, is_future
from roster_pipeline.database.tables import APPLIED, alerts, syncs
from roster_pipeline.districts.agreement import District, all_districts
from roster_pipeline.districts.nights import NIGHTLY_TIMES, PACIFIC, due_districts, last_scheduled_at, night_ends_at
from roster_pipeline.districts.windows import freezes_at, freezes_ended_at
from roster_pipeline.errors import RosterError
from roster_pipeline.settings import Settings
from roster_pipeline.source.protocol import SourceDistrict

log = logging.getLogger(__name__)

# 24 hours between nightly syncs, one more when daylight-saving time ends, and one for the sync to end.
SILENT_AFTER = timedelta(hours=26)
# A limit, because Clever may load data for a district all night.
REFRESHES_A_NIGHT = 3
_ASKING_AT_ONCE = 8
# For one district object, retries included. A district that takes longer is asked again at the next tick.
_ASK_SECONDS = 10.0
_ASK_ATTEMPTS = 2
# With less time than this left, no request is started.
_LEAST_SECONDS = 1.0

# The mark that a sync has pulled. Syncs of older releases have only last_sync.
MARK = sa.func.coalesce(syncs.c.counts["mark"].astext, syncs.c.counts["last_sync"].astext)

# The last applied sync of each district. One that ended in the future does not count: nobody knows how old it is (R11.6).
# The lateral join reads one index entry per district, not all its syncs.
_LAST_APPLIED = sa.text("""
    select districts.district_id, last.sync_id, last.finished_at
    from app.districts as districts
    cross join lateral (
        select sync_id, finished_at
        from ops.syncs
        where district_id = districts.district_id and status = any(:applied) and finished_at <= :now
        order by sync_id desc
        limit 1
    ) as last
""")


# --- newer data in the same night ---


class Pulled(NamedTuple):
    """A district that has been synced. `mark` is Clever's text in the data that was pulled (R17.1)."""

    district_id: int
    clever_id: str
    mark: str | None


class Answers(NamedTuple):
    """Clever's answers.

    Attributes:
        marks: by Clever id; without the districts that could not be asked.
        asked: how many districts there was time for, counted from the first.
    """

    marks: dict[str, str | None]
    asked: int


def synced_this_night(connection: Connection, now: datetime) -> list[Pulled]:
    """The districts to ask Clever about, oldest district first.

    Such a district has been synced since its nightly time, its night is not over, it has no sync queued or running, it has not reached
    REFRESHES_A_NIGHT, and no freeze is on (R14.2).
    """
    freezes, found = freezes_at(connection, now), []
    for nightly_at in NIGHTLY_TIMES:
        moment = last_scheduled_at(nightly_at, now)
        if now >= night_ends_at(moment):
            continue
        tonight = _tonight(connection, moment, now)
        for district in due_districts(connection, moment):
            rows = tonight.get(district.district_id, [])
            applied = [row for row in rows if row["status"] in APPLIED]
            busy = any(row["status"] in ("queued", "processing") for row in rows)
            refreshes = sum(row["trigger"] == "refresh" for row in rows)
            if applied and not busy and refreshes < REFRESHES_A_NIGHT and district.district_id not in freezes:
                found.append(Pulled(district.district_id, district.clever_id, applied[-1]["mark"]))
    return sorted(found)


def _tonight(connection: Connection, moment: datetime, now: datetime) -> Mapping[int, list[Mapping[str, Any]]]:
    """The syncs since a nightly time, and older ones that have not ended; by district, oldest first."""
    began = sa.func.coalesce(syncs.c.started_at, syncs.c.requested_at)
    query = (
        sa.select(syncs.c.district_id, syncs.c.trigger, syncs.c.status, MARK.label("mark"))
        .where(
            sa.or_(began.between(moment, now + TOLERANCE), syncs.c.status.in_(["queued", "processing"])), syncs.c.district_id.is_not(None)
        )
        .order_by(began, syncs.c.sync_id)
    )
    rows: dict[int, list[Mapping[str, Any]]] = {}
    for row in connection.execute(query).mappings():
        rows.setdefault(row["district_id"], []).append(dict(row))
    return rows


def ask_marks(settings: Settings, tokens: Mapping[str, SecretStr], clever_ids: Sequence[str], *, deadline: Deadline) -> Answers:
    """Ask Clever for the district objects, several at once, until the deadline. A district that cannot be asked is logged and left out."""

    def ask(clever_id: str) -> SourceDistrict | None:
        if deadline.remaining() < _LEAST_SECONDS:
            return None
        limits = {"roster_pull_deadline_s": min(_ASK_SECONDS, deadline.remaining()), "clever_max_attempts": _ASK_ATTEMPTS}
        with DistrictPull(settings.model_copy(update=limits), clever_id, keep_student_email=False, tokens=tokens) as pull:
            return pull.district()

    marks: dict[str, str | None] = {}
    asked = 0
    with ThreadPoolExecutor(_ASKING_AT_ONCE, thread_name_prefix="clever-refresh") as pool:
        for clever_id, answer in zip(clever_ids, [pool.submit(ask, each) for each in clever_ids], strict=True):
            try:
                found = answer.result()
            except RosterError as error:
                log.warning("district %s: its last change could not be asked for: %s", clever_id, error.reason)
                asked += 1
                continue
            if found is None:
                break
            asked += 1
            marks[clever_id] = found.mark
    return Answers(marks, asked)


def moved(pulled: Sequence[Pulled], answers: Answers) -> list[tuple[Pulled, str]]:
    """The districts of which Clever has newer data than was pulled, each with its mark of now."""
    found = [(each, answers.marks.get(each.clever_id)) for each in pulled]
    return [(each, newest) for each, newest in found if newest is not None and newest != each.mark]


# --- silent districts ---


@dataclass(frozen=True)
class Freshness:
    """How old a district's data is.

    Attributes:
        sync_id: its last applied sync; None if it never had one.
        since: when that sync ended; without a sync, when the district became active. The start date, or the end of a freeze, if that is
            later.
        is_fresh: at most 26 hours have passed since then, or a freeze is on.
        in_freeze: a freeze is on (R14.2).
    """

    district: District
    sync_id: int | None
    since: datetime
    is_fresh: bool
    in_freeze: bool


def freshness(connection: Connection, now: datetime) -> list[Freshness]:
    """The freshness of every active district whose start date has come, oldest district first."""
    newest = {row.district_id: row for row in connection.execute(_LAST_APPLIED, {"applied": list(APPLIED), "now": now + TOLERANCE})}
    freezes, ended = freezes_at(connection, now), freezes_ended_at(connection, now)
    found = []
    for district in all_districts(connection):
        starts = district.row["start_date"]
        if district.status != "active" or (starts is not None and starts > now.astimezone(PACIFIC).date()):
            continue
        last = newest.get(district.district_id)
        since = last.finished_at if last else district.row["active_since"]
        if starts is not None:
            since = max(since, datetime.combine(starts, time(), PACIFIC).astimezone(UTC))
        since = max(since, ended.get(district.district_id, since))
        in_freeze = district.district_id in freezes
        is_fresh = in_freeze or (now - since <= SILENT_AFTER and not is_future(since, now))
        found.append(Freshness(district, last.sync_id if last else None, since, is_fresh, in_freeze))
    return found


def alert_silent(connection: Connection, found: Sequence[Freshness], *, now: datetime) -> int:
    """Record an alert for every silent district: one until it has been synced again. Returns how many are new."""
    silent = {f"district_silent:{_occasion(each)}": each for each in found if not each.is_fresh}
    reported = set(connection.execute(sa.select(alerts.c.event).where(alerts.c.event.in_(silent))).scalars())
    for event in sorted(silent.keys() - reported):
        each = silent[event]
        hours = (now - each.since) // timedelta(hours=1)
        about: dict[str, Any] = {"district_id": each.district.district_id, "sync_id": each.sync_id, "now": now}
        # Not urgent, so that a night in which nothing ran makes one digest.
        record_alert(connection, "district_silent", _occasion(each), facts={"hours": hours}, is_urgent=False, **about)
    return len(silent.keys() - reported)


def _occasion(each: Freshness) -> str:
    """Identifies one silence: the district and the sync after which it began."""
    return f"{each.district.district_id}:{each.sync_id or 'never'}"
