"""The contract of each Clever resource: the columns, rules and descriptions of its records in staging, each in one place (R4.1).

Belongs here: one Pandera model per resource, and what is derived from it (the name of a rule, the PostgreSQL type of a column).
Does not belong here: decoding Clever's JSON (`clever/`), loading frames (`sync/landing.py`), the list of all quarantine rules
(`source/rules.py`), rules that need more than one row (`dbt_like_sql/audits/`).

A nullable column is optional: a value that breaks its rule becomes null, and the row stays. A column that is not nullable is mandatory: a
broken value quarantines the row (R4.2). A list of ids is never dropped: a broken one quarantines the row (R4.7). The rules are named
`<column>_missing` and `<column>_format`. Ids are text (Clever's are 24 hex digits). Blank text is null before the models see it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
import pandera.pandas as pa
import pyarrow

Text = Annotated[pd.ArrowDtype, pyarrow.string()]
Severity = Literal["warn", "error"]
Flag = Annotated[pd.ArrowDtype, pyarrow.bool_()]

GRADES = (
    "InfantToddler", "Preschool", "PreKindergarten", "TransitionalKindergarten", "Kindergarten",
    *(str(grade) for grade in range(1, 14)),
    "PostGraduate", "Ungraded", "Other",
)  # fmt: skip

ID = r"^[0-9A-Za-z_-]{1,64}$"
# What `sync/frames.py` makes of every date and time before the models see it.
_DAY = r"^\d{4}-\d\d-\d\d$"
_INSTANT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00$"
IDS = r'^\{("[0-9A-Za-z_-]{1,64}"(,"[0-9A-Za-z_-]{1,64}")*)?\}$'
SHORT = {"max_value": 255}


def _required(description: str, **rules: Any) -> Any:
    return pa.Field(nullable=False, description=description, **rules)


def _optional(description: str, **rules: Any) -> Any:
    return pa.Field(nullable=True, description=description, **rules)


def _time(description: str) -> Any:
    return _optional(description, str_matches=_INSTANT, metadata={"type": "timestamptz"})


def _date(description: str) -> Any:
    return _optional(description, str_matches=_DAY, metadata={"type": "date"})


def _ids(description: str, **absence: Any) -> Any:
    """A list of ids, as a PostgreSQL array literal ({"a","b"}), which COPY reads without conversion.

    Args:
        absence: what a null means, as in `Column`: `nullable`, and `missing` if it is a finding although it is allowed.
    """
    metadata = {"type": "text[]", "broken": "error", **absence}
    # A null that is a finding is one that the model refuses.
    nullable = absence.get("nullable", False) and "missing" not in absence
    return pa.Field(nullable=nullable, description=description, metadata=metadata, str_matches=IDS)


class Resource(pa.DataFrameModel):
    """The columns of every resource."""

    clever_id: Text = _required("Clever's id of the record, its key.", str_matches=ID)

    class Config:
        strict = True


class Schools(Resource):
    """Schools of the district that are shared with the application. Clever: GET /schools."""

    name: Text = _required("Name of the school.")
    last_modified: Text = _time("When Clever last changed the record. If two records have one id, the newer one wins (R3.8).")


class Terms(Resource):
    """Terms of the district's calendar. Clever: GET /terms. Their ids are not stable; districts may send none."""

    name: Text = _optional("Name of the term.")
    start_date: Text = _date("First day of the term.")
    end_date: Text = _date("Last day of the term.")


class Courses(Resource):
    """Courses of the district. Clever: GET /courses. Their ids are not stable; districts may send none."""

    name: Text = _optional("Name of the course.")
    number: Text = _optional("The district's number of the course.", str_length=SHORT)


class Sections(Resource):
    """Sections (classrooms in the application) with their members. Clever: GET /sections."""

    name: Text = _required("Name of the section. It is personal data: Clever puts a teacher's last name into it.")
    school: Text = _required("Clever id of the section's school.", str_matches=ID)
    course: Text = _optional("Clever id of the course.", str_matches=ID)
    term: Text = _optional("Clever id of the term.", str_matches=ID)
    students: Text = _ids("Clever ids of the students. They may include people that are not shared.")
    teachers: Text = _ids(
        "Clever ids of the teachers, the primary one first. Null if Clever sent none: the classroom's teachers stay (R4.7).",
        nullable=True,
        missing="warn",
    )
    last_modified: Text = _time("When Clever last changed the record. If two records have one id, the newer one wins (R3.8).")


class Users(Resource):
    """People: one row per person, with all their roles. Clever: GET /users?role=..."""

    first_name: Text = _required("First name.")
    middle_name: Text = _optional("Middle name.")
    last_name: Text = _required("Last name.")
    email: Text = _optional("E-mail. Stored only if the profile says so; never used to match (R5.9).", str_matches=r"^[^@\s]+@[^@\s]+$")
    username: Text = _optional("The district's username (credentials.district_username).", str_length=SHORT)
    sis_id: Text = _optional(
        "Id in the district's student information system. Unique only within one district and one kind of person.", str_length=SHORT
    )
    state_id: Text = _optional("Id given by the state.", str_length=SHORT)
    student_number: Text = _optional("The district's student number.", str_length=SHORT)
    grade: Text = _optional("Grade of a student.", isin=GRADES)
    school: Text = _optional("Clever id of the primary school of a student or teacher.", str_matches=ID)
    student_schools: Text = _ids(
        "Clever ids of a student's schools, the primary one first; null if the person is not a student.", nullable=True
    )
    teacher_schools: Text = _ids("Clever ids of a teacher's schools; null if the person is not a teacher.", nullable=True)
    staff_schools: Text = _ids(
        "Clever ids of a school admin's schools (Clever's staff role); null if the person is not a school admin.", nullable=True
    )
    is_district_admin: Flag = _required("Whether the person is a district admin.")
    last_modified: Text = _time("When Clever last changed the record. If two records have one id, the newer one wins (R3.8).")


RESOURCES: dict[str, type[Resource]] = {"schools": Schools, "terms": Terms, "courses": Courses, "sections": Sections, "users": Users}


class Column(NamedTuple):
    """One staged column as PostgreSQL, Dagster and the docs see it.

    Attributes:
        has_format: a value can break a rule of the column.
        missing: the severity of a null; None if it is no finding.
        broken: the severity of a value that breaks a rule.
    """

    name: str
    sql_type: str
    nullable: bool
    description: str
    has_format: bool
    missing: Severity | None
    broken: Severity


def columns(resource: str) -> tuple[Column, ...]:
    """The staged columns of a resource, in the order of its model, without the district's id."""
    return tuple(_column(name, column) for name, column in RESOURCES[resource].to_schema().columns.items())


def _column(name: str, column: pa.Column) -> Column:
    said: Mapping[str, Any] = column.metadata or {}
    nullable = said.get("nullable", column.nullable)
    return Column(
        name,
        said.get("type") or ("boolean" if column.dtype.type == pd.ArrowDtype(pyarrow.bool_()) else "text"),
        nullable,
        column.description or "",
        bool(column.checks),
        missing=said.get("missing", None if nullable else "error"),
        broken=said.get("broken", "warn" if nullable else "error"),
    )


def rule_of(column: str, check: str) -> str:
    """The name of the rule that a Pandera failure (a column and a check) breaks."""
    return f"{column}_missing" if check == "not_nullable" else f"{column}_format"
