"""Removes personal data permanently: the statements that `purge.py`, `erasure.py` and `offboarding.py` share (R18.1, R18.2).

Belongs here: for every table that holds a person, what becomes of the rows; the record of it in `ops.purges` and `ops.audit`. Does not
belong here: who may be removed, and why. Which columns are personal is in `holdings.py`.

A row of `app` is removed. If a table of the application refers to it by a foreign key, it is blanked instead: it loses all personal
values, and is soft-deleted, so that the application keeps its own rows.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

import psycopg
import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.audit import os_principal, record_act
from roster_pipeline.database.engine import psycopg_connection
from roster_pipeline.database.tables import purges
from roster_pipeline.support.references import references

log = logging.getLogger(__name__)

Counts = dict[str, dict[str, int]]
"""Number of rows, by table and by what was done with them: removed, blanked, emptied."""

_DELETED = "deleted_at = coalesce(deleted_at, :now), updated_at = :now"
# The tables of `app`, each before those that it refers to, with what a blanked row becomes.
_BLANK = {
    "enrollments": _DELETED,
    "user_roles": _DELETED,
    "users": f"""
        clever_id = null, username = null, first_name = null, middle_name = null, last_name = null, email = null, sis_id = null,
        state_id = null, student_number = null, grade = null, school_id = null, district_username = null, license_status = null,
        login_methods = '{{}}', source = 'app', protected = false, do_not_restore = false, {_DELETED}
    """,
    "classrooms": f"""
        clever_id = null, name = '(erased)', clever_name = null, term_name = null, starts_on = null, ends_on = null, school_id = null,
        source = 'app', protected = false, {_DELETED}
    """,
    "schools": f"clever_id = null, name = '(erased)', source = 'app', protected = false, {_DELETED}",
    "agreed_schools": "clever_id = null, name = '(erased) ' || agreed_school_id, licenses = null",
}
# Rows of ours that stay although they refer to the row `ours`, because the application refers to them.
_STAYS_FOR = {
    "users": """
        exists (select from app.user_roles as roles where roles.user_id = ours.user_id)
        or exists (select from app.enrollments as members where members.user_id = ours.user_id)
    """,
    "classrooms": "exists (select from app.enrollments as members where members.classroom_id = ours.classroom_id)",
    "schools": """
        exists (select from app.user_roles as roles where roles.district_id = ours.district_id and roles.school_id = ours.school_id)
    """,
}
_OF_PEOPLE = ("enrollments", "user_roles", "users")

_LISTED = """
    {list} = case when {list} is not null then array(
        select id from unnest({list}) with ordinality as members (id, place) where id <> all(:clever_ids) order by place
    ) end
"""
_TAKE_OUT_OF_LISTS = f"""
    update staging.sections set {_LISTED.format(list="students")}, {_LISTED.format(list="teachers")}
    where district_id = :district_id and (students || teachers) && cast(:clever_ids as text[])
