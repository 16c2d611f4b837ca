"""Everything known about one person of one district: from Clever's record to how they sign in.

Belongs here: finding the person and reading the rows about them. Does not belong here: deciding (`dbt_like_sql/`) and the words for what
was decided (`commands/explain.py`). What is read is personal: it goes to the caller's own terminal and nowhere else (SPEC 12), so nothing
here logs, and no exception holds a value.

Every row is found by an index that leads with the district, or by one on the person. Two look-ups read the whole district: a username among
deleted users and in Clever's records (by name only active users are indexed), and a user id in the last plan. Neither grows with other
districts; the slowest answer took 0.4 s among 110,000 people.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.migrate import known_tables
from roster_pipeline.database.tables import holds as holds_table
from roster_pipeline.database.tables import staged_districts, syncs
from roster_pipeline.districts.agreement import District
from roster_pipeline.errors import PermanentError
from roster_pipeline.support.holds import UNDECIDED

CHANGES_SHOWN = 25
_BIGINT = 2**63

FoundBy = Literal["clever_id", "username", "user_id"]


@dataclass(frozen=True)
class School:
    """A school that Clever lists for the person. standing: rostered | not rostered | not shared."""

    clever_id: str
    name: str | None
    standing: str
    is_primary: bool


@dataclass(frozen=True)
class ListedRole:
    """A role in Clever's record; a district admin has no schools."""

    role: str
    schools: Sequence[School]


@dataclass(frozen=True)
class Shared:
    """The person in the last accepted pull.

    Attributes:
        pulled_at: when that pull began; None when no pull of the district has been accepted yet.
        standing: shared | quarantined | absent.
        record: the staged columns that describe a person; empty unless shared.
    """

    pulled_at: datetime | None
    standing: Literal["shared", "quarantined", "absent"]
    record: Mapping[str, Any]
    roles: Sequence[ListedRole]


@dataclass(frozen=True)
class Finding:
    """A rule that Clever's record broke, in the newest sync that found anything wrong with it."""

    sync_id: int
    rule: str
    severity: str


@dataclass(frozen=True)
class Decision:
    """What the last plan decided about the person; the codes are those of reconcile.user_matches.

    Attributes:
        clever_id: the record it was decided about; another than the user's own where the user is to be adopted or relinked.
        is_applied: False as long as the district's first sync waits for approval (R7.6).
        username_holder: user id of who has the name that this person did not get.
    """

    clever_id: str
    decision: str
    rule: str
    username_rule: str | None
    is_applied: bool
    is_admin_held: bool
    is_waiting: bool
    username_holder: int | None


@dataclass(frozen=True)
class Hold:
    """A hold that waits and that this person falls under. counts: as in ops.holds."""

    hold_id: int
    kind: str
    status: str
    role: str | None
    school_id: int | None
    school: str | None
    counts: Mapping[str, Any]
    since: datetime


@dataclass(frozen=True)
class Role:
    """A row of app.user_roles."""

    role: str
    school_id: int | None
    school: str | None
    source: str
    deleted_at: datetime | None


@dataclass(frozen=True)
class Classroom:
    """An active enrollment."""

    classroom_id: int
    role: str
    is_primary: bool
    source: str


@dataclass(frozen=True)
class Change:
    """A row of ops.changes, with the sync that made it."""

    changed_at: datetime
    sync_id: int
    trigger: str | None
    requested_by: str | None
    entity: str
    entity_id: str
    action: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True)
class User:
    """The person in the application.

    Attributes:
        row: the columns of app.users.
        school: name of the primary school.
        gone: why the last plan counted the user as gone (reconcile.soft_deletes.reason).
        held_by: the kind of brake that kept the user all the same.
        changes: newest first, CHANGES_SHOWN at most.
    """

    user_id: int
    row: Mapping[str, Any]
    school: str | None
    roles: Sequence[Role]
    classrooms: Sequence[Classroom]
    gone: str | None
    held_by: str | None
    changes: Sequence[Change]
    changes_in_all: int


