"""PostgreSQL is never the one that refuses what came over the wire (R4.9): odd values of every JSON type at every field of every object."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from roster_pipeline.clever.decode import CollectionDecoder, ListBody, SingleBody, parse_body, parse_district
from roster_pipeline.clever.pull import Page
from roster_pipeline.database.engine import Database
from roster_pipeline.database.tables import APPLIED
from roster_pipeline.districts.agreement import District
from roster_pipeline.source.protocol import OnListing, SourceDistrict
from roster_pipeline.source.vocabulary import Collection
from roster_pipeline.sync.run import SyncReport, SyncRequest, run_sync
from roster_pipeline_tests.reference.driver import SETTINGS, LiveDistrict, RecordedPull
from roster_pipeline_tests.reference.rows import Snapshot
from roster_pipeline_tests.source.odd import NASTY, WHOLE, odd_records, paths, replaced

Records = dict[Collection, list[Any]]


class OddPull(RecordedPull):
    """Answers with these records. The types of most of them may be wrong, and no collection is refused for that."""

    def __init__(self, district: District, records: Records, about: Any) -> None:
        super().__init__(Snapshot([], [], []), 50, district)
        self._records = records
        self._about = {**about, "id": self._clever_id} if isinstance(about, dict) else {"id": self._clever_id}

    def district(self) -> SourceDistrict:
        body = parse_body(json.dumps({"data": self._about}).encode(), SingleBody)
        found = parse_district(body)
        assert found is not None
        return found

    def pages(self, collection: Collection) -> Iterator[Page]:
        decoder = CollectionDecoder(collection, self._clever_id, keep_student_email=True, index=self.index)
        items = [{"data": self._ours(each)} for each in self._records.get(collection, [])]
        for number, start in enumerate(range(0, len(items), self._page_size), 1):
            body = json.dumps({"data": items[start : start + self._page_size], "links": []})
            yield Page(collection, number, decoder.decode(parse_body(body.encode(), ListBody).data))

    def _ours(self, record: Any) -> Any:
        return record | {"district": self._clever_id} if isinstance(record, dict) and record.get("district") == OURS else record


OURS = WHOLE["schools"]["district"]


def sync(live: LiveDistrict, records: Records, about: Any = WHOLE["districts"]) -> SyncReport:
    def opened(_settings: Any, district: District, _on_listing: OnListing) -> OddPull:
        return OddPull(district, records, about)

    now = live.clock.tick()
    return run_sync(live.database, SETTINGS, SyncRequest(live.clever_id), open_source=opened, clock=lambda _: now)


def numbered(collection: Collection, records: Sequence[Any]) -> list[Any]:
    """Each record under an id of its own, if the odd value is not in the place of the id."""
    prefix = {"schools": "s", "sections": "c"}.get(collection, collection.value)
    return [
        each | {"id": f"{prefix}{number}"} if isinstance(each, dict) and each.get("id") == "x" else each
        for number, each in enumerate(records, 1)
    ]


@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_the_database_refuses_nothing_that_came_over_the_wire(database: Database, data: st.DataObject) -> None:
    """R4.2, R4.9: through the decoder, the landing, the models and the tables of the application, twice."""
    live = LiveDistrict.sign_up(database, "twig_science")
    for _ in range(2):
        records = {each: numbered(each, data.draw(st.lists(odd_records(WHOLE[each.resource]), max_size=12))) for each in Collection}
        for each, odd in records.items():
            odd.insert(0, WHOLE[each.resource] | {"id": {"schools": "s1", "sections": "c1"}.get(each, f"p-{each}")})
        report = sync(live, records, data.draw(odd_records(WHOLE["districts"])))
        assert report.status in APPLIED


def test_every_odd_value_at_every_field(database: Database) -> None:
    """R4.2, R4.9: each value of the list in the place of each value of each record. Whatever is dropped is counted."""
    live = LiveDistrict.sign_up(database, "twig_science")
    for collection in Collection:
        whole = WHOLE[collection.resource]
        ways = [path for path in paths(whole) if path]
        odd = [replaced(whole, path, value) for path in ways for value in NASTY]
        report = sync(live, {Collection.SCHOOLS: [WHOLE["schools"] | {"id": "s1"}], collection: numbered(collection, odd)})
        assert report.status in APPLIED
        assert sum(report.counts["findings"].values()) > len(ways)
    for value in NASTY[::5]:
        about = WHOLE["districts"] | dict.fromkeys(("name", "state", "last_sync"), value)
        assert sync(live, {}, about).status in APPLIED


@pytest.mark.parametrize(
    ("value", "staged"),
    [
        ("2026-08-17", "2026-08-17"),
        ("2026-08-17T23:30:00-07:00", "2026-08-17"),
        ("9999-12-31", "9999-12-31"),
        ("2025", None),
        ("2025-01", None),
        ("2025-02-30", None),
        ("infinity", None),
        (20260817, None),
    ],
)
def test_a_date_is_parsed_and_staged_or_dropped_and_counted(database: Database, value: Any, staged: str | None) -> None:
    """R4.2, R4.9: a term's day is the one that is written, whatever the zone."""
    live = LiveDistrict.sign_up(database)
    report = sync(live, {Collection.TERMS: [WHOLE["terms"] | {"start_date": value}]})
    (term,) = live.execute("select start_date, end_date from staging.terms where district_id = :district")
    assert (str(term["start_date"] or "") or None, str(term["end_date"])) == (staged, "2026-06-30")
    found = {} if staged else {"terms.start_date_type" if isinstance(value, int) else "terms.start_date_format": 1}
    assert report.counts["findings"] == found


