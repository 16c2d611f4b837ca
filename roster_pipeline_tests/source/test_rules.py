"""The list of quarantine rules is complete: whatever can be wrong with a record has its rule there (R4.9)."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from sqlglot import exp

from roster_pipeline.clever.columns import flatten
from roster_pipeline.clever.decode import CollectionDecoder, ListBody, SingleBody, _fields, _require_rules, parse_body, parse_district
from roster_pipeline.clever.pull import Page
from roster_pipeline.clever.records import District, Wire, record_type
from roster_pipeline.database.engine import Database
from roster_pipeline.database.models import SQL
from roster_pipeline.districts.agreement import District as Agreed
from roster_pipeline.source.rules import UnknownRuleError, check_listed, finding, rule, rules
from roster_pipeline.source.vocabulary import Collection, Finding
from roster_pipeline.sync.frames import frame_of
from roster_pipeline.sync.run import SyncRequest, project_models, run_sync
from roster_pipeline_tests.reference.driver import SETTINGS, LiveDistrict, RecordedPull
from roster_pipeline_tests.reference.rows import Snapshot
from roster_pipeline_tests.source.odd import HERE, WHOLE, odd_records, paths, replaced


def types(shape: type[Wire]) -> Iterator[str]:
    """The column of every field that can have the wrong type, at every depth."""
    for field in _fields(shape):
        if field.name != "id":
            yield field.column
        if field.nested:
            yield from types(field.nested)


@given(collection=st.sampled_from(Collection), keep_student_email=st.booleans(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_is_wrong_with_a_record_has_its_rule(collection: Collection, keep_student_email: bool, data: st.DataObject) -> None:
    """R4.9: values of every JSON type at every field of every collection."""
    records = data.draw(st.lists(odd_records(WHOLE[collection.resource]), min_size=1, max_size=30))
    body = parse_body(json.dumps({"data": [{"data": each} for each in records], "links": []}).encode(), ListBody)
    page = CollectionDecoder(collection, HERE, keep_student_email=keep_student_email).decode(body.data)
    for each in frame_of(collection, flatten(collection, page.records), page.findings).findings:
        check_listed(collection.resource, each)


def test_every_field_has_the_rule_of_its_type_and_no_other_has() -> None:
    """R4.9: the list names the fields that are read of each object, at every depth: a rule that nothing can break is not in it."""
    shapes = [
        ("districts", District),
        *((each.resource, record_type(each, keep_student_email=True, prefer_name=True)) for each in Collection),
    ]
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
    """R4.9: whichever source it comes from. The sync fails before it writes anything."""

    class Careless(RecordedPull):
        def pages(self, collection: Collection) -> Iterator[Page]:
            for page in super().pages(collection):
                yield replace(page, decoded=page.decoded._replace(findings=[found]))

    live = LiveDistrict.sign_up(database)
    snapshot = Snapshot([], [], [{"id": "p1", "name": {"first": "A", "last": "B"}, "roles": {"student": {"school": "s1"}}}])

    def opened(_settings: object, district: Agreed, _on_listing: object) -> RecordedPull:
        return Careless(snapshot, 10, district)

    with pytest.raises(UnknownRuleError, match="users"):
        run_sync(database, SETTINGS, SyncRequest(live.clever_id), open_source=opened)
    assert live.execute("select count(*) as rows from ops.quarantine") == [{"rows": 0}]


def test_a_finding_is_only_made_of_a_listed_rule() -> None:
    """R4.9: `finding` is how the decoder and the frames make theirs."""
    assert finding("users", "x", "grade_type") == Finding("x", "grade_type", "warn")
    with pytest.raises(UnknownRuleError, match="source/rules"):
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
        wrong: list[Any] = [None, 5, {}, [], True]
        for odd in wrong:
            if path and path != ("id",):
                record = replaced(WHOLE["districts"], path, odd)
                assert parse_district(SingleBody(Raw(json.dumps(record).encode()))) is not None
