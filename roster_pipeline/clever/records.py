"""The fields of Clever's objects that the pipeline reads: one Struct per object.

The Structs are an allow-list (R3.4): the decoder skips a field that is not declared here, so it is never in memory. Fields have the names
that Clever uses. Ids are text. An optional value that Clever leaves out, sends as null or sends as "" is None. Does not belong here:
decoding (`decode.py`) and rules about values, such as a blank name (contracts).

Clever can leave any field out, for one record or for all. Only "nothing is lost" makes that harmless, so every Struct says in `absent` what
the absence of each field means (R4.7). A Struct that does not say it cannot be decoded, and a test does it with each field.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct, field

from roster_pipeline.clever.absence import Absent
from roster_pipeline.source.vocabulary import Collection


class Wire(Struct, gc=False):
    """Base of every wire object. It cannot have cycles, so the garbage collector skips it, which saves a third of the decode time.

    Class attributes:
        columns: the names of fields in rules, if they differ from Clever's. Whether a wrong type rejects the whole record says the rule
            (`source/rules.py`).
        absent: what the absence of each field means, without the fields of base classes.
    """

    columns: ClassVar[Mapping[str, str]] = {}
    absent: ClassVar[Mapping[str, Absent]] = {}


CleverId = Annotated[str, Meta(min_length=1)]
Grade = Literal[
    "InfantToddler", "Preschool", "PreKindergarten", "TransitionalKindergarten", "Kindergarten",
    "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "PostGraduate", "Ungraded", "Other", "",
]  # fmt: skip


class District(Wire):
    """/districts/{id}. `last_sync` (UTC timestamp text) is absent until Clever has loaded the district once.

    `last_clever_sync` moves with changes of sharing too. It is absent unless Clever's support has enabled it for the application.
    """

    absent = {
        "id": Absent.FAILS,
        "name": Absent.EMPTY,
        "state": Absent.EMPTY,
        "last_sync": Absent.EMPTY,
        "last_clever_sync": Absent.EMPTY,
    }

    id: CleverId
    name: str | None = None
    state: str | None = None
    last_sync: str | None = None
    last_clever_sync: str | None = None

    def __post_init__(self) -> None:
        self.name = self.name or None
        self.state = self.state or None
        self.last_sync = self.last_sync or None
        self.last_clever_sync = self.last_clever_sync or None


class Entity(Wire):
    """Fields of every object inside a district."""

    absent = {"id": Absent.UNREADABLE, "district": Absent.QUARANTINED}

    id: CleverId
    district: str | None = None

    def __post_init__(self) -> None:
        self.district = self.district or None


class School(Entity):
    """/schools."""

    absent = {"name": Absent.QUARANTINED, "last_modified": Absent.EMPTY}

    name: str | None = None
    last_modified: str | None = None

    def __post_init__(self) -> None:
        self.district = self.district or None
        self.name = self.name or None
        self.last_modified = self.last_modified or None


class Term(Entity):
    """/terms. Dates come as YYYY-MM-DD or as timestamps."""

    absent = {"name": Absent.EMPTY, "start_date": Absent.EMPTY, "end_date": Absent.EMPTY}

    name: str | None = None
    start_date: str | None = None
    end_date: str | None = None

    def __post_init__(self) -> None:
        self.district = self.district or None
        self.name = self.name or None
        self.start_date = self.start_date or None
        self.end_date = self.end_date or None


class Course(Entity):
    """/courses."""

    absent = {"name": Absent.EMPTY, "number": Absent.EMPTY}

    name: str | None = None
    number: str | None = None

    def __post_init__(self) -> None:
        self.district = self.district or None
        self.name = self.name or None
        self.number = self.number or None


class Section(Entity):
    """/sections. `students` and `teachers` hold each user id once, in Clever's order; `teachers[0]` is the primary teacher (R6.2).

    A list that Clever does not send is None, which is not an empty list (R4.7). A teacher that only `teacher` names is in `teachers`.
    """

    absent = {
        "school": Absent.QUARANTINED,
        "name": Absent.QUARANTINED,
        "course": Absent.EMPTY,
        "term_id": Absent.EMPTY,
        "students": Absent.QUARANTINED,
        "teachers": Absent.STAYS,
        "teacher": Absent.ELSEWHERE,
        "last_modified": Absent.EMPTY,
    }

    school: str | None = None
    name: str | None = None
    course: str | None = None
    term_id: str | None = None
    students: list[str] | None = None
    teachers: list[str] | None = None
    teacher: str | None = None
    last_modified: str | None = None

    def __post_init__(self) -> None:
        self.district = self.district or None
        self.school = self.school or None
        self.name = self.name or None
        self.course = self.course or None
        self.term_id = self.term_id or None
        self.teacher = self.teacher or None
        self.last_modified = self.last_modified or None
        self.students = _distinct(self.students)
        self.teachers = _distinct(self.teachers or ([self.teacher] if self.teacher else self.teachers))


def _distinct(ids: list[str] | None) -> list[str] | None:
    if ids is None:
        return None
    once = dict.fromkeys(ids)
    return ids if len(once) == len(ids) else list(once)


class Name(Wire):
    """A person's name."""

    columns = {"first": "first_name", "middle": "middle_name", "last": "last_name"}
    absent = {"first": Absent.QUARANTINED, "middle": Absent.EMPTY, "last": Absent.QUARANTINED}

    first: str | None = None
    middle: str | None = None
    last: str | None = None

    def __post_init__(self) -> None:
        self.first = self.first or None
        self.middle = self.middle or None
        self.last = self.last or None


