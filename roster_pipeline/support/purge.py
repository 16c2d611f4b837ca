"""Removes soft-deleted users permanently: only when a person asks for it, and never in a sync (R7.1).

Belongs here: which users can be removed, and removing them. Does not belong here: how long history is kept (`fleet/retention.py`).

It is for the ordinary case: many users who left long ago. One person at a request is `erasure.py`, a whole district `offboarding.py`; all
three share `removal.py`. A purge leaves no tombstone, so a person that Clever shares again is a new user. It blanks nobody: it is refused
if a table of the application refers to a user.

Schools and classrooms stay: rows of other people refer to them, and only the name of a classroom can contain the name of a person.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.districts.agreement import District, find_district
from roster_pipeline.districts.nights import PACIFIC
from roster_pipeline.errors import PermanentError, UsageError
from roster_pipeline.settings import Settings
from roster_pipeline.support.references import referring_table
from roster_pipeline.support.removal import Record, record_removal, remove_people
from roster_pipeline.sync.session import one_state, sync_session

log = logging.getLogger(__name__)

# A user that was deactivated by mistake, or for the holidays, can be restored within this time (R5.4).
YOUNGEST = timedelta(days=30)

# No user that is in the last accepted snapshot, and none that the last plan matches with a person: an approved hold can still adopt or
# relink that user. Unless the district is disconnected: it has no next sync, and nobody renews its snapshot.
_CANDIDATES = """
    select user_id
    from app.users as users
    where
        district_id = :district_id
        and deleted_at < :deleted_before
        and not protected
        and not do_not_restore
        and (
            exists (
                select 1 from app.districts as districts
                where districts.district_id = users.district_id and districts.status = 'disconnected'
            )
            or not exists (
                select 1 from staging.users as staged
                where staged.district_id = users.district_id and staged.clever_id = users.clever_id
            )
            and not exists (
                select 1 from staging.quarantined as quarantined
                where
                    quarantined.district_id = users.district_id
                    and quarantined.resource = 'users'
                    and quarantined.clever_id = users.clever_id
            )
            and not exists (
                select 1 from reconcile.user_matches as matches
                where matches.district_id = users.district_id and matches.user_id = users.user_id
            )
        )
    order by user_id
"""
_BY_ROLE = """
    select roles.role, roles.school_id, schools.name as school, count(*) as users
    from app.users as users
    left join app.user_roles as roles on users.district_id = roles.district_id and users.user_id = roles.user_id
    left join app.schools as schools on roles.district_id = schools.district_id and roles.school_id = schools.school_id
    where users.district_id = :district_id and users.user_id = any (:user_ids)
    group by roles.role, roles.school_id, schools.name
    order by roles.role nulls last, roles.school_id nulls first
"""
_CLEVER_IDS = sa.text("""
    select clever_id from app.users
    where district_id = :district_id and user_id = any(:user_ids) and clever_id is not null
    order by clever_id
