"""Retention in `ops`: removes old personal values first, and old syncs later.

Belongs here: which rows of `ops` are old, and removing them. Does not belong here: when this runs, and Dagster's own runs
(`defs/retention.py`); users (`support/purge.py`).

All work is done in small transactions, so that no sync has to wait. If a run is killed, the next one does the rest.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.database.tables import APPLIED

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