class PreferredName(Wire):
    """The name that a student goes by (API v3.1). A part that is absent or blank is the same as in the legal name."""

    columns = {"first": "preferred_first_name", "middle": "preferred_middle_name", "last": "preferred_last_name"}
    absent = dict.fromkeys(("first", "middle", "last"), Absent.ELSEWHERE)

    first: str | None = None
    middle: str | None = None
    last: str | None = None


class Credentials(Wire):
    """What people of the district sign in with."""

    absent = {"district_username": Absent.SIGN_IN}

    district_username: str | None = None

    def __post_init__(self) -> None:
        self.district_username = self.district_username or None


class StudentRole(Wire):
    """roles.student. `school` is the primary school, `schools` all of them. One of them is enough."""

    absent = {
        "school": Absent.ELSEWHERE,
        "schools": Absent.ELSEWHERE,
        "sis_id": Absent.EMPTY,
        "state_id": Absent.EMPTY,
        "student_number": Absent.EMPTY,
        "grade": Absent.EMPTY,
        "credentials": Absent.SIGN_IN,
    }

    school: str | None = None
    schools: list[str] | None = None
    sis_id: str | None = None
    state_id: str | None = None
    student_number: str | None = None
    grade: Grade | None = None
    credentials: Credentials = field(default_factory=Credentials)

    def __post_init__(self) -> None:
        self.school = self.school or None
        self.sis_id = self.sis_id or None
        self.state_id = self.state_id or None
        self.student_number = self.student_number or None
        self.grade = self.grade or None

    @property
    def all_schools(self) -> list[str] | None:
        """All schools, with the primary one. None if Clever sends neither `school` nor `schools` (R4.7)."""
        return _with_primary(self.schools, self.school) if self.schools is not None or self.school else None


def _with_primary(schools: list[str] | None, primary: str | None) -> list[str]:
    """The primary school first (R6.3)."""
    listed = schools or []
    if primary is None or listed[:1] == [primary]:
        return listed
    return [primary, *(each for each in listed if each != primary)]


class TeacherRole(Wire):
    """roles.teacher. `school` is the primary school."""

    absent = {
        "school": Absent.EMPTY,
        "schools": Absent.QUARANTINED,
        "sis_id": Absent.EMPTY,
        "state_id": Absent.EMPTY,
        "credentials": Absent.SIGN_IN,
    }

    school: str | None = None
    schools: list[str] | None = None
    sis_id: str | None = None
    state_id: str | None = None
    credentials: Credentials = field(default_factory=Credentials)

    def __post_init__(self) -> None:
        self.school = self.school or None
        self.sis_id = self.sis_id or None
        self.state_id = self.state_id or None

    @property
    def all_schools(self) -> list[str] | None:
        """All schools, with the primary one. None if Clever does not send `schools` (R4.7)."""
        return None if self.schools is None else _with_primary(self.schools, self.school)


