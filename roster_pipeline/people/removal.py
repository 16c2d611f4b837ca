"""Ending one imported account: the way out for people that no sync changes (R8.1, R8.2).

Belongs here: which accounts may be ended, and ending one with its history. Does not belong here: removing users permanently
(`support/purge.py`), and the command (`commands/people.py`).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.audit import record_act
from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.database.migrate import require_current_schema
from roster_pipeline.districts.agreement import District, find_district
from roster_pipeline.errors import PermanentError
from roster_pipeline.settings import Settings
from roster_pipeline.sync.session import one_state, sync_session

log = logging.getLogger(__name__)

# The active user that has the username; if there is none, the one who had it last.
_FIND = """
    select
        users.user_id, users.source, users.deleted_at is null as is_active,
        exists (
            select 1 from app.user_roles as held
            where
                held.district_id = users.district_id and held.user_id = users.user_id
                and held.role = 'account_owner' and held.deleted_at is null
        ) as is_owner
    from app.users as users
    where users.district_id = :district_id and users.username_key = app.normalize_username(:username)
    order by users.deleted_at desc nulls first, users.user_id desc
    limit 1
"""


@dataclass(frozen=True)
class Removed:
    """An account that has been ended.

    Attributes:
        roles: number of roles that have ended with it.
        enrollments: number of enrollments that have ended with it.
    """

    district: District
    user_id: int
    roles: int
    enrollments: int


def remove_person(
    database: Database, settings: Settings, reference: str, username: str, *, by: str | None = None, reason: str | None = None
) -> Removed:
    """Deactivate an imported account, with its roles and enrollments, in one transaction. Importing the person again restores it.

    Args:
        reference: the district.
        username: compared as usernames are.
        by: who does it, as they say.

    Raises:
        UnknownDistrictError: there is no such district.
        PermanentError: nobody has the username, or the account was not imported, is deactivated already, or is an account owner's.
        SyncRunningError: a sync of the district, or an import, is running.
        TransientError: the database failed, or another session has changed the same rows.
    """
    require_current_schema(database)
    with sync_session(database, settings) as connection:
        district = find_district(connection, reference)
        with district_lock(connection, district.district_id, district.clever_id), one_state(connection):
            user_id = _imported(connection, district, username)
            subject = f"user {user_id}"
            audit_id = record_act(connection, "remove", given_name=by, reason=reason, district_id=district.district_id, subject=subject)
            ended = _end(connection, {"district_id": district.district_id, "user_id": user_id, "audit_id": audit_id})
    log.info("district %s: imported user %d ended", district.clever_id, user_id)
    return Removed(district, user_id, ended.get("user_roles", 0), ended.get("enrollments", 0))


def _imported(connection: Connection, district: District, username: str) -> int:
    """The user to end, or why not. No sentence contains the username."""
    values = {"district_id": district.district_id, "username": username}
    user = connection.execute(sa.text(_FIND), values).mappings().one_or_none()
    if user is None:
        raise _refused(district, "No user of the district has that username.", "It is compared without case, and without @ and the domain.")
    if user["source"] == "clever":
        raise _refused(
            district,
            f"User {user['user_id']} is rostered from Clever, not imported.",
            "The district ends it in Clever, and the next sync deactivates the account.",
        )
    if user["source"] != "csv":
        raise _refused(district, f"User {user['user_id']} was made in the application, not imported.", "End it in the application.")
    if not user["is_active"]:
        raise _refused(district, f"User {user['user_id']} is deactivated already.", "There is nothing to do.")
    if user["is_owner"]:
        raise _refused(
            district,
            f"User {user['user_id']} is the account owner of the district.",
            "Give another user that role in the application first, and end it for this one.",
        )
    return int(user["user_id"])


def _refused(district: District, reason: str, hint: str) -> PermanentError:
    return PermanentError(f"{reason} Nothing was changed.", hint=hint, district=district.clever_id)


def _end(connection: Connection, parameters: Mapping[str, Any]) -> dict[str, int]:
    """End the account. Returns how many rows were written, by table."""
    statement = Path(__file__).with_name("remove.sql").read_text(encoding="utf-8")
    written: dict[str, int] = {}
    for entity in connection.execute(sa.text(statement), parameters).scalars():
        written[entity] = written.get(entity, 0) + 1
    return written
