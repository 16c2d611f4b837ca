"""The list of quarantine rules is complete: whatever can be wrong with a record has its rule there (R4.9)."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from sqlglot import exp

from roster_pipeline.clever.columns import flatten
from roster_pipeline.clever.decode import CollectionDecoder, SingleBody, _fields, _require_rules, parse_district
from roster_pipeline.clever.records import District, Wire, record_type
from roster_pipeline.database.engine import Database, psycopg_connection
from roster_pipeline.database.models import SQL
from roster_pipeline.source.rules import UnknownRuleError, check_listed, finding, rule, rules
from roster_pipeline.source.vocabulary import Collection, Finding
from roster_pipeline.sync.frames import frame_of
from roster_pipeline.sync.landing import Landing
from roster_pipeline.sync.run import project_models

HERE = "5a0c91b95c7cc000010d417c"
_BASE = {"id": "x", "district": HERE, "last_modified": "2026-01-01T00:00:00Z"}
_NAME = {"first": "Ada", "middle": "M", "last": "Byron"}
_ROLE = {
    "school": "s1",
    "schools": ["s1"],
    "sis_id": "1",
    "state_id": "2",
    "student_number": "3",
    "grade": "4",
    "credentials": {"district_username": "ada"},
}
_USER = _BASE | {
    "name": _NAME,
    "email": "a@b.example",
    "roles": {"student": _ROLE, "teacher": _ROLE, "staff": {"schools": ["s1"], "credentials": _ROLE["credentials"]}, "district_admin": {}},
}
# One record of each resource, with every field that is read.
WHOLE: dict[str, dict[str, Any]] = {
    "districts": {"id": HERE, "name": "D", "state": "running", "last_sync": "2026-01-01T00:00:00Z"},
    "schools": _BASE | {"name": "S"},
    "terms": _BASE | {"name": "T", "start_date": "2026-01-01", "end_date": "2026-06-30"},
    "courses": _BASE | {"name": "C", "number": "1"},
    "sections": _BASE
    | {"school": "s1", "name": "S", "course": "c1", "term_id": "t1", "students": ["p1"], "teachers": ["p2"], "teacher": "p2"},
    "users": _USER,
}
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.sampled_from(["", " ", "\x00", "2025-02-30", "a" * 300]),
)
ODD = st.one_of(
    _SCALARS, st.lists(_SCALARS, max_size=2), st.dictionaries(st.sampled_from(["id", "first", "schools", "x"]), _SCALARS, max_size=2)
)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every value in a record, the record itself first."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(inner, (*path, key))


def replaced(record: dict[str, Any], path: tuple[str | int, ...], value: Any) -> Any:
    """The record with another value there."""
    if not path:
        return value
    changed = copy.deepcopy(record)
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


def types(shape: type[Wire]) -> Iterator[str]:
    """The column of every field that can have the wrong type, at every depth."""
    for field in _fields(shape):
        if field.name != "id":
            yield field.column
        if field.nested:
            yield from types(field.nested)


@st.composite
def odd_records(draw: st.DrawFn) -> tuple[Collection, Any]:
    """A record with one or two odd values, anywhere in it, and the collection that it comes in."""
    collection = draw(st.sampled_from(Collection))
    record: Any = WHOLE[collection.resource]
    for _ in range(draw(st.integers(1, 2))):
        record = replaced(record, draw(st.sampled_from(list(paths(record)))), draw(ODD))
    return collection, record


@given(odd=odd_records(), keep_student_email=st.booleans())
@settings(max_examples=400, deadline=None)
def test_whatever_is_wrong_with_a_record_has_its_rule(odd: tuple[Collection, Any], keep_student_email: bool) -> None:
    """R4.9: values of every JSON type at every field of every collection."""
    collection, record = odd
    page = CollectionDecoder(collection, HERE, keep_student_email=keep_student_email).decode(Raw(json.dumps([{"data": record}]).encode()))
    for each in frame_of(collection, flatten(collection, page.records), page.findings).findings:
        check_listed(collection.resource, each)


def test_every_field_has_the_rule_of_its_type_and_no_other_has() -> None:
    """R4.9: the list names the fields that are read of each object, at every depth: a rule that nothing can break is not in it."""
    shapes = [("districts", District), *((each.resource, record_type(each, keep_student_email=True)) for each in Collection)]
    read = {(resource, f"{column}_type") for resource, shape in shapes for column in types(shape)}
    assert read == {(each.resource, each.name) for each in rules().values() if each.name.endswith("_type")}


def test_a_decoder_whose_fields_have_no_rule_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """R4.9: not found by the first odd record of a night, but before the first page."""
    listed = {key: each for key, each in rules().items() if key != ("users", "grade_type")}
    monkeypatch.setattr("roster_pipeline.source.rules.rules", lambda: listed)
    _require_rules.cache_clear()
    with pytest.raises(UnknownRuleError, match=r"users\.grade_type"):
        CollectionDecoder(Collection.STUDENTS, HERE, keep_student_email=True)
    _require_rules.cache_clear()


@pytest.mark.parametrize(
    "found", [Finding("x", "nickname_type", "warn"), Finding("x", "name_type", "warn")], ids=["no such rule", "another severity"]
)
def test_an_unlisted_finding_is_not_written(database: Database, found: Finding) -> None:
    """R4.9: whichever source it comes from."""
    with database.engine.connect() as connection:
        landing = Landing(psycopg_connection(connection))
        with pytest.raises(UnknownRuleError, match="users"):
            landing._findings("users", [found])
    with pytest.raises(UnknownRuleError):
        finding("users", "x", "nickname_type")


def test_what_the_database_finds_is_listed_with_its_audit() -> None:
    """R4.9: the rules that SQL writes to ops.quarantine by name, each with an audit of the same severity, which is its check and alert."""
    statement = sqlglot.parse_one((SQL / "ops" / "quarantine.sql").read_text(), read="postgres")
    literals = [
        [each.this if isinstance(each, exp.Literal) else None for each in select.expressions] for select in statement.find_all(exp.Select)
    ]
    written = {(resource, name, severity) for *_, resource, _, name, severity in literals if name is not None}
    assert written
    audits = {audit.table: audit for audit in project_models().of("audits")}
    by_audit = {each for each in rules().values() if each.audit is not None}
    assert {(each.resource, each.name, each.severity) for each in by_audit} == written
    assert all(audits[str(each.audit)].severity == each.severity for each in by_audit)


def test_every_rule_has_a_text() -> None:
    """R4.9: a sentence that says what happens to the record, for the terminal and for Dagster."""
    for each in rules().values():
        assert each.description.endswith("."), each
        assert rule(each.resource, each.name) is each


def test_the_district_object_is_read_without_its_broken_values() -> None:
    """R4.2: an optional value of the wrong type is dropped."""
    for path in paths(WHOLE["districts"]):
        for odd in (None, 5, {}, [], True):
            if path and path != ("id",):
                record = replaced(WHOLE["districts"], path, odd)
                assert parse_district(SingleBody(Raw(json.dumps(record).encode()))) is not None
