"""Erases one person for good, and keeps the next sync from bringing them back (R18.2): `roster erase`.

Belongs here: which ids are the person's, when an erasure is refused, and its order. Does not belong here: the statements that remove rows
(`removal.py`), tombstones (`districts/tombstones.py`), and a whole district (`offboarding.py`).

A dry run does everything in a transaction that is rolled back, so it counts exactly what would be removed.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.database.tables import PENDING_HOLDS
from roster_pipeline.districts.agreement import District, find_district
from roster_pipeline.districts.tombstones import write_tombstones
from roster_pipeline.errors import PermanentError, UsageError
from roster_pipeline.settings import Settings
from roster_pipeline.support.explanation import Ambiguous
from roster_pipeline.support.find_person import Key, as_match, find_person
from roster_pipeline.support.references import referred_meanwhile
from roster_pipeline.support.removal import Counts, Record, add, record_removal, refresh_statistics, remove_people
from roster_pipeline.sync.session import one_state, sync_session

log = logging.getLogger(__name__)

# The user of the person, also if the last plan recognises the person under another Clever id.
_USER = sa.text("""
    select users.user_id
    from app.users as users
    where
        users.district_id = :district_id
        and (
            users.user_id = :user_id
            or users.clever_id = :clever_id
            or users.user_id = (
                select matches.user_id from reconcile.user_matches as matches
                where matches.district_id = :district_id and matches.clever_id = :clever_id
            )
        )
    order by users.user_id = :user_id desc, users.clever_id = :clever_id desc
    limit 1
""")
# All ids of the person: the present one, that of a second record or of a record that waits (R5.3, R5.10), and those that the account had
# before, unless they are somebody else's by now.
_CLEVER_IDS = sa.text("""
    with ids as (
        select cast(:clever_id as text) as clever_id, true as is_own
        union
        select clever_id, true from app.users where district_id = :district_id and user_id = :user_id
        union
        select clever_id, true from reconcile.user_matches where district_id = :district_id and user_id = :user_id
        union
        select had.clever_id, false
        from ops.changes as changes
        cross join lateral (values (changes.before ->> 'clever_id'), (changes.after ->> 'clever_id')) as had (clever_id)
        where changes.user_id = :user_id and changes.entity = 'users'
    )
    select distinct ids.clever_id
    from ids
    where
        ids.clever_id is not null
        and (
            ids.is_own
            or not exists (
                select from app.users as others
                where others.district_id = :district_id and others.clever_id = ids.clever_id and others.user_id <> :user_id
            )
            and not exists (
                select from reconcile.user_matches as matches
                where matches.district_id = :district_id and matches.clever_id = ids.clever_id and matches.user_id is distinct from :user_id
            )
        )
    order by 1
""")
_IS_OWNER = sa.text("""
    select exists (
        select from app.user_roles as roles
        inner join app.users as users on roles.user_id = users.user_id
        where users.user_id = :user_id and users.deleted_at is null and roles.role = 'account_owner' and roles.deleted_at is null
    )
""")
# What the person is known by, in the application and at Clever.
_VALUES = sa.text("""
    select username, first_name, last_name, email, sis_id, state_id, student_number
    from app.users where district_id = :district_id and user_id = :user_id
    union all
    select username, first_name, last_name, email, sis_id, state_id, student_number
    from staging.users where district_id = :district_id and clever_id = any(:clever_ids)
""")
# Clever puts the last name of a teacher into the names of sections.
_NAMED = """
    select classrooms.classroom_id
    from app.classrooms as classrooms
    inner join app.enrollments as members on classrooms.classroom_id = members.classroom_id
    where
        members.user_id = :user_id and members.role = 'teacher' and cast(:last_name as text) <> ''
        and position(lower(cast(:last_name as text)) in lower(concat_ws(' ', classrooms.name, classrooms.clever_name))) > 0
"""
_ACTIVE_NAMED = sa.text(f"{_NAMED} and classrooms.deleted_at is null order by 1")
_EMPTY_NAMED = sa.text(f"""
    update ops.changes set before = null, after = null
    where
        district_id = :district_id and entity = 'classrooms' and (before is not null or after is not null)
        and entity_id in (select cast(named.classroom_id as text) from ({_NAMED}) as named)
""")  # noqa: S608
_BLANK_NAMED = sa.text(f"""
    update app.classrooms set name = '(erased)', clever_name = null, updated_at = :now
    where deleted_at is not null and classroom_id in (select named.classroom_id from ({_NAMED}) as named)
""")  # noqa: S608
# Who asked for a sync, or decided: in the words of the person, and as the program found it out (`kind:name`).
_SIGNED = (("ops.syncs", "requested_by", "principal"), ("ops.holds", "decided_by", "decided_principal"))
_EMPTY_SIGNED = """
    update {table} set
        {given} = case when app.normalize_username({given}) = any(:names) then null else {given} end,
        {principal} = case when app.normalize_username(substring({principal} from ':(.*)$')) = any(:names) then null else {principal} end
    where
        district_id = :district_id
        and (
            app.normalize_username({given}) = any(:names)
            or app.normalize_username(substring({principal} from ':(.*)$')) = any(:names)
        )