class StaffRole(Wire):
    """roles.staff. Has no primary school. School admins sign in with their Clever id, so their credentials decide nothing."""

    absent = {"schools": Absent.QUARANTINED, "credentials": Absent.EMPTY}

    schools: list[str] | None = None
    credentials: Credentials = field(default_factory=Credentials)

    @property
    def all_schools(self) -> list[str] | None:
        """All schools. None if Clever does not send `schools` (R4.7)."""
        return self.schools


class DistrictAdminRole(Wire):
    """roles.district_admin: only its presence matters."""


class Roles(Wire):
    """The roles of a user; None if Clever does not send the key."""

    absent = dict.fromkeys(("student", "teacher", "staff", "district_admin"), Absent.NO_ROLE)

    student: StudentRole | None = None
    teacher: TeacherRole | None = None
    staff: StaffRole | None = None
    district_admin: DistrictAdminRole | None = None

    def broken_rule(self, asked: str) -> str | None:
        """The rule that these roles break if they cannot be read (R4.7).

        Args:
            asked: the role that was asked for. Clever returns only people who have it.
        """
        if getattr(self, asked) is None:
            return "roles_missing"
        given = (self.student, self.teacher, self.staff)
        return "schools_missing" if any(each is not None and each.all_schools is None for each in given) else None


class UserWithoutEmail(Entity):
    """/users?role=student of a district whose profile does not store a student's e-mail. It has no attribute for one."""

    absent = {"name": Absent.QUARANTINED, "last_modified": Absent.EMPTY, "roles": Absent.QUARANTINED}

    name: Name = field(default_factory=Name)
    last_modified: str | None = None
    roles: Roles = field(default_factory=Roles)

    def __post_init__(self) -> None:
        self.district = self.district or None
        self.last_modified = self.last_modified or None


class User(UserWithoutEmail):
    """/users. Has all roles of the user, whichever role was requested."""

    absent = {"email": Absent.SIGN_IN}

    email: str | None = None

    def __post_init__(self) -> None:
        self.district = self.district or None
        self.last_modified = self.last_modified or None
        self.email = self.email or None


class _NamedStudentRole(StudentRole):
    """roles.student of a district that stores preferred names (`Profile.student_name`)."""

    absent = {"preferred_name": Absent.ELSEWHERE}

    preferred_name: PreferredName = field(default_factory=PreferredName)


class _NamedRoles(Roles):
    student: _NamedStudentRole | None = None


class _NamedUserWithoutEmail(UserWithoutEmail):
    roles: _NamedRoles = field(default_factory=_NamedRoles)


class _NamedUser(User):
    roles: _NamedRoles = field(default_factory=_NamedRoles)


# What API v3.1 has beyond v3.0 and the pipeline does not read, by object, and why.
LEFT_OUT: Mapping[str, Mapping[str, str]] = {
    "Student": {
        **dict.fromkeys(
            ("disability", "frl_status", "gifted_status", "section_504_status", "iep_status"),
            "About health, poverty or schooling needs: never stored (R3.4).",
        ),
        **dict.fromkeys(("home_language", "home_language_code"), "About origin: never stored (R3.4)."),
        **dict.fromkeys(("unweighted_gpa", "weighted_gpa"), "Grades of school work: the application does not need them."),
    },
    "User": {"lms_status": "About another product."},
    "Section": {"lms_status": "About another product."},
    "District": {
        "lms_type": "About another product.",
        "lms_state": "About another product.",
        "last_attendance_sync": "No attendance is read.",
    },
}


Record = School | Term | Course | Section | UserWithoutEmail


def record_type(collection: Collection, *, keep_student_email: bool, prefer_name: bool = False) -> type[Record]:
    """The Struct of a collection's records."""
    match collection:
        case Collection.SCHOOLS:
            return School
        case Collection.TERMS:
            return Term
        case Collection.COURSES:
            return Course
        case Collection.SECTIONS:
            return Section
        case Collection.STUDENTS if not keep_student_email:
            return _NamedUserWithoutEmail if prefer_name else UserWithoutEmail
        case _:
            return _NamedUser if prefer_name else User
