"""What is known about one person, as values: the answer of `support/explain.py`.

Belongs here: what each fact is called and what it can be. Does not belong here: reading the facts (`explain.py`) and the sentences about
them (`commands/explain.py`). All of it is personal (SPEC 12).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

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
        username_holder: the user id of the person who has the name that this person did not get.
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
        changes: newest first, only the newest.
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
        user: the user with this Clever id, else the one that the last plan means.
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
    """One of several people that a reference fits."""

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