@dataclass(frozen=True)
class SignIn:
    """How the person can sign in now: not at all without methods.

    Attributes:
        login: what is typed with a password, where that is one of the methods.
    """

    methods: Sequence[str]
    login: str | None


@dataclass(frozen=True)
class Explanation:
    """The whole chain for one person.

    Attributes:
        clever_id: as asked for, or the user's.
        user: who has this Clever id, else whom the last plan means.
    """

    district: str
    found_by: FoundBy
    clever_id: str | None
    shared: Shared
    findings: Sequence[Finding]
    decision: Decision | None
    holds: Sequence[Hold]
    user: User | None
    sign_in: SignIn


@dataclass(frozen=True)
class Match:
    """One of several people whom a reference fits."""

    clever_id: str | None
    user_id: int | None
    first_name: str | None
    last_name: str | None
    is_active: bool


@dataclass(frozen=True)
class Ambiguous:
    """Several people fit; each can be named by Clever id or user id."""

    district: str
    found_by: FoundBy
    matches: Sequence[Match]


class UnknownPersonError(PermanentError):
    """Nobody of the district goes by this Clever id, username or user id."""


def _table(name: str) -> sa.TableClause:
    schema, table = name.split(".")
    return sa.table(table, *(sa.column(each) for each in known_tables()[name]), schema=schema)


_users = _table("app.users")
_user_roles = _table("app.user_roles")
_schools = _table("app.schools")
_classrooms = _table("app.classrooms")
_enrollments = _table("app.enrollments")
_staged_users = _table("staging.users")
_staged_schools = _table("staging.schools")
_quarantined = _table("staging.quarantined")
_matches = _table("reconcile.user_matches")
_soft_deletes = _table("reconcile.soft_deletes")
_findings = _table("ops.quarantine")
_changes = _table("ops.changes")

_PERSON = (
    *("first_name", "middle_name", "last_name", "username", "email", "sis_id", "state_id", "student_number"),
    *("grade", "last_modified"),
)


class _Key(NamedTuple):
    clever_id: str | None
    user_id: int | None


def explain_person(connection: Connection, district: District, reference: str) -> Explanation | Ambiguous:
    """Find the person by Clever id, else by username, else by user id, and read what is known.

    Args:
        connection: outside a sync: the lasting tables are read.
        reference: as somebody typed it.

    Raises:
        UnknownPersonError: there is nobody.
    """
    found_by, keys = _find(connection, district.district_id, reference)
    if len(keys) > 1:
        return Ambiguous(district.clever_id, found_by, [_match(connection, district.district_id, key) for key in keys])
    return _Reader(connection, district).explain(found_by, keys[0])


def _find(connection: Connection, district_id: int, reference: str) -> tuple[FoundBy, list[_Key]]:
    if keys := _by_clever_id(connection, district_id, reference):
        return "clever_id", keys
    if keys := _by_username(connection, district_id, reference):
        return "username", keys
    if reference.isdecimal() and int(reference) < _BIGINT:
        user = _first(connection, _users, district_id=district_id, user_id=int(reference))
        if user is not None:
            return "user_id", [_Key(user["clever_id"], user["user_id"])]
    raise UnknownPersonError(
        "Nobody of this district has that Clever id, username or user id, neither in the application nor in what Clever shares.",
        hint="A username stands without @ and what follows it.",
    )


def _by_clever_id(connection: Connection, district_id: int, clever_id: str) -> list[_Key]:
    user = _first(connection, _users, district_id=district_id, clever_id=clever_id)
    if user is not None:
        return [_Key(clever_id, user["user_id"])]
    known = any(_first(connection, table, district_id=district_id, clever_id=clever_id) for table in (_staged_users, _matches, _findings))
    return [_Key(clever_id, None)] if known else []


