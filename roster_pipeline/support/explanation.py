"""The types of the answer of `support/explain.py`: what is known about one person.

Belongs here: the name of each fact and its possible values. Does not belong here: reading the facts (`explain.py`) and the sentences about
them (`commands/explain.py`). All of it is personal (SPEC 12).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

FoundBy = Literal["clever_id", "username", "user_id"]


@dataclass(frozen=True)
class School:
    """A school that Clever lists for the person. status: `rostered` | `not rostered` | `not shared`."""

    clever_id: str
    name: str | None
    status: str
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
        pulled_at: when that pull began; None if no pull of the district has been accepted yet.
        record: the staged columns that describe a person; empty unless `status` is `shared`.
    """

    pulled_at: datetime | None
    status: Literal["shared", "quarantined", "unreadable", "absent"]
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
        clever_id: the record that was decided about. It differs from the user's own if the user is to be adopted or relinked.
        is_applied: False while the district's first sync waits for approval (R7.6).
        username_holder: the user that has the username which this person did not get.
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
    """A pending hold that this person falls under. counts: as in ops.holds."""

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
    """A row of ops.changes, with the sync or the act of a person that made it.

    Attributes:
        sync_id: None if it was an act, such as an import (`ops.audit`).
        trigger: of the sync; else the name of the act.
        requested_by: who asked for the sync, or did the act.
    """

    changed_at: datetime
    sync_id: int | None
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
        deletion_reason: why the last plan would soft-delete the user (reconcile.soft_deletes.reason).
        held_by: the kind of brake that holds this soft delete, or `additions_only` if a window defers it.
        changes: the newest ones, newest first.
        changes_in_all: how many there are.
    """

    user_id: int
    row: Mapping[str, Any]
    school: str | None
    roles: Sequence[Role]
    classrooms: Sequence[Classroom]
    deletion_reason: str | None
    held_by: str | None
    changes: Sequence[Change]
    changes_in_all: int


@dataclass(frozen=True)
class SignIn:
    """How the person can sign in now. Without methods they cannot.

    Attributes:
        login: what the person types beside the password, if that is one of the methods.
    """

    methods: Sequence[str]
    login: str | None


@dataclass(frozen=True)
class Explanation:
    """Everything about one person, from Clever's record to the sign-in.

    Attributes:
        clever_id: the one that the caller named, or the user's.
        user: the user with this Clever id, else the one with which the last plan matches it.
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
    """One of several people that a reference matches."""

    clever_id: str | None
    user_id: int | None
    first_name: str | None
    last_name: str | None
    is_active: bool


@dataclass(frozen=True)
class Ambiguous:
    """Several people match a reference; a Clever id or user id names each of them."""

    district: str
    found_by: FoundBy
    matches: Sequence[Match]
