"""Finds the person of a district by a reference: a Clever id, a username or a user id.

Belongs here: the order in which the three are tried, and all people that match a username. Does not belong here: what is known about
the person (`explain.py`).
"""

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.migrate import lasting_table
from roster_pipeline.districts.tombstones import find_tombstone
from roster_pipeline.errors import PermanentError
from roster_pipeline.support.explanation import FoundBy, Match
from roster_pipeline.support.rows import first_row

_users = lasting_table("app.users")
_staged_users = lasting_table("staging.users")
_matches = lasting_table("reconcile.user_matches")
_findings = lasting_table("ops.quarantine")

_BIGINT = 2**63


class Key(NamedTuple):
    """The ids of one person: in Clever, in the application, or both."""

    clever_id: str | None
    user_id: int | None


class UnknownPersonError(PermanentError):
    """No person of the district has this Clever id, username or user id."""


def find_person(connection: Connection, district_id: int, reference: str) -> tuple[FoundBy, list[Key]]:
    """Find the person by Clever id, else by username, else by user id. A username can match several people.

    Raises:
        UnknownPersonError: no person matches.
    """
    if keys := _by_clever_id(connection, district_id, reference):
        return "clever_id", keys
    if keys := _by_username(connection, district_id, reference):
        return "username", keys
    if reference.isdecimal() and int(reference) < _BIGINT:
        user = first_row(connection, _users, district_id=district_id, user_id=int(reference))
        if user is not None:
            return "user_id", [Key(user["clever_id"], user["user_id"])]
    if (erased := find_tombstone(connection, district_id, reference)) is not None:
        raise UnknownPersonError(
            f"This Clever id was erased on {erased[1]:%Y-%m-%d} (purge {erased[0]}), and no sync brings it back (R18.2).",
            hint="`select * from ops.purges` says who asked for it, and why.",
        )
    raise UnknownPersonError(
        "Nobody of this district has that Clever id, username or user id, neither in the application nor in what Clever shares.",
        hint="Write a username without @ and the domain.",
    )


def _by_clever_id(connection: Connection, district_id: int, clever_id: str) -> list[Key]:
    user = first_row(connection, _users, district_id=district_id, clever_id=clever_id)
    if user is not None:
        return [Key(clever_id, user["user_id"])]
    known = any(
        first_row(connection, table, district_id=district_id, clever_id=clever_id) for table in (_staged_users, _matches, _findings)
    )
    return [Key(clever_id, None)] if known else []


def _by_username(connection: Connection, district_id: int, username: str) -> list[Key]:
    """The people who have the username in the application, and those who have it in Clever."""
    normalize = sa.func.app.normalize_username
    key = connection.execute(sa.select(normalize(username))).scalar_one()
    have = sa.select(_users.c.clever_id, _users.c.user_id).where(_users.c.district_id == district_id, _users.c.username_key == key)
    matched = _staged_users.outerjoin(
        _matches, sa.and_(_matches.c.district_id == district_id, _matches.c.clever_id == _staged_users.c.clever_id)
    ).outerjoin(_users, sa.and_(_users.c.district_id == district_id, _users.c.user_id == _matches.c.user_id))
    # `have` finds users whose username is spelled as in Clever; the others are few. Normalizing takes 4 us a name, and 180 us if the
    # name is not ASCII. It is inside a `case`, because the planner would otherwise call it for every person before it joins.
    given = _staged_users.c.username
    claims_it = sa.case((_users.c.username.is_distinct_from(given), normalize(given) == key), else_=False)
    claim = (
        sa.select(_staged_users.c.clever_id, _users.c.user_id)
        .select_from(matched)
        .where(_staged_users.c.district_id == district_id, claims_it)
    )
    having = [Key(*row) for row in connection.execute(have.order_by(_users.c.user_id))]
    known = {each.user_id for each in having}
    claiming = [Key(*row) for row in connection.execute(claim.order_by(_staged_users.c.clever_id))]
    return having + [each for each in claiming if each.user_id is None or each.user_id not in known]


def as_match(connection: Connection, district_id: int, key: Key) -> Match:
    """The person as one of several that match."""
    user = first_row(connection, _users, district_id=district_id, user_id=key.user_id)
    row = user or first_row(connection, _staged_users, district_id=district_id, clever_id=key.clever_id) or {}
    return Match(key.clever_id, key.user_id, row["first_name"], row["last_name"], user is not None and user["deleted_at"] is None)
