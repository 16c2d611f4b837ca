"""Following Clever by day (R17.1): which districts are asked about now.

Belongs here: the districts with `freshness=day`, and when each is due to be asked about. Does not belong here: asking Clever
(`freshness.py`), and starting a sync (`defs/by_day.py`).
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.clock import TOLERANCE
from roster_pipeline.database.tables import APPLIED, syncs
from roster_pipeline.districts.agreement import all_districts
from roster_pipeline.districts.nights import PACIFIC
from roster_pipeline.districts.windows import freezes_at
from roster_pipeline.fleet.freshness import MARK, Pulled

# The most refreshes of a district within 24 hours. Clever may load data all day.
REFRESHES_A_DAY = 24

_began = sa.func.coalesce(syncs.c.started_at, syncs.c.requested_at)


def due_by_day(connection: Connection, now: datetime, asked: Mapping[str, float]) -> list[Pulled]:
    """The districts to ask Clever about now, the one first that was asked about longest ago.

    Such a district is active, its start date has come, it follows Clever by day, a sync of it has been applied, none is queued or running,
    it has not had REFRESHES_A_DAY in the last 24 hours, no freeze is on (R14.2), and syncs of the last 24 hours have not deactivated more
    users than its `role_floor`: each sync has brakes of its own, so many small losses by day would pass where one at night is held.

    Args:
        asked: when each district was last asked about, by Clever id, in seconds since 1970.
    """
    today, freezes = now.astimezone(PACIFIC).date(), freezes_at(connection, now)
    following = {
        district.district_id: district
        for district in all_districts(connection)
        if district.status == "active"
        and district.rules is not None
        and district.rules.freshness == "day"
        and district.district_id not in freezes
        and (district.row["start_date"] is None or district.row["start_date"] <= today)
        and now.timestamp() - asked.get(district.clever_id, 0) >= 60 * district.rules.freshness_minutes
    }
    lost, found = _deactivated(connection, list(following), now), []
    for district_id, mark in _marks(connection, list(following), now).items():
        district = following[district_id]
        if lost.get(district_id, 0) <= district.require_rules().brakes.role_floor:
            found.append(Pulled(district_id, district.clever_id, mark))
    return sorted(found, key=lambda each: (asked.get(each.clever_id, 0), each.district_id))


def _marks(connection: Connection, district_ids: list[int], now: datetime) -> dict[int, str | None]:
    """The mark of the last applied sync of each of these districts that may be synced again."""
    ours = syncs.c.district_id.in_(district_ids)
    busy = sa.select(syncs.c.district_id).where(ours, syncs.c.status.in_(["queued", "processing"]))
    recent = sa.and_(syncs.c.trigger == "refresh", _began.between(now - timedelta(hours=24), now + TOLERANCE))
    often = sa.select(syncs.c.district_id).where(ours, recent).group_by(syncs.c.district_id).having(sa.func.count() >= REFRESHES_A_DAY)
    applied = sa.and_(ours, syncs.c.status.in_(APPLIED), syncs.c.district_id.not_in(busy), syncs.c.district_id.not_in(often))
    last = sa.select(sa.func.max(syncs.c.sync_id)).where(applied).group_by(syncs.c.district_id)
    query = sa.select(syncs.c.district_id, MARK.label("mark")).where(syncs.c.sync_id.in_(last))
    return {row.district_id: row.mark for row in connection.execute(query)}


def _deactivated(connection: Connection, district_ids: list[int], now: datetime) -> dict[int, int]:
    """How many users syncs of the last 24 hours have soft-deleted, by district."""
    users = syncs.c.counts["changes"]["users"]["soft_delete"].astext
    query = (
        sa.select(syncs.c.district_id, sa.func.sum(sa.cast(users, sa.BigInteger)).label("users"))
        .where(syncs.c.district_id.in_(district_ids), syncs.c.status.in_(APPLIED), _began > now - timedelta(hours=24), users.is_not(None))
        .group_by(syncs.c.district_id)
    )
    return {row.district_id: int(row.users) for row in connection.execute(query)}