def _by_username(connection: Connection, district_id: int, username: str) -> list[_Key]:
    """Everybody who has the name here, and everybody to whom Clever gives it."""
    normalize = sa.func.app.normalize_username
    key = connection.execute(sa.select(normalize(username))).scalar_one()
    have = sa.select(_users.c.clever_id, _users.c.user_id).where(_users.c.district_id == district_id, _users.c.username_key == key)
    meant = _staged_users.outerjoin(
        _matches, sa.and_(_matches.c.district_id == district_id, _matches.c.clever_id == _staged_users.c.clever_id)
    ).outerjoin(_users, sa.and_(_users.c.district_id == district_id, _users.c.user_id == _matches.c.user_id))
    # Whose name here is spelt as Clever gives it is found above; the rest are few. The function costs 4 us a name, 180 us where it is
    # not ASCII: in a case, because the planner would otherwise call it for everybody before it joins.
    given = _staged_users.c.username
    claims_it = sa.case((_users.c.username.is_distinct_from(given), normalize(given) == key), else_=False)
    claim = (
        sa.select(_staged_users.c.clever_id, _users.c.user_id)
        .select_from(meant)
        .where(_staged_users.c.district_id == district_id, claims_it)
    )
    having = [_Key(*row) for row in connection.execute(have.order_by(_users.c.user_id))]
    known = {each.user_id for each in having}
    claiming = [_Key(*row) for row in connection.execute(claim.order_by(_staged_users.c.clever_id))]
    return having + [each for each in claiming if each.user_id is None or each.user_id not in known]


def _match(connection: Connection, district_id: int, key: _Key) -> Match:
    user = _first(connection, _users, district_id=district_id, user_id=key.user_id)
    row = user or _first(connection, _staged_users, district_id=district_id, clever_id=key.clever_id) or {}
    return Match(key.clever_id, key.user_id, row["first_name"], row["last_name"], user is not None and user["deleted_at"] is None)


