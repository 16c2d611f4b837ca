"""What one record of each Clever resource looks like when it reaches staging: columns, rules, descriptions, each named once (R4.1).

Belongs here: one Pandera model per resource, and what follows from it (which rule a failure is called, the PostgreSQL type of a column).
Does not belong here: decoding Clever's JSON (`clever/`), loading frames (`sync/landing.py`), rules that need more than one row
(`dbt_like_sql/audits/`).

A column that may be null is optional: a value that breaks its rule is dropped and the row kept. A column that may not be null is mandatory:
    a broken value quarantines the row (R4.2). A failure is called `<column>_missing` or `<column>_format`. Ids are text (Clever's are 24
    hex digits). Blank text arrives as null.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
import pandera.pandas as pa
import pyarrow

Text = Annotated[pd.ArrowDtype, pyarrow.string()]
Flag = Annotated[pd.ArrowDtype, pyarrow.bool_()]

GRADES = (
    "InfantToddler", "Preschool", "PreKindergarten", "TransitionalKindergarten", "Kindergarten",
    *(str(grade) for grade in range(1, 14)),
    "PostGraduate", "Ungraded", "Other",
)  # fmt: skip

ID = r"^[0-9A-Za-z_-]{1,64}$"
SHORT = {"max_value": 255}


def _required(description: str, **rules: Any) -> Any:
    return pa.Field(nullable=False, description=description, **rules)


def _optional(description: str, **rules: Any) -> Any:
    return pa.Field(nullable=True, description=description, **rules)


def _time(description: str) -> Any:
    return pa.Field(nullable=True, description=description, metadata={"type": "timestamptz"})


def _date(description: str) -> Any:
    return pa.Field(nullable=True, description=description, metadata={"type": "date"})


def _ids(description: str, *, nullable: bool) -> Any:
    # Carried as a PostgreSQL array literal ({"a","b"}), which COPY reads as it stands.
    return pa.Field(nullable=nullable, description=description, metadata={"type": "text[]"})


def _is_instant(values: pd.Series) -> pd.Series:
    return pd.to_datetime(values.astype(object), format="ISO8601", errors="coerce", utc=True).notna()


class Resource(pa.DataFrameModel):
    """What every resource has."""

    clever_id: Text = _required("Clever's id of the record; the key of everything.", str_matches=ID)

    class Config:
        strict = True


class Schools(Resource):
    """Schools of the district that are shared with the application. Clever: GET /schools."""

    name: Text = _required("Name of the school.")
    last_modified: Text = _time("When Clever last changed the record; the newest of two records with one id wins (R3.8).")

    @pa.check("last_modified")
    def is_instant(cls, values: pd.Series) -> pd.Series:  # noqa: N805  (pandera's class methods)
        return _is_instant(values)


class Terms(Resource):
    """Terms of the district's calendar. Clever: GET /terms. Their ids are not stable; districts may send none."""

    name: Text = _optional("Name of the term.")
    start_date: Text = _date("First day of the term.")
    end_date: Text = _date("Last day of the term.")

    @pa.check("start_date")
    def starts(cls, values: pd.Series) -> pd.Series:  # noqa: N805
        return _is_instant(values)

    @pa.check("end_date")
    def ends(cls, values: pd.Series) -> pd.Series:  # noqa: N805
        return _is_instant(values)


class Courses(Resource):
    """Courses of the district. Clever: GET /courses. Their ids are not stable; districts may send none."""

    name: Text = _optional("Name of the course.")
    number: Text = _optional("The district's number of the course.", str_length=SHORT)


class Sections(Resource):
    """Sections (a classroom in the application) with their members. Clever: GET /sections."""

    name: Text = _required("Name of the section. Clever puts a teacher's last name into it, so it is personal.")
    school: Text = _optional("Clever id of the section's school.", str_matches=ID)
    course: Text = _optional("Clever id of the course.", str_matches=ID)
    term: Text = _optional("Clever id of the term.", str_matches=ID)
    students: Text = _ids("Clever ids of the students. Ids of people who are not shared are legal.", nullable=False)
    teachers: Text = _ids("Clever ids of the teachers, the primary one first.", nullable=False)
    last_modified: Text = _time("When Clever last changed the record; the newest of two records with one id wins (R3.8).")

    @pa.check("last_modified")
    def is_instant(cls, values: pd.Series) -> pd.Series:  # noqa: N805
        return _is_instant(values)