"""  # noqa: S608  (our own names)
# Copies of people outside `app`: table, what is done, statement. Parameters: district_id, user_ids, clever_ids.
_COPIES = (
    ("staging.users", "removed", "delete from staging.users where district_id = :district_id and clever_id = any(:clever_ids)"),
    (
        "staging.sections",
        "emptied",
        _TAKE_OUT_OF_LISTS,
    ),
    (
        "staging.quarantined",
        "removed",
        "delete from staging.quarantined where district_id = :district_id and resource = 'users' and clever_id = any(:clever_ids)",
    ),
    (
        "reconcile.user_matches",
        "removed",
        """
        delete from reconcile.user_matches
        where district_id = :district_id and (clever_id = any(:clever_ids) or user_id = any(:user_ids))
        """,
    ),
    (
        "reconcile.soft_deletes",
        "removed",
        """
        delete from reconcile.soft_deletes
        where
            district_id = :district_id and entity = 'users'
            and (clever_id = any(:clever_ids) or entity_id = any(:user_ids))
        """,
    ),
    (
        "reconcile.held_enrollments",
        "removed",
        "delete from reconcile.held_enrollments where district_id = :district_id and user_id = any(:user_ids)",
    ),
    (
        "ops.quarantine",
        "removed",
        "delete from ops.quarantine where district_id = :district_id and resource = 'users' and clever_id = any(:clever_ids)",
    ),
    (
        "ops.finding_records",
        "removed",
        "delete from ops.finding_records where district_id = :district_id and resource = 'users' and clever_id = any(:clever_ids)",
    ),
    (
        "ops.held_acts",
        "removed",
        """
        delete from ops.held_acts
        where
            hold_id in (select hold_id from ops.holds where district_id = :district_id)
            and string_to_array(act, ' ') && cast(:clever_ids as text[])
        """,
    ),
    # Also of users who had the Clever id before.
    (
        "ops.changes",
        "emptied",
        """
        update ops.changes set before = null, after = null
        where
            district_id = :district_id and (before is not null or after is not null)
            and (
                user_id = any(:user_ids)
                or before ->> 'clever_id' = any(:clever_ids) and entity = 'users'
                or after ->> 'clever_id' = any(:clever_ids) and entity = 'users'
            )
        """,
    ),
)
# Statistics hold samples of values. `analyze` replaces them.
_SAMPLED = (
    *("app.users", "app.classrooms", "app.schools", "staging.users", "staging.sections", "reconcile.user_matches"),
    *("reconcile.soft_deletes", "ops.changes", "ops.quarantine", "ops.finding_records", "ops.syncs", "ops.holds", "ops.held_acts"),
)


@dataclass(frozen=True)
class Record:
    """One row of `ops.purges`, and one of `ops.audit`.

    Attributes:
        by: what the person said of themselves.
        subject: what was removed, as ids.
        users: number of users.
        deleted_before: of `roster purge`.
    """

    kind: Literal["users", "person", "district"]
    district_id: int
    by: str
    reason: str | None
    subject: str
    users: int
    counts: Counts
    now: datetime
    deleted_before: date | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def remove_people(
    connection: Connection, district_id: int, user_ids: Sequence[int], clever_ids: Sequence[str], *, may_blank: bool, now: datetime
) -> Counts:
    """Remove these people in the caller's transaction, with their roles, enrollments, values in the history, and all copies.

    Args:
        may_blank: blank a row that a table of the application refers to. If not, the database refuses the removal.
    """
    parameters = {"district_id": district_id, "user_ids": list(user_ids), "clever_ids": list(clever_ids), "now": now}
    those = "ours.district_id = :district_id and ours.user_id = any(:user_ids)"
    counts = remove_rows(connection, _OF_PEOPLE, those, parameters, may_blank=may_blank)
    for table, what, statement in _COPIES:
        add(counts, table, what, connection.execute(sa.text(statement), parameters).rowcount)
    return counts


def remove_rows(
    connection: Connection, tables: Sequence[str] | None, those: str, parameters: Mapping[str, Any], *, may_blank: bool
) -> Counts:
    """Remove or blank rows of `app` in the caller's transaction.

    Args:
        tables: their names, each before those that it refers to; None: all.
        those: a condition on the row `ours`.
    """
    counts: Counts = {}
    referring = references(connection) if may_blank else {}
    for table in tables or tuple(_BLANK):
        kept = " or ".join(each for each in (referring.get(table), _STAYS_FOR.get(table)) if each) if may_blank else ""
        condition = f"{those} and not ({kept})" if kept else those
        removed = connection.execute(sa.text(f"delete from app.{table} as ours where {condition}"), parameters).rowcount  # noqa: S608
        add(counts, f"app.{table}", "removed", removed)
        if referring:
            blanking = f"update app.{table} as ours set {_BLANK[table]} where {those}"  # noqa: S608
            add(counts, f"app.{table}", "blanked", connection.execute(sa.text(blanking), parameters).rowcount)
    return counts


def add(counts: Counts, table: str, what: str, rows: int) -> None:
    """Count rows, if there are any."""
    if rows:
        done = counts.setdefault(table, {})
        done[what] = done.get(what, 0) + rows


def record_removal(connection: Connection, record: Record) -> int:
    """Write the row of `ops.purges` and the row of `ops.audit`. Returns the purge's id."""
    row = {
        "district_id": record.district_id,
        "purged_by": record.by,
        "purged_at": record.now,
        "users": record.users,
        "deleted_before": record.deleted_before,
        "kind": record.kind,
        "principal": os_principal(),
        "reason": record.reason,
        "counts": record.counts,
    }
    purge_id = int(connection.execute(sa.insert(purges).values(row).returning(purges.c.purge_id)).scalar_one())
    record_act(
        connection,
        {"users": "purge", "person": "erase", "district": "offboard"}[record.kind],
        given_name=record.by,
        reason=record.reason,
        district_id=record.district_id,
        subject=record.subject,
        facts={"purge_id": purge_id, "counts": record.counts, **record.more},
    )
    return purge_id


def refresh_statistics(connection: Connection) -> None:
    """Replace the planner's samples, which can have values of the removed rows. Call it after the commit: nothing depends on it. A table
    that somebody has locked is left to autovacuum."""
    try:
        for table in _SAMPLED:
            psycopg_connection(connection).execute(f"analyze (skip_locked) {table}".encode())
    except psycopg.Error as error:
        log.warning("statistics could not be renewed after a removal: SQLSTATE %s. Autovacuum does it later.", error.sqlstate)
