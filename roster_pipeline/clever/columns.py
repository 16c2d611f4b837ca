"""Clever's records -> the columns of `contracts.py`.

Belongs here: which field of which role of a Clever record becomes which column. Does not belong here: decoding (`decode.py`), and cleaning
and validating, which are the same for every source (`sync/frames.py`).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow

from roster_pipeline.clever.records import Course, Record, School, Section, Term, User, UserWithoutEmail
from roster_pipeline.source.vocabulary import Collection

STRING = pyarrow.string()


def flatten(collection: Collection, records: Sequence[Record]) -> pyarrow.Table:
    """The columns of the resource's contract, one row per record, as Clever sent them: not cleaned, not validated."""
    return pyarrow.table(_FLATTEN[collection.resource](records))


def _column(values: Sequence[str | None]) -> pyarrow.Array:
    return pyarrow.array(values, STRING)


def array_literal(ids: Sequence[str] | None) -> str | None:
    """Ids as a PostgreSQL array literal: {"a","b"}. None stays None."""
    if ids is None:
        return None
    if not ids:
        return "{}"
    joined = '","'.join(ids)
    if "\\" in joined or joined.count('"') != 2 * (len(ids) - 1):
        joined = '","'.join(each.replace("\\", "\\\\").replace('"', '\\"') for each in ids)
    return f'{{"{joined}"}}'.replace("\x00", "")


def _named(records: Sequence[Any]) -> dict[str, pyarrow.Array]:
    return {"clever_id": _column([each.id for each in records]), "name": _column([each.name for each in records])}


def _schools(records: Sequence[School]) -> dict[str, pyarrow.Array]:
    return _named(records) | {"last_modified": _column([each.last_modified for each in records])}


def _terms(records: Sequence[Term]) -> dict[str, pyarrow.Array]:
    return _named(records) | {
        "start_date": _column([each.start_date for each in records]),
        "end_date": _column([each.end_date for each in records]),
    }


def _courses(records: Sequence[Course]) -> dict[str, pyarrow.Array]:
    return _named(records) | {"number": _column([each.number for each in records])}


def _sections(records: Sequence[Section]) -> dict[str, pyarrow.Array]:
    return _named(records) | {
        "school": _column([each.school for each in records]),
        "course": _column([each.course for each in records]),
        "term": _column([each.term_id for each in records]),
        "students": _column([array_literal(each.students) for each in records]),
        "teachers": _column([array_literal(each.teachers) for each in records]),
        "last_modified": _column([each.last_modified for each in records]),
    }


def _users(records: Sequence[User | UserWithoutEmail]) -> dict[str, pyarrow.Array]:
    students = [each.roles.student for each in records]
    teachers = [each.roles.teacher for each in records]
    staff = [each.roles.staff for each in records]
    roles = list(zip(students, teachers, staff, strict=True))
    # A value comes from the first role that has one: student, then teacher, then staff.
    usernames = [_given([role.credentials.district_username for role in held if role]) for held in roles]
    return {
        "clever_id": _column([each.id for each in records]),
        **{f"{part}_name": _column([_name(each, part) for each in records]) for part in ("first", "middle", "last")},
        "email": _column([getattr(each, "email", None) for each in records]),
        "username": _column(usernames),
        "sis_id": _column([_given([role.sis_id for role in (s, t) if role]) for s, t, _ in roles]),
        "state_id": _column([_given([role.state_id for role in (s, t) if role]) for s, t, _ in roles]),
        "student_number": _column([s.student_number if s else None for s in students]),
        "grade": _column([s.grade if s else None for s in students]),
        "school": _column([(s and s.school) or (t and t.school) or None for s, t, _ in roles]),
        "student_schools": _column([array_literal(s.all_schools) if s else None for s in students]),
        "teacher_schools": _column([array_literal(t.all_schools) if t else None for t in teachers]),
        "staff_schools": _column([array_literal(s.all_schools) if s else None for s in staff]),
        "is_district_admin": pyarrow.array([each.roles.district_admin is not None for each in records], pyarrow.bool_()),
        "last_modified": _column([each.last_modified for each in records]),
    }


def _name(record: UserWithoutEmail, part: str) -> str | None:
    """One part of the name: the preferred one, if it was decoded and is not blank, else the legal one."""
    preferred = getattr(record.roles.student, "preferred_name", None)
    legal: str | None = getattr(record.name, part)
    return legal if preferred is None else _given([getattr(preferred, part)]) or legal


def _given(values: Iterable[str | None]) -> str | None:
    """The first value that is not blank."""
    return next((value for value in values if value and not value.isspace()), None)


_FLATTEN: dict[str, Callable[[Any], dict[str, pyarrow.Array]]] = {
    "schools": _schools,
    "terms": _terms,
    "courses": _courses,
    "sections": _sections,
    "users": _users,
}