class Users(Resource):
    """People: one row per person, whichever roles they hold. Clever: GET /users?role=..."""

    first_name: Text = _required("First name.")
    middle_name: Text = _optional("Middle name.")
    last_name: Text = _required("Last name.")
    email: Text = _optional(
        "E-mail. Stored only where the profile stores it; never used to match (R5.9).", str_matches=r"^[^@\s]+@[^@\s]+$"
    )
    username: Text = _optional("The district's username (credentials.district_username).", str_length=SHORT)
    sis_id: Text = _optional("Id in the district's student information system; unique within district and kind only.", str_length=SHORT)
    state_id: Text = _optional("Id given by the state.", str_length=SHORT)
    student_number: Text = _optional("The district's student number.", str_length=SHORT)
    grade: Text = _optional("Grade of a student.", isin=GRADES)
    school: Text = _optional("Clever id of the primary school of a student or teacher.", str_matches=ID)
    student_schools: Text = _ids("Clever ids of the schools of a student; null for who is none.", nullable=True)
    teacher_schools: Text = _ids("Clever ids of the schools of a teacher; null for who is none.", nullable=True)
    staff_schools: Text = _ids("Clever ids of the schools of a school admin (Clever's staff role); null for who is none.", nullable=True)
    is_district_admin: Flag = _required("Whether the person is a district admin.")
    last_modified: Text = _time("When Clever last changed the record; the newest of two records with one id wins (R3.8).")

    @pa.check("last_modified")
    def is_instant(cls, values: pd.Series) -> pd.Series:  # noqa: N805
        return _is_instant(values)


RESOURCES: dict[str, type[Resource]] = {"schools": Schools, "terms": Terms, "courses": Courses, "sections": Sections, "users": Users}


class Column(NamedTuple):
    """One staged column as PostgreSQL, Dagster and the docs see it."""

    name: str
    sql_type: str
    nullable: bool
    description: str


class Rule(NamedTuple):
    """One single-row rule. Severity `error` quarantines the row, `warn` drops the value."""

    resource: str
    name: str
    severity: Literal["warn", "error"]
    description: str


def columns(resource: str) -> tuple[Column, ...]:
    """The staged columns of a resource, in the order of its model, without the district's id."""
    schema = RESOURCES[resource].to_schema()
    return tuple(
        Column(
            name,
            (column.metadata or {}).get("type") or ("boolean" if column.dtype.type == pd.ArrowDtype(pyarrow.bool_()) else "text"),
            column.nullable,
            column.description or "",
        )
        for name, column in schema.columns.items()
    )


def rules() -> Iterator[Rule]:
    """Every single-row rule of every resource: what Pandera can find, under the names that quarantine, counts and asset checks use."""
    for resource, model in RESOURCES.items():
        for name, column in model.to_schema().columns.items():
            severity: Literal["warn", "error"] = "warn" if column.nullable else "error"
            outcome = "the value is dropped" if column.nullable else "the row is quarantined"
            if not column.nullable:
                yield Rule(resource, f"{name}_missing", severity, f"{name} is missing or blank: {outcome}.")
            if column.checks:
                yield Rule(resource, f"{name}_format", severity, f"{name} is not of its documented form: {outcome}.")
            yield Rule(resource, f"{name}_type", severity, f"{name} is not of its documented JSON type: {outcome}.")
    for resource in RESOURCES:
        yield Rule(resource, "foreign_district", "error", "The record belongs to another district than the token: never written (R3.6).")


def rule_of(column: str, check: str) -> str:
    """The name of the rule that a Pandera failure (its column and check) stands for."""
    return f"{column}_missing" if check == "not_nullable" else f"{column}_format"
