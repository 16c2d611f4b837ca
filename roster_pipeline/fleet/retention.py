"""Retention: removes old personal values from `ops` first, and old syncs later; and the snapshots of districts that left long ago (R18.3).

Belongs here: what is old, and removing it. Does not belong here: when this runs, and Dagster's own runs
(`defs/retention.py`); users (`support/purge.py`).

All work is done in small transactions, or under the lock of a district that does not sync, so that no sync has to wait. If a run is
killed, the next one does the rest.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.audit import record_act
from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.database.lock import district_lock
from roster_pipeline.database.tables import APPLIED
from roster_pipeline.districts.snapshots import clear_plan
from roster_pipeline.errors import SyncRunningError

BATCH_ROWS = 5_000
BATCH_SYNCS = 200

# `ops.changes` has no primary key, but a row's ctid identifies it for as long as one statement runs.
_EMPTY_CHANGES = """
    update ops.changes set before = null, after = null
    where ctid = any (array(
        select ctid from ops.changes
        where changed_at < :until and (before is not null or after is not null)
        order by changed_at limit :batch
    ))
"""
_REMOVE_ALERTS = "delete from ops.alerts where alert_id in (select alert_id from ops.alerts where closed_at < :until limit :batch)"
# Never holds that are still in effect, however old they are: open, approved and rejected ones.
_REMOVE_HOLDS = """
    delete from ops.holds where hold_id in (
        select hold_id from ops.holds
        where status in ('superseded', 'used', 'expired') and greatest(created_at, decided_at) < :until
        limit :batch
    )
"""
# Never syncs that have not ended, the last applied sync of each district, or syncs that a hold or an alert refers to.
_OLD_SYNCS = """
    select sync_id
    from ops.syncs as syncs
    where
        finished_at < :until
        and not (
            status = any(:applied)
            and not exists (
                select 1
                from ops.syncs as later
                where
                    later.district_id = syncs.district_id
                    and later.sync_id > syncs.sync_id
                    and later.status = any(:applied)
            )
        )
        and not exists (select 1 from ops.holds as holds where holds.sync_id = syncs.sync_id)
        and not exists (select 1 from ops.alerts as alerts where alerts.sync_id = syncs.sync_id)
    order by sync_id
    limit :batch
"""
_REMOVE_CHANGES = """
    delete from ops.changes
    where ctid = any (array(select ctid from ops.changes where sync_id = any (:sync_ids) limit :batch))
"""
# Changes of imports belong to no sync.
_REMOVE_CHANGES_OF_IMPORTS = """
    delete from ops.changes
    where ctid = any (array(select ctid from ops.changes where sync_id is null and changed_at < :until limit :batch))
"""
# The day on which the district left. A district that no listing has ever shown has no connection.
_DEPARTED = """
    select districts.district_id, districts.clever_id
    from app.districts as districts
    left join ops.connections as connections on districts.clever_id = connections.clever_id
    where
        districts.status = 'disconnected'
        and coalesce(connections.disconnected_at, districts.updated_at) < :until
        and (cast(:district_id as bigint) is null or districts.district_id = :district_id)
    order by districts.district_id
"""
_REMOVE_QUARANTINE = "delete from ops.quarantine where sync_id = any (:sync_ids)"
_REMOVE_SYNCS = "delete from ops.syncs where sync_id = any (:sync_ids)"


def prune_history(database: Database, *, keep_syncs_days: int, keep_changes_days: int, now: datetime) -> dict[str, int]:
    """Remove what is older than the retention allows.

    Args:
        keep_syncs_days: how long to keep ended syncs with their history and quarantine, the history of imports, closed alerts, and holds
            that are no longer in effect.
        keep_changes_days: how long `ops.changes` keeps values. After that its rows stay, without the values.
        now: aware UTC.

    Returns:
        How many rows were removed, or emptied of values, by kind.
    """
    old = {"until": now - timedelta(days=keep_syncs_days)}
    with translate_database_errors():
        return {
            "changes_emptied": _repeat(database, _EMPTY_CHANGES, {"until": now - timedelta(days=keep_changes_days)}),
            "alerts": _repeat(database, _REMOVE_ALERTS, old),
            "holds": _repeat(database, _REMOVE_HOLDS, old),
            **_remove_syncs(database, old),
        }


def clear_departed(database: Database, *, keep_disconnected_days: int, now: datetime) -> dict[str, int]:
    """Remove the last snapshot and the last plan of districts that have been disconnected for long (R18.3). Their rows in `app` stay until
    somebody asks for their removal (`roster district offboard`). A district whose lock is held waits for the next day.

    Returns:
        The number of districts that had any such rows, and of the rows.
    """
    old = {"until": now - timedelta(days=keep_disconnected_days)}
    cleared = {"departed_districts": 0, "rows_of_departed": 0}
    with translate_database_errors(), database.engine.connect() as opened:
        locking = opened.execution_options(isolation_level="AUTOCOMMIT")
        for departed in locking.execute(sa.text(_DEPARTED), {**old, "district_id": None}).all():
            try:
                with district_lock(locking, departed.district_id, departed.clever_id), database.engine.begin() as connection:
                    rows = _clear_if_departed(connection, departed.district_id, old)
            except SyncRunningError:
                continue
            cleared["departed_districts"] += bool(rows)
            cleared["rows_of_departed"] += rows
    return cleared


def _clear_if_departed(connection: Connection, district_id: int, old: Mapping[str, Any]) -> int:
    """The district may have come back since. Returns the number of rows."""
    if connection.execute(sa.text(_DEPARTED), {**old, "district_id": district_id}).first() is None:
        return 0
    removed = clear_plan(connection, district_id)
    if removed:
        record_act(connection, "clear_departed", principal="schedule:retention", district_id=district_id, facts={"removed": removed})
    return sum(removed.values())


def _remove_syncs(database: Database, old: Mapping[str, Any]) -> dict[str, int]:
    """Removes a sync's history first, in batches, because it can be long. The sync stays as long as some of its history does."""
    removed = dict.fromkeys(("syncs", "changes", "quarantine"), 0)
    removed["changes"] += _repeat(database, _REMOVE_CHANGES_OF_IMPORTS, {"until": old["until"]})
    while True:
        with database.engine.connect() as connection:
            sync_ids = list(connection.execute(sa.text(_OLD_SYNCS), {**old, "applied": list(APPLIED), "batch": BATCH_SYNCS}).scalars())
        if not sync_ids:
            return removed
        those = {"sync_ids": sync_ids}
        removed["changes"] += _repeat(database, _REMOVE_CHANGES, those)
        with database.engine.begin() as connection:
            removed["quarantine"] += connection.execute(sa.text(_REMOVE_QUARANTINE), those).rowcount
            removed["syncs"] += connection.execute(sa.text(_REMOVE_SYNCS), those).rowcount


def _repeat(database: Database, statement: str, parameters: Mapping[str, Any]) -> int:
    """Repeat a statement, each time in its own transaction, until it finds less than a full batch. Returns the total of rows."""
    rows = 0
    while True:
        with database.engine.begin() as connection:
            done = connection.execute(sa.text(statement), {**parameters, "batch": BATCH_ROWS}).rowcount
        rows += done
        if done < BATCH_ROWS:
            return rows