@pytest.mark.parametrize(
    ("value", "staged"),
    [
        ("2026-01-01T00:00:00.000Z", "2026-01-01 00:00:00+00:00"),
        ("2026-01-01T00:00:00+23:59", "2025-12-31 00:01:00+00:00"),
        ("2026-01-01T05:00:00+05:00", "2026-01-01 00:00:00+00:00"),
        ("2026-01-01", "2026-01-01 00:00:00+00:00"),
        ("0001-01-01T00:00:00+14:00", None),
        ("2026-01-01T10", None),
    ],
)
def test_a_time_is_parsed_and_staged_or_dropped_and_counted(database: Database, value: str, staged: str | None) -> None:
    """R4.2, R4.9: of records and of the district object; in UTC, whatever the zone it was written in."""
    live = LiveDistrict.sign_up(database)
    report = sync(live, {Collection.SCHOOLS: [WHOLE["schools"] | {"last_modified": value}]}, WHOLE["districts"] | {"last_sync": value})
    (school,) = live.execute("select last_modified as at from staging.schools where district_id = :district")
    (district,) = live.execute("select last_sync as at from staging.districts where district_id = :district")
    assert [school["at"] and str(school["at"]), district["at"] and str(district["at"])] == [staged, staged]
    found = {} if staged else {"districts.last_sync_format": 1, "schools.last_modified_format": 1}
    assert report.counts["findings"] == found


def test_an_id_that_is_none_is_not_repeated(database: Database) -> None:
    """SPEC 12, R4.9: in the place of an id can be anything, a name too, and more than an index of PostgreSQL takes."""
    live = LiveDistrict.sign_up(database)
    odd = [WHOLE["schools"] | {"id": each, "name": 5} for each in ("Jane Doe", "x" * 100_000, "a\x00b")]
    report = sync(live, {Collection.SCHOOLS: [WHOLE["schools"], WHOLE["schools"] | {"id": "y"}, WHOLE["schools"] | {"id": "z"}, *odd]})
    assert sorted(row[1:] for row in live.quarantine(report.sync_id)) == [("", "name_type", "error"), ("ab", "name_type", "error")]
    assert report.counts["findings"] == {"schools.name_type": 3}


def test_the_list_of_odd_values_has_every_json_type() -> None:
    """A type that is missing there would not be tested."""
    assert {type(each) for each in NASTY} == {str, int, float, bool, type(None)}
    assert Raw(json.dumps(NASTY).encode())
