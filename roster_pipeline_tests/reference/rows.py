"""The data of the model: the rows of one district, what Clever sends for it, and its rules.

Belongs here: plain data. Does not belong here: the expected result (`model.py` and its parts) and the database (`driver.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from fractions import Fraction
from typing import Any

Id = int | str
"""A generated key of the database; "new:<Clever id>" for a row that this sync creates."""
Record = Mapping[str, Any]
"""One object as Clever sends it."""


@dataclass(frozen=True)
class School:
    """A row of app.schools."""

    clever_id: str | None
    name: str
    source: str
    protected: bool
    deleted_at: datetime | None


@dataclass(frozen=True)
class Classroom:
    """A row of app.classrooms."""

    clever_id: str | None
    name: str
    clever_name: str | None
    term_name: str | None
    starts_on: date | None
    ends_on: date | None
    school_id: Id | None
    source: str
    protected: bool
    deleted_at: datetime | None


@dataclass(frozen=True)
class User:
    """A row of app.users."""

    clever_id: str | None
    username: str | None
    first_name: str | None
    middle_name: str | None
    last_name: str | None
    email: str | None
    district_username: str | None
    sis_id: str | None
    state_id: str | None
    student_number: str | None
    grade: str | None
    school_id: Id | None
    source: str
    protected: bool
    do_not_restore: bool
    license_status: str | None
    login_methods: tuple[str, ...]
    created_at: datetime
    deleted_at: datetime | None

    @property
    def barred(self) -> bool:
        """Deactivated by support on purpose (R8.3)."""
        return self.do_not_restore and self.deleted_at is not None


@dataclass(frozen=True)
class Role:
    """A row of app.user_roles."""

    source: str
    deleted_at: datetime | None


@dataclass(frozen=True)
class Enrollment:
    """A row of app.enrollments."""

    is_primary: bool
    source: str
    deleted_at: datetime | None


RoleKey = tuple[Id, str, Id | None]
EnrollmentKey = tuple[Id, Id, str]


@dataclass
class State:
    """The rows of one district. The key of a role is (user, role, school), of an enrollment (classroom, user, role)."""

    schools: dict[Id, School] = field(default_factory=dict)
    classrooms: dict[Id, Classroom] = field(default_factory=dict)
    users: dict[Id, User] = field(default_factory=dict)
    roles: dict[RoleKey, Role] = field(default_factory=dict)
    enrollments: dict[EnrollmentKey, Enrollment] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """What Clever sends for one district: its objects in order, including those that it sends twice.

    Attributes:
        odd: further elements of `data`, each after the objects of its collection, as Clever sends them. Some are no objects at all.
    """

    schools: Sequence[Record] = ()
    sections: Sequence[Record] = ()
    users: Sequence[Record] = ()
    terms: Sequence[Record] = ()
    odd: Sequence[tuple[str, Any]] = ()


@dataclass(frozen=True)
class Agreed:
    """One school of the agreement. licenses: None is no limit (R9.1)."""

    name: str
    clever_id: str | None = None
    licenses: int | None = None


@dataclass(frozen=True)
class Rules:
    """The district's agreement and settings.

    Attributes:
        agreed_schools: if there are none, every school is inside (R6.4). The same is true of grades.
        licenses: of the district; None is no limit (R9.1).
        limits: floor and share by kind of brake and role; without a role those of all other roles (R7.3).
        window: the kind of the window that is on (R14.1).
    """

    clever_id: str
    student_email: bool
    student_multi_school: bool
    login_methods: tuple[str, ...]
    keep_classroom_names: bool = False
    agreed_schools: Sequence[Agreed] = ()
    agreed_grades: Sequence[str] = ()
    licenses: int | None = None
    over_license_policy: str = "warn"
    limits: Mapping[tuple[str, str | None], tuple[int, Fraction]] = field(default_factory=dict)
    auto_initial: bool = True
    window: str | None = None


Identity = tuple[str, Id | None, str | None, str | None]
"""What identifies a hold, regardless of its acts: kind, school, role, collection."""


@dataclass(frozen=True)
class Hold:
    """A row of ops.holds, with the acts themselves instead of a hash over them (R7.5)."""

    identity: Identity
    acts: frozenset[str]
    status: str = "open"
    expires_at: datetime | None = None
