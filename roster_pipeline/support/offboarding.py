"""Erases everything that the pipeline holds about a district whose contract has ended (R18.1): `roster district offboard --erase`.

Belongs here: which districts can be erased, and what becomes of the tables that are about districts. Does not belong here: rows of `app`
(`removal.py`), the export before it (`export.py`), and districts that have merely been disconnected for long (`fleet/retention.py`).

What remains: the district's own row with its name, counts, ids in the history, the acts in `ops.audit`, tombstones, and one row of
`ops.purges` that can be shown to the district.
"""

import logging
from dataclasses import dataclass
from datetime import datetime

import psycopg
import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.database.tables import PENDING_HOLDS
from roster_pipeline.districts.agreement import District, find_district
from roster_pipeline.districts.snapshots import clear_plan
from roster_pipeline.errors import PermanentError
from roster_pipeline.settings import Settings
from roster_pipeline.support.references import referred_meanwhile
from roster_pipeline.support.removal import Counts, Record, add, record_removal, refresh_statistics, remove_rows
from roster_pipeline.sync.session import one_state, sync_session

log = logging.getLogger(__name__)

STATUSES = ("paused", "disconnected")

# Before rows of `app` are removed, because holds refer to schools. Table, what is done, statement.
_EMPTY = (
    (
        "ops.changes",
        "emptied",
        "update ops.changes set before = null, after = null where district_id = :district_id and (before is not null or after is not null)",
    ),
    (
        "ops.holds",
        "emptied",
        """
        update ops.holds
        set
            school_id = null, decided_by = null, decided_principal = null,
            status = case when status = any(:pending) then 'superseded' else status end
        where district_id = :district_id
        """,
    ),
    (
        "ops.syncs",
        "emptied",
        """
        update ops.syncs set requested_by = null, reason = null, message = null, principal = null
        where district_id = :district_id and num_nonnulls(requested_by, reason, message, principal) > 0
        """,
    ),
    (
        "ops.held_acts",
        "removed",
        "delete from ops.held_acts where hold_id in (select hold_id from ops.holds where district_id = :district_id)",
    ),
    ("ops.quarantine", "removed", "delete from ops.quarantine where district_id = :district_id"),
    ("ops.finding_records", "removed", "delete from ops.finding_records where district_id = :district_id"),
    ("ops.audited", "removed", "delete from ops.audited where district_id = :district_id"),
    # Should Clever list the district again, no sync starts by itself.
    (
        "ops.connections",
        "emptied",
        "update ops.connections set status_before = 'paused' where district_id = :district_id and status_before = 'active'",
    ),
    (
        "app.districts",
        "blanked",
        """
        update app.districts
        set settings = '{}', domain = null, agreed_grades = null, rekeyed_from = null, updated_at = :now
        where district_id = :district_id
        """,
    ),
)


@dataclass(frozen=True)
class Offboarding:
    """A district that is erased, or would be.

    Attributes:
        counts: number of rows, by table and by what was done.
        purge_id: the row of `ops.purges`; None in a dry run.
    """

    district: District
    counts: Counts
    purge_id: int | None


def erase_district(
    database: Database, settings: Settings, reference: str, *, by: str, reason: str, apply: bool, now: datetime
) -> Offboarding:
    """Erase a district, in one transaction under its lock.

    Args:
        by: who does it, as they say.
        reason: why.
        apply: False: roll everything back at the end, so that the counts are exactly what would be removed.

    Raises:
        UnknownDistrictError: there is no such district.
        PermanentError: it is neither paused nor disconnected.
        SyncRunningError: a sync of the district is running.
        TransientError: the database failed, or somebody else has changed the same rows.
    """
    with sync_session(database, settings) as connection:
        district = find_district(connection, reference)
        try:
            with district_lock(connection, district.district_id, district.clever_id):
                with one_state(connection, rollback=not apply):
                    district = find_district(connection, reference)
                    _require_ended(district)
                    erased = _erase(connection, district, by=by, reason=reason, apply=apply, now=now)
                if apply:
                    refresh_statistics(connection)
        except psycopg.errors.ForeignKeyViolation as error:
            raise referred_meanwhile(error, district) from None
    if apply:
        log.info("district %s: erased, purge %s", district.clever_id, erased.purge_id)
    return erased


def _require_ended(district: District) -> None:
    if district.status not in STATUSES:
        raise PermanentError(
            f"The district is {district.status}; only one that is paused or disconnected can be erased. Nothing was erased.",
            hint=f"`roster district pause {district.clever_id}` first." if district.status == "active" else "",
            district=district.clever_id,
        )


def _erase(connection: Connection, district: District, *, by: str, reason: str, apply: bool, now: datetime) -> Offboarding:
    parameters = {"district_id": district.district_id, "pending": list(PENDING_HOLDS), "now": now}
    counts: Counts = {}
    for table, what, statement in _EMPTY:
        add(counts, table, what, connection.execute(sa.text(statement), parameters).rowcount)
    for table, rows in clear_plan(connection, district.district_id).items():
        add(counts, table, "removed", rows)
    counts |= remove_rows(connection, None, "ours.district_id = :district_id", parameters, may_blank=True)
    purge_id = None
    if apply:
        users = sum(counts.get("app.users", {}).values())
        record = Record("district", district.district_id, by, reason, f"district {district.clever_id}", users, counts, now)
        purge_id = record_removal(connection, record)
    return Offboarding(district, counts, purge_id)