class _Reader:
    """Reads one person's chain on one connection."""

    def __init__(self, connection: Connection, district: District) -> None:
        self._connection = connection
        self._district = district
        self._id = district.district_id

    def explain(self, found_by: FoundBy, key: _Key) -> Explanation:
        shared = self._shared(key.clever_id)
        match = self._match_of(key)
        user_id = key.user_id if key.user_id is not None or match is None else match["user_id"]
        row = _first(self._connection, _users, district_id=self._id, user_id=user_id)
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
        record = _first(self._connection, _staged_users, district_id=self._id, clever_id=clever_id)
        if record is not None:
            return Shared(pulled_at, "shared", {name: record[name] for name in _PERSON}, self._listed_roles(record))
        quarantined = _first(self._connection, _quarantined, district_id=self._id, resource="users", clever_id=clever_id)
        return Shared(pulled_at, "absent" if quarantined is None else "quarantined", {}, [])

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
        """Name and standing of each school."""
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
        """Of the newest sync that found anything."""
        mine = sa.and_(_findings.c.district_id == self._id, _findings.c.clever_id == clever_id, _findings.c.resource == "users")
        newest = sa.select(sa.func.max(_findings.c.sync_id)).where(mine).scalar_subquery()
        query = sa.select(_findings).where(mine, _findings.c.sync_id == newest).order_by(_findings.c.rule)
        return [Finding(row["sync_id"], row["rule"], row["severity"]) for row in self._connection.execute(query).mappings()]

    def _match_of(self, key: _Key) -> Mapping[str, Any] | None:
        """The plan's row about the person's own Clever id, else the one that would link somebody to this user."""
        own = _first(self._connection, _matches, district_id=self._id, clever_id=key.clever_id)
        return own or _first(self._connection, _matches, district_id=self._id, user_id=key.user_id)

    def _decision(self, match: Mapping[str, Any], shared: Shared) -> Decision:
        return Decision(
            clever_id=match["clever_id"],
            decision=match["decision"],
            rule=match["rule"],
            username_rule=match["username_rule"],
            is_applied=shared.pulled_at is not None,
            is_admin_held=match["is_admin_held"],
            is_waiting=match["is_waiting"],
            username_holder=self._holder_of_name(match["clever_id"]) if match["username_rule"] == "taken" else None,
        )

    def _holder_of_name(self, clever_id: str) -> int | None:
        """Who has the username that Clever gives to this person."""
        record = _first(self._connection, _staged_users, district_id=self._id, clever_id=clever_id)
        key = sa.func.app.normalize_username(record["username"] if record is not None else None)
        ours = sa.and_(_users.c.district_id == self._id, _users.c.deleted_at.is_(None))
        return self._connection.execute(sa.select(_users.c.user_id).where(ours, _users.c.username_key == key)).scalar_one_or_none()

    def _holds(self, match: Mapping[str, Any] | None, shared: Shared, user: User | None) -> list[Hold]:
        """The waiting holds that explain what was held about this person."""
        kinds = set()
        if match is not None:
            kinds.add(match["rule"])  # `licenses` and `relinks` are called like their holds
            if shared.pulled_at is None:
                kinds.add("initial")
            if match["is_admin_held"]:
                kinds.add("new_admins")
            elif match["rule"] == "held_role":
                kinds.add("school_role")
        if user is not None and user.held_by is not None:
            # Whom a brake of the school holds, that of the district can hold as well.
            kinds |= {"district_role", "school_role"} if user.held_by in ("district_role", "school_role") else {user.held_by}
        held = [role for role in user.roles if role.deleted_at is None] if user is not None else []
        roles, places = {each.role for each in held}, {(each.role, each.school_id) for each in held}
        listed = {school.clever_id for role in shared.roles for school in role.schools}
        query = (
            sa.select(holds_table, _schools.c.name.label("school"), _schools.c.clever_id.label("school_clever_id"))
            .select_from(holds_table.outerjoin(_schools, _schools.c.school_id == holds_table.c.school_id))
            .where(holds_table.c.district_id == self._id, holds_table.c.status.in_(UNDECIDED), holds_table.c.kind.in_(sorted(kinds)))
            .order_by(holds_table.c.hold_id.desc())
        )
        return [
            Hold(row["hold_id"], row["kind"], row["status"], row["role"], row["school_id"], row["school"], row["counts"], row["created_at"])
            for row in self._connection.execute(query).mappings()
            if not (row["kind"] == "district_role" and row["role"] not in roles)
            if row["kind"] != "school_role" or (row["role"], row["school_id"]) in places or row["school_clever_id"] in listed
        ]

    def _user(self, row: Mapping[str, Any], shared: Shared) -> User:
        user_id = row["user_id"]
        gone = _first(self._connection, _soft_deletes, district_id=self._id, entity="users", entity_id=user_id)
        in_all = sa.select(sa.func.count()).select_from(_changes).where(_changes.c.user_id == user_id)
        school = _first(self._connection, _schools, district_id=self._id, school_id=row["school_id"])
        return User(
            user_id=user_id,
            row={name: row[name] for name in known_tables()["app.users"] if name not in ("user_id", "district_id", "username_key")},
            school=school["name"] if school is not None else None,
            roles=self._roles(user_id),
            classrooms=self._enrolled(user_id),
            gone=gone["reason"] if gone is not None else None,
            # Before the first pull is accepted, the first sync waits as a whole (R7.6).
            held_by="initial" if gone is not None and shared.pulled_at is None else gone["held_by"] if gone is not None else None,
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
        """Newest first; of one sync the user's own row before roles and enrollments."""
        query = (
            sa.select(_changes, syncs.c.trigger, syncs.c.requested_by)
            .select_from(_changes.outerjoin(syncs, syncs.c.sync_id == _changes.c.sync_id))
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


def _first(connection: Connection, table: sa.TableClause, **key: object) -> Mapping[str, Any] | None:
    """A row by its key. A part that is None matches nothing."""
    if None in key.values():
        return None
    equal = (table.c[name] == value for name, value in key.items())
    row = connection.execute(sa.select(table).where(*equal).limit(1)).mappings().first()
    return dict(row) if row is not None else None
