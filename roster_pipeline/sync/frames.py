"""One page of Clever records -> one validated frame, and the findings about it.

Belongs here: flattening records into the columns of `contracts.py`, cleaning text (R4.5), and what a broken rule does to a row (R4.2).
Does not belong here: decoding (`clever/`), loading (`staging.py`). Work is by column; no loop touches a person twice.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd
import pandera.errors
import pyarrow
import pyarrow.compute as pc

from roster_pipeline import contracts
from roster_pipeline.clever.records import Course, Record, School, Section, StudentRole, TeacherRole, Term, User, UserWithoutEmail
from roster_pipeline.source.vocabulary import Collection, Finding

STRING = pyarrow.string()

# A line break or a tab becomes a space, every other control character goes (R4.5).
_BREAKS = r"\r\n|[\t\n\x0b\x0c\r\x{85}\x{2028}\x{2029}]"
_CONTROLS = r"\p{Cc}"


class Frame(NamedTuple):
    """One page, ready to load.

    table: the columns of the resource's contract plus `rejected` (bool). A rejected row has its Clever id and nothing else: it counts as
        present (R4.6).
    findings: what was broken, by Clever id and rule.
    """

    table: pyarrow.Table
    findings: list[Finding]


def frame_of(collection: Collection, records: Sequence[Record], findings: Sequence[Finding]) -> Frame:
    """Flatten, clean and validate one page.

    Args:
        collection: what was walked.
        records: the decoded records of one page.
        findings: what the decoder already found; its errors name records that are not in `records`.
    """
    table = _clean(flatten(collection, records))
    frame, broken = _validate(collection.resource, table)
    undecodable = sorted({finding.clever_id for finding in findings if finding.severity == "error" and finding.rule != "foreign_district"})
    if undecodable:
        rows = pyarrow.table({"clever_id": pyarrow.array(undecodable, STRING), "rejected": pyarrow.array([True] * len(undecodable))})
        frame = pyarrow.concat_tables([frame, rows], promote_options="default")
    return Frame(frame, [*findings, *broken])


def flatten(collection: Collection, records: Sequence[Record]) -> dict[str, pyarrow.Array]:
    """The columns of the resource's contract, as Clever sent them: not cleaned, not validated."""
    return _FLATTEN[collection.resource](records)


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
    # The first role that has a value gives it: student, then teacher, then staff.
    usernames = [_given([role.credentials.district_username for role in held if role]) for held in roles]
    return {
        "clever_id": _column([each.id for each in records]),
        "first_name": _column([each.name.first for each in records]),
        "middle_name": _column([each.name.middle for each in records]),
        "last_name": _column([each.name.last for each in records]),
        "email": _column([getattr(each, "email", None) for each in records]),
        "username": _column(usernames),
        "sis_id": _column([_given([role.sis_id for role in (s, t) if role]) for s, t, _ in roles]),
        "state_id": _column([_given([role.state_id for role in (s, t) if role]) for s, t, _ in roles]),
        "student_number": _column([s.student_number if s else None for s in students]),
        "grade": _column([s.grade if s else None for s in students]),
        "school": _column([(s and s.school) or (t and t.school) or None for s, t, _ in roles]),
        "student_schools": _column([array_literal(_schools_of(s)) for s in students]),
        "teacher_schools": _column([array_literal(_schools_of(t)) for t in teachers]),
        "staff_schools": _column([array_literal(s.schools) if s else None for s in staff]),
        "is_district_admin": pyarrow.array([each.roles.district_admin is not None for each in records], pyarrow.bool_()),
        "last_modified": _column([each.last_modified for each in records]),
    }


def _schools_of(role: StudentRole | TeacherRole | None) -> list[str] | None:
    """Every school of one role, its primary one included."""
    if role is None:
        return None
    return role.schools if role.school is None or role.school in role.schools else [*role.schools, role.school]


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


def clean_text(values: pyarrow.Array) -> pyarrow.Array:
    """Text as it is stored (R4.5): NFC, trimmed, no control characters, blank is null. Everything else a name can hold stays."""
    values = pc.replace_substring_regex(values, _BREAKS, " ")
    values = pc.replace_substring_regex(values, _CONTROLS, "")
    values = pc.utf8_trim_whitespace(pc.utf8_normalize(values, "NFC"))
    return pc.if_else(pc.equal(values, ""), pyarrow.scalar(None, STRING), values)


def _clean(columns: dict[str, pyarrow.Array]) -> pyarrow.Table:
    return pyarrow.table({name: clean_text(values) if values.type == STRING else values for name, values in columns.items()})


def _validate(resource: str, table: pyarrow.Table) -> tuple[pyarrow.Table, list[Finding]]:
    model = contracts.RESOURCES[resource]
    frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    try:
        model.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as failure:
        # Its message and its cases hold values: only the column, the rule and the row's position are taken out of it.
        cases = failure.failure_cases[["column", "check", "index"]].drop_duplicates()
    else:
        return table.append_column("rejected", pyarrow.array([False] * len(table))), []
    if cases["index"].isna().any():
        raise AssertionError(f"a frame of {resource} does not have the columns and types of its contract")
    ids = frame["clever_id"].where(frame["clever_id"].str.fullmatch(contracts.ID.strip("^$")).fillna(False)).fillna("")
    mandatory = {column.name for column in contracts.columns(resource) if not column.nullable}
    findings: list[Finding] = []
    rejected = pd.Series(False, index=frame.index, dtype=pd.ArrowDtype(pyarrow.bool_()))
    for (column, check), rows in cases.groupby(["column", "check"])["index"]:
        positions = rows.astype(int)
        is_error = column in mandatory
        rule = contracts.rule_of(column, check)
        findings += [Finding(str(each), rule, "error" if is_error else "warn") for each in ids[positions]]
        if is_error:
            rejected[positions] = True
        else:
            frame.loc[positions, column] = None
    frame["clever_id"] = ids
    frame["rejected"] = rejected
    frame.loc[rejected, [name for name in frame.columns if name not in ("clever_id", "rejected", "last_modified")]] = None
    return pyarrow.Table.from_pandas(frame, preserve_index=False), findings