"""
_COMPARED = sa.text("select app.normalize_username(name) from unnest(cast(:names as text[])) as names (name)")
_PENDING = sa.text("select count(*) from ops.holds where district_id = :district_id and status = any(:pending)")


@dataclass(frozen=True)
class Erasure:
    """One person who is erased, or would be.

    Attributes:
        user_id: None if the application had no user for the person.
        clever_ids: how many Clever ids have a tombstone.
        counts: number of rows, by table and by what was done.
        classroom_ids: active classrooms whose name has the person's last name. Only the district can rename them, in Clever.
        pending_holds: holds of the district that wait. Their plan is made again, so a decision about them may be needed again.
        purge_id: the row of `ops.purges`; None in a dry run.
    """

    district: District
    user_id: int | None
    clever_ids: int
    counts: Counts
    classroom_ids: Sequence[int]
    pending_holds: int
    purge_id: int | None


def erase_person(
    database: Database, settings: Settings, reference: str, person: str, *, by: str, reason: str, apply: bool, now: datetime
) -> Erasure | Ambiguous:
    """Erase one person of a district, in one transaction under the district's lock.

    Args:
        reference: the district.
        person: as in `roster explain`.
        by: who does it, as they say.
        reason: why. It is stored, so it may not name the person.
        apply: False: roll everything back at the end.

    Returns:
        What was done; or the candidates, if several people fit. Then nothing is done.

    Raises:
        UsageError: the reason names the person.
        UnknownDistrictError, UnknownPersonError: there is nobody to erase.
        PermanentError: the person is the district's account owner.
        SyncRunningError: a sync of the district is running.
        TransientError: the database failed, or somebody else has changed the same rows.
    """
    with sync_session(database, settings) as connection:
        district = find_district(connection, reference)
        try:
            with district_lock(connection, district.district_id, district.clever_id):
                with one_state(connection, rollback=not apply):
                    _, keys = find_person(connection, district.district_id, person)
                    if len(keys) > 1:
                        candidates = [as_match(connection, district.district_id, key) for key in keys]
                        return Ambiguous(district.clever_id, "username", candidates)
                    erased = _erase(connection, district, keys[0], by=by, reason=reason, apply=apply, now=now)
                if apply:
                    refresh_statistics(connection)
        except psycopg.errors.ForeignKeyViolation as error:
            raise referred_meanwhile(error, district) from None
    if apply:
        log.info("district %s: one person erased, purge %s", district.clever_id, erased.purge_id)
    return erased


def _erase(connection: Connection, district: District, key: Key, *, by: str, reason: str, apply: bool, now: datetime) -> Erasure:
    ours: dict[str, Any] = {"district_id": district.district_id, "clever_id": key.clever_id, "user_id": key.user_id}
    ours["user_id"] = connection.execute(_USER, ours).scalar()
    clever_ids = list(connection.execute(_CLEVER_IDS, ours).scalars())
    if connection.execute(_IS_OWNER, ours).scalar_one():
        raise PermanentError(
            f"User {ours['user_id']} is the account owner of the district. Nothing was erased.",
            hint="Give another user that role in the application first, and end it for this one.",
            district=district.clever_id,
        )
    known = [dict(row) for row in connection.execute(_VALUES, {**ours, "clever_ids": clever_ids}).mappings()]
    _refuse_named(reason, known, clever_ids)
    last_name = next((each["last_name"] for each in known if each["last_name"]), "")
    named = {**ours, "last_name": last_name, "now": now}
    classroom_ids = list(connection.execute(_ACTIVE_NAMED, named).scalars())
    counts: Counts = {}
    add(counts, "ops.changes", "emptied", connection.execute(_EMPTY_NAMED, named).rowcount)
    add(counts, "app.classrooms", "blanked", connection.execute(_BLANK_NAMED, named).rowcount)
    _empty_signed(connection, district, known, counts)
    user_ids = [ours["user_id"]] if ours["user_id"] is not None else []
    for table, done in remove_people(connection, district.district_id, user_ids, clever_ids, may_blank=True, now=now).items():
        for what, rows in done.items():
            add(counts, table, what, rows)
    purge_id = None
    if apply:
        subject = f"user {ours['user_id']}" if user_ids else "a person without a user"
        record = Record("person", district.district_id, by, reason, subject, len(user_ids), counts, now)
        purge_id = record_removal(connection, record)
        write_tombstones(connection, district.district_id, clever_ids, purge_id=purge_id, now=now)
    pending = connection.execute(_PENDING, {**ours, "pending": list(PENDING_HOLDS)}).scalar_one()
    return Erasure(district, ours["user_id"], len(clever_ids), counts, classroom_ids, pending, purge_id)


def _empty_signed(connection: Connection, district: District, known: Sequence[Mapping[str, Any]], counts: Counts) -> None:
    """Remove the person's own name from requests and decisions."""
    domain = district.row["domain"]
    names = {name for each in known for name in (each["username"], each["email"]) if name}
    names |= {f"{name}@{domain}" for name in names if domain}
    names |= {f"{each['first_name']} {each['last_name']}" for each in known if each["first_name"] and each["last_name"]}
    keys = list(connection.execute(_COMPARED, {"names": sorted(names)}).scalars())
    for table, given, principal in _SIGNED:
        statement = sa.text(_EMPTY_SIGNED.format(table=table, given=given, principal=principal))
        add(counts, table, "emptied", connection.execute(statement, {"district_id": district.district_id, "names": keys}).rowcount)


def _refuse_named(reason: str, known: Sequence[Mapping[str, Any]], clever_ids: Sequence[str]) -> None:
    """The reason is kept for good, so it must not be the last place that names the person."""
    words = set(re.findall(r"[\w@.+-]+", reason.casefold()))
    for each in known:
        names = [each[part].casefold() for part in ("first_name", "last_name") if each[part]]
        others = [each[part] for part in ("username", "email", "sis_id", "state_id", "student_number")]
        alone = {value.casefold() for value in [*others, *clever_ids] if value}
        if words & alone or (len(names) == 2 and all(name in reason.casefold() for name in names)):
            raise UsageError("The reason names the person, and it is kept. Nothing was erased.", hint="Write a ticket number instead.")