""")


@dataclass(frozen=True)
class Purge:
    """The users that are removed, or would be.

    Attributes:
        user_ids: all of them, in order.
        by_role: role, school_id, school (its name) and the number of users; a user with several roles counts under each.
        removed: the number of rows by table; empty if nothing has been written.
    """

    district: District
    user_ids: Sequence[int]
    by_role: Sequence[Mapping[str, Any]]
    removed: Mapping[str, int]


def plan_purge(database: Database, settings: Settings, reference: str, *, deleted_before: date, now: datetime) -> Purge:
    """The users that a purge would remove now.

    Raises:
        UsageError: the day is not long enough ago.
        UnknownDistrictError: there is no such district.
    """
    _require_old(deleted_before, now)
    with sync_session(database, settings) as connection:
        district = find_district(connection, reference)
        with one_state(connection, rollback=True):
            return _candidates(connection, district, deleted_before)


def purge_users(
    database: Database, settings: Settings, reference: str, *, deleted_before: date, limit: int, by: str, now: datetime
) -> Purge:
    """Remove users who were soft-deleted before a day, in one transaction: with their roles, their enrollments and the values in their
    history. `ops.changes` keeps the actions on each id, and `ops.purges` records who removed how many users.

    Args:
        reference: the district's Clever id or district id.
        deleted_before: a day on the calendar of Los Angeles.
        limit: the purge is refused if there are more users.
        by: the person who asked for it.

    Raises:
        UsageError: the day is not long enough ago.
        UnknownDistrictError: there is no such district.
        PermanentError: there are more users than the limit, or a table of the application refers to one. Nothing is removed.
        SyncRunningError: a sync of the district is running.
        TransientError: the database failed, or the application changed the same rows in the meantime.
    """
    _require_old(deleted_before, now)
    with sync_session(database, settings) as connection:
        district = find_district(connection, reference)
        try:
            with district_lock(connection, district.district_id, district.clever_id), one_state(connection):
                found = _candidates(connection, district, deleted_before)
                _require_within(limit, found)
                removed = _remove(connection, found, deleted_before, by=by, now=now)
        except psycopg.errors.ForeignKeyViolation as error:
            raise _referred_to(error, district) from None
    log.info("district %s: %d users purged", district.clever_id, removed.get("users", 0))
    return Purge(district, found.user_ids, found.by_role, removed)


def _candidates(connection: Connection, district: District, deleted_before: date) -> Purge:
    midnight = datetime.combine(deleted_before, time(), PACIFIC).astimezone(UTC)
    ours = {"district_id": district.district_id}
    user_ids = list(connection.execute(sa.text(_CANDIDATES), {**ours, "deleted_before": midnight}).scalars())
    by_role = [dict(row) for row in connection.execute(sa.text(_BY_ROLE), {**ours, "user_ids": user_ids}).mappings()]
    return Purge(district, user_ids, by_role, {})


def _remove(connection: Connection, found: Purge, deleted_before: date, *, by: str, now: datetime) -> dict[str, int]:
    if not found.user_ids:
        return {}
    district_id = found.district.district_id
    clever_ids = list(connection.execute(_CLEVER_IDS, {"district_id": district_id, "user_ids": found.user_ids}).scalars())
    counts = remove_people(connection, district_id, found.user_ids, clever_ids, may_blank=False, now=now)
    subject = f"users soft-deleted before {deleted_before.isoformat()}"
    users = len(found.user_ids)
    record_removal(connection, Record("users", district_id, by, None, subject, users, counts, now, deleted_before))
    return {
        name: counts.get(table, {}).get(what, 0)
        for name, table, what in (
            ("roles", "app.user_roles", "removed"),
            ("enrollments", "app.enrollments", "removed"),
            ("users", "app.users", "removed"),
            ("changes_emptied", "ops.changes", "emptied"),
        )
    }


def _require_old(deleted_before: date, now: datetime) -> None:
    latest = now.astimezone(PACIFIC).date() - YOUNGEST
    if deleted_before > latest:
        raise UsageError(
            f"Only users soft-deleted at least {YOUNGEST.days} days ago can be purged.", hint=f"The latest day is {latest.isoformat()}."
        )


def _require_within(limit: int, found: Purge) -> None:
    if len(found.user_ids) > limit:
        raise PermanentError(
            f"{len(found.user_ids):,} users would be purged, more than the limit of {limit:,}. Nothing was removed.",
            hint="Name an earlier day, or raise --limit.",
            district=found.district.clever_id,
        )


def _referred_to(error: psycopg.errors.ForeignKeyViolation, district: District) -> PermanentError:
    table = referring_table(error)
    return PermanentError(
        f"Rows of {table} refer to users who would be purged (constraint {error.diag.constraint_name}). Nothing was removed.",
        hint="First remove what the application stores about these users, with its own code.",
        district=district.clever_id,
    )
