"""Reads everything that is known about one person of a district: from Clever's record to how the person signs in.

Belongs here: reading the rows about a person. Does not belong here: finding the person (`find_person.py`), what the answer consists of
(`explanation.py`), deciding (`dbt_like_sql/`), and the sentences about what was decided (`commands/explain.py`). The data is personal: it
goes to the caller's own terminal and nowhere else (SPEC 12), so nothing here logs, and no exception contains a value.

Every look-up uses an index that leads with the district, or one on the person. Two of them read all rows of the district: a username among
deleted users and in Clever's records (the index on names has only active users), and a user id in the last plan. Other districts do not
make them slower; the slowest answer took 0.4 s among 110,000 people.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.brake_kinds import INITIAL, KINDS, PlannedPerson
from roster_pipeline.database.migrate import known_tables, lasting_table
from roster_pipeline.database.tables import PENDING_HOLDS, staged_districts, syncs
from roster_pipeline.database.tables import holds as holds_table
from roster_pipeline.districts.agreement import District
from roster_pipeline.support.explanation import (
    Ambiguous,
    Change,
    Classroom,
    Decision,
    Explanation,
    Finding,
    FoundBy,
    Hold,
    ListedRole,
    Role,
    School,
    Shared,
    SignIn,
    User,
)
from roster_pipeline.support.find_person import Key, as_match, find_person
from roster_pipeline.support.rows import first_row
from roster_pipeline.sync.ledger import is_first_sync

CHANGES_SHOWN = 25

_users = lasting_table("app.users")
_user_roles = lasting_table("app.user_roles")
_schools = lasting_table("app.schools")
_classrooms = lasting_table("app.classrooms")
_enrollments = lasting_table("app.enrollments")
_staged_users = lasting_table("staging.users")
_staged_schools = lasting_table("staging.schools")
_quarantined = lasting_table("staging.quarantined")
_matches = lasting_table("reconcile.user_matches")
_soft_deletes = lasting_table("reconcile.soft_deletes")
_held_enrollments = lasting_table("reconcile.held_enrollments")
_findings = lasting_table("ops.quarantine")
_changes = lasting_table("ops.changes")
_audit = lasting_table("ops.audit")

_PERSON = (
    *("first_name", "middle_name", "last_name", "username", "email", "sis_id", "state_id", "student_number"),
    *("grade", "last_modified"),
)


def explain_person(connection: Connection, district: District, reference: str) -> Explanation | Ambiguous:
    """Find the person by Clever id, else by username, else by user id, and read what is known.

    Args:
        connection: outside a sync: the lasting tables are read.
        reference: what the person typed.

    Raises:
        UnknownPersonError: no person matches.
    """
    found_by, keys = find_person(connection, district.district_id, reference)
    if len(keys) > 1:
        return Ambiguous(district.clever_id, found_by, [as_match(connection, district.district_id, key) for key in keys])
    return _Reader(connection, district).explain(found_by, keys[0])


class _Reader:
    """Reads the facts about one person on one connection."""

    def __init__(self, connection: Connection, district: District) -> None:
        self._connection = connection
        self._district = district
        self._id = district.district_id
        self._is_first = is_first_sync(connection, self._id)

    def explain(self, found_by: FoundBy, key: Key) -> Explanation:
        shared = self._shared(key.clever_id)
        match = self._match_of(key)
        user_id = key.user_id if key.user_id is not None or match is None else match["user_id"]
        row = first_row(self._connection, _users, district_id=self._id, user_id=user_id)
        user = self._user(row, shared) if row is not None else None
        return Explanation(
            district=self._district.clever_id,
            found_by=found_by,
            clever_id=key.clever_id,
            shared=shared,
            findings=self._findings(key.clever_id),
            decision=self._decision(match, shared) if match is not None else None,
            holds=self._holds(match, shared, user),
            user=user,
            sign_in=_sign_in(row, self._district),
        )

    def _shared(self, clever_id: str | None) -> Shared:
        pulled_at = self._connection.execute(
            sa.select(staged_districts.c.pulled_at).where(staged_districts.c.district_id == self._id)
        ).scalar_one_or_none()
        record = first_row(self._connection, _staged_users, district_id=self._id, clever_id=clever_id)
        if record is not None:
            return Shared(pulled_at, "shared", {name: record[name] for name in _PERSON}, self._listed_roles(record))
        quarantined = first_row(self._connection, _quarantined, district_id=self._id, resource="users", clever_id=clever_id)
        if quarantined is None:
            return Shared(pulled_at, "absent", {}, [])
        return Shared(pulled_at, "quarantined" if quarantined["is_shown"] else "unreadable", {}, [])

    def _listed_roles(self, record: Mapping[str, Any]) -> list[ListedRole]:
        primary = record["school"]
        listed = {
            "student": _distinct([primary, *record["student_schools"]]) if record["student_schools"] is not None else None,
            "teacher": _distinct([primary, *record["teacher_schools"]]) if record["teacher_schools"] is not None else None,
            "school_admin": record["staff_schools"],
            "district_admin": [] if record["is_district_admin"] else None,
        }
        schools = self._schools({school for schools in listed.values() for school in schools or ()})
        return [
            ListedRole(role, [School(each, *schools[each], role in ("student", "teacher") and each == primary) for each in ids])
            for role, ids in listed.items()
            if ids is not None
        ]

    def _schools(self, clever_ids: set[str]) -> dict[str, tuple[str | None, str]]:
        """Name and status of each school."""
        names = {}
        for table in (_schools, _staged_schools):
            query = sa.select(table.c.clever_id, table.c.name).where(table.c.district_id == self._id, table.c.clever_id.in_(clever_ids))
            names[table] = {row.clever_id: row.name for row in self._connection.execute(query)}
        active = sa.select(_schools.c.clever_id).where(
            _schools.c.district_id == self._id, _schools.c.clever_id.in_(clever_ids), _schools.c.deleted_at.is_(None)
        )
        rostered = set(self._connection.execute(active).scalars())
        shared = names[_staged_schools]
        return {
            each: (
                shared.get(each) or names[_schools].get(each),
                ("rostered" if each in rostered else "not rostered") if each in shared else "not shared",
            )
            for each in clever_ids
        }

    def _findings(self, clever_id: str | None) -> list[Finding]:
        """The findings of the newest sync that has any for this person."""
        mine = sa.and_(_findings.c.district_id == self._id, _findings.c.clever_id == clever_id, _findings.c.resource == "users")
        newest = sa.select(sa.func.max(_findings.c.sync_id)).where(mine).scalar_subquery()
        query = sa.select(_findings).where(mine, _findings.c.sync_id == newest).order_by(_findings.c.rule)
        return [Finding(row["sync_id"], row["rule"], row["severity"]) for row in self._connection.execute(query).mappings()]

    def _match_of(self, key: Key) -> Mapping[str, Any] | None:
        """The row of the plan about this Clever id, else the row that links another Clever id to this user."""
        own = first_row(self._connection, _matches, district_id=self._id, clever_id=key.clever_id)
        return own or first_row(self._connection, _matches, district_id=self._id, user_id=key.user_id)

    def _decision(self, match: Mapping[str, Any], shared: Shared) -> Decision:
        return Decision(
            clever_id=match["clever_id"],
            decision=match["decision"],
            rule=match["rule"],
            username_rule=match["username_rule"],
            is_applied=not self._is_first,
            is_admin_held=match["is_admin_held"],
            is_waiting=match["is_waiting"],
            username_holder=self._holder_of_name(match["clever_id"]) if match["username_rule"] in ("taken", "withheld") else None,
        )

    def _holder_of_name(self, clever_id: str) -> int | None:
        """The active user that has the username which Clever sends for this person."""
        record = first_row(self._connection, _staged_users, district_id=self._id, clever_id=clever_id)
        key = sa.func.app.normalize_username(record["username"] if record is not None else None)
        ours = sa.and_(_users.c.district_id == self._id, _users.c.deleted_at.is_(None))
        return self._connection.execute(sa.select(_users.c.user_id).where(ours, _users.c.username_key == key)).scalar_one_or_none()

    def _holds(self, match: Mapping[str, Any] | None, shared: Shared, user: User | None) -> list[Hold]:
        """The pending holds that are a reason for what the last plan says about this person."""
        held_by = user.held_by if user is not None else None
        roles = [each for each in user.roles if each.deleted_at is None] if user is not None else []
        person = PlannedPerson(
            rule=match["rule"] if match is not None else None,
            username_rule=match["username_rule"] if match is not None else None,
            is_admin_held=match is not None and match["is_admin_held"],
            waits_for_first_sync=self._is_first and (match is not None or held_by is not None),
            deletion_held_by=held_by,
            roles=frozenset((each.role, each.school_id) for each in roles),
            listed_roles=frozenset(role.role for role in shared.roles),
            held_enrollments=self._held_enrollments(user.user_id) if user is not None else frozenset(),
            listed_schools=frozenset(school.clever_id for role in shared.roles for school in role.schools),
        )
        query = (
            sa.select(holds_table, _schools.c.name.label("school"), _schools.c.clever_id.label("school_clever_id"))
            .select_from(holds_table.outerjoin(_schools, _schools.c.school_id == holds_table.c.school_id))
            .where(holds_table.c.district_id == self._id, holds_table.c.status.in_(PENDING_HOLDS))
            .order_by(holds_table.c.hold_id.desc())
        )
        return [
            Hold(row["hold_id"], row["kind"], row["status"], row["role"], row["school_id"], row["school"], row["counts"], row["created_at"])
            for row in self._connection.execute(query).mappings()
            if KINDS[row["kind"]].explains(person, dict(row))
        ]

    def _held_enrollments(self, user_id: int) -> frozenset[tuple[str, str]]:
        """Kind of the hold and role, of each enrollment that the last plan would end but for a hold or a window."""
        mine = sa.and_(_held_enrollments.c.district_id == self._id, _held_enrollments.c.user_id == user_id)
        query = sa.select(_held_enrollments.c.held_by, _held_enrollments.c.role).where(mine)
        return frozenset((row.held_by, row.role) for row in self._connection.execute(query))

    def _user(self, row: Mapping[str, Any], shared: Shared) -> User:
        user_id = row["user_id"]
        removal = first_row(self._connection, _soft_deletes, district_id=self._id, entity="users", entity_id=user_id)
        in_all = sa.select(sa.func.count()).select_from(_changes).where(_changes.c.user_id == user_id)
        school = first_row(self._connection, _schools, district_id=self._id, school_id=row["school_id"])
        return User(
            user_id=user_id,
            row={name: row[name] for name in known_tables()["app.users"] if name not in ("user_id", "district_id", "username_key")},
            school=school["name"] if school is not None else None,
            roles=self._roles(user_id),
            classrooms=self._enrolled(user_id),
            deletion_reason=removal["reason"] if removal is not None else None,
            # As long as no sync is applied, a brake holds the whole first sync (R7.6).
            held_by=None if removal is None else removal["held_by"] or (INITIAL.name if self._is_first else None),
            changes=self._history(user_id),
            changes_in_all=self._connection.execute(in_all).scalar_one(),
        )

    def _roles(self, user_id: int) -> list[Role]:
        held = _user_roles.outerjoin(
            _schools, sa.and_(_schools.c.district_id == _user_roles.c.district_id, _schools.c.school_id == _user_roles.c.school_id)
        )
        query = (
            sa.select(_user_roles, _schools.c.name.label("school"))
            .select_from(held)
            .where(_user_roles.c.user_id == user_id)
            .order_by(_user_roles.c.deleted_at.asc().nulls_first(), _user_roles.c.role, _user_roles.c.school_id)
        )
        return [
            Role(row["role"], row["school_id"], row["school"], row["source"], row["deleted_at"])
            for row in self._connection.execute(query).mappings()
        ]

    def _enrolled(self, user_id: int) -> list[Classroom]:
        query = (
            sa.select(_enrollments)
            .select_from(_enrollments.join(_classrooms, _classrooms.c.classroom_id == _enrollments.c.classroom_id))
            .where(_enrollments.c.user_id == user_id, _enrollments.c.deleted_at.is_(None), _classrooms.c.deleted_at.is_(None))
            .order_by(_enrollments.c.classroom_id, _enrollments.c.role)
        )
        return [
            Classroom(row["classroom_id"], row["role"], row["is_primary"], row["source"])
            for row in self._connection.execute(query).mappings()
        ]

    def _history(self, user_id: int) -> list[Change]:
        """The newest changes, newest first. Within a sync or an import the user's own row is before roles and enrollments."""
        query = (
            sa.select(
                _changes,
                sa.func.coalesce(syncs.c.trigger, _audit.c.act).label("trigger"),
                sa.func.coalesce(syncs.c.requested_by, _audit.c.given_name, _audit.c.principal).label("requested_by"),
            )
            .select_from(
                _changes.outerjoin(syncs, syncs.c.sync_id == _changes.c.sync_id).outerjoin(_audit, _audit.c.audit_id == _changes.c.audit_id)
            )
            .where(_changes.c.user_id == user_id)
            .order_by(_changes.c.changed_at.desc(), _changes.c.sync_id.desc(), _changes.c.entity.desc(), _changes.c.entity_id)
            .limit(CHANGES_SHOWN)
        )
        names = ("changed_at", "sync_id", "trigger", "requested_by", "entity", "entity_id", "action", "before", "after")
        return [Change(*(row[name] for name in names)) for row in self._connection.execute(query).mappings()]


def _sign_in(user: Mapping[str, Any] | None, district: District) -> SignIn:
    if user is None or user["deleted_at"] is not None:
        return SignIn([], None)
    methods = user["login_methods"]
    domain = district.row["domain"]
    login = f"{user['username']}@{domain}" if domain else user["username"]
    return SignIn(methods, login if "password" in methods else None)


def _distinct(values: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(each for each in values if each is not None))
