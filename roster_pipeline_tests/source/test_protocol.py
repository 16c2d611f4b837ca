"""Every roster source follows the protocol (`source/protocol.py`): Clever, and the recorded snapshots of the tests.

Add a new source to SOURCES. Does not belong here: what one source does on the wire (`clever/`).
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow
import pytest

from roster_pipeline import contracts
from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import Agreement, District, find_district, record_agreement
from roster_pipeline.sandbox import Sandbox, SandboxServer, generate_district
from roster_pipeline.sandbox.district import Kind
from roster_pipeline.settings import Settings
from roster_pipeline.source.digests import SnapshotIndex
from roster_pipeline.source.protocol import Listing, OnListing, RosterSource, SourcePage
from roster_pipeline.source.vocabulary import Collection
from roster_pipeline.sync import sources
from roster_pipeline.sync.frames import frame_of
from roster_pipeline.sync.sources import open_clever
from roster_pipeline_tests.reference.driver import recorded
from roster_pipeline_tests.sync.clever import clever, school, section, student, teacher

Open = Callable[[OnListing], RosterSource]


class Place(NamedTuple):
    """A small district at one source.

    Attributes:
        open: opens the district, as often as a test asks.
        shared: the ids of the records that the source shares, by collection.
        remove_a_member: takes a student out of a section.
    """

    open: Open
    shared: Mapping[Collection, set[str]]
    remove_a_member: Callable[[], None]


def ignore(_listing: Listing) -> None:
    """For tests that are not about listings."""


@pytest.fixture
def agree(database: Database) -> Callable[[str], District]:
    """Records an agreement with a district and returns it. Its profile does not store a student's e-mail."""

    def make(clever_id: str) -> District:
        with database.engine.begin() as connection:
            record_agreement(connection, Agreement(clever_id, "District", "typing_agent", "d.example"))
            return find_district(connection, clever_id)

    return make


@contextmanager
def at_clever(agree: Callable[[str], District]) -> Iterator[Place]:
    sandbox = Sandbox(generate_district(1, 30))
    there = sandbox.district()
    section_id, members = next((key, found) for key in there.shared("sections") if (found := there.get("sections", key)["students"]))
    with SandboxServer(sandbox) as server:
        settings = Settings(
            _env_file=None,
            clever_api_url=server.url,
            clever_auth_url=server.url,
            clever_client_id=sandbox.client_id,
            clever_client_secret=sandbox.client_secret,
            clever_page_limit=10,
        )
        district = agree(there.id)
        yield Place(
            lambda on_listing: open_clever(settings, district, on_listing),
            {each: set(there.shared(cast("Kind", each.resource), each.role)) for each in Collection},
            lambda: sandbox.change().set_members(section_id, students=members[1:]),
        )


@contextmanager
def in_a_recording(agree: Callable[[str], District]) -> Iterator[Place]:
    students = [student(f"p{number}", f"name{number}", email=f"p{number}@d.example") for number in range(5)]
    one: dict[str, Any] = {**section("c1", ["p1", "p2"], ["t1"])}
    snapshot = clever(school("s1"), school("s2", "South"), one, *students, teacher("t1"))
    settings, district = Settings(_env_file=None), agree("recorded")
    shared = {Collection.SCHOOLS: {"s1", "s2"}, Collection.SECTIONS: {"c1"}, Collection.TEACHERS: {"t1"}}
    yield Place(
        lambda on_listing: recorded(snapshot, page_size=2)(settings, district, on_listing),
        {each: shared.get(each, set()) for each in Collection} | {Collection.STUDENTS: {each["id"] for each in students}},
        lambda: one.update(students=["p2"]),
    )


# Every `open_...` of sync/sources.py has its place here, under the name of its folder.
SOURCES = {"clever": at_clever, "recording": in_a_recording}
OPENED = {name.removeprefix("open_") for name in vars(sources) if name.startswith("open_")}


@pytest.fixture(params=SOURCES.values(), ids=list(SOURCES))
def place(request: pytest.FixtureRequest, agree: Callable[[str], District]) -> Iterator[Place]:
    """A district at each source."""
    with request.param(agree) as opened:
        yield opened


@pytest.fixture
def open_source(place: Place) -> Open:
    """Opens the same district as often as a test asks."""
    return place.open


def read(source: RosterSource) -> dict[Collection, list[SourcePage]]:
    """Every page of every collection, in the order of a pull."""
    with source:
        return {collection: list(source.pages(collection)) for collection in Collection}


def test_pages_hold_the_columns_of_their_contract(open_source: Open) -> None:
    """R4.1: all of them, and no others; each page passes the validation that a sync does."""
    pages = read(open_source(ignore))
    assert pages[Collection.STUDENTS]
    assert pages[Collection.SECTIONS]
    for collection, found in pages.items():
        columns = {column.name: column.sql_type for column in contracts.columns(collection.resource)}
        for page in found:
            table = page.columns
            assert set(table.column_names) == columns.keys()
            for name in table.column_names:
                assert table.schema.field(name).type == (pyarrow.bool_() if columns[name] == "boolean" else pyarrow.string())
            assert frame_of(collection, table, page.findings).table.num_rows >= table.num_rows


def test_every_record_has_a_digest_and_a_position(open_source: Open) -> None:
    """R3.8: within a resource, positions grow over all pages and collections, because the later of two equally new records counts."""
    last: dict[str, int] = {}
    for collection, found in read(open_source(ignore)).items():
        for page in found:
            rows = page.columns.num_rows
            assert len(page.digests) == len(page.positions) == rows
            for position in [*page.positions, page.end]:
                assert position > last.get(collection.resource, -1)
                last[collection.resource] = position


def test_records_of_the_last_snapshot_are_left_out(open_source: Open) -> None:
    """If the index has every digest, the pages have no record and every record counts as seen. Without an index, the pages have all."""
    first = open_source(ignore)
    pages = read(first)
    digests = {
        resource: b"".join(
            {digest for each, found in pages.items() if each.resource == resource for page in found for digest in page.digests if digest}
        )
        for resource in contracts.RESOURCES
    }
    again = open_source(ignore)
    again.index = SnapshotIndex(digests=digests)
    for collection, found in read(again).items():
        assert sum(len(page.digests) for page in found) == 0
        assert again.index.count_seen(collection) == sum(len(page.digests) for page in pages[collection])
    assert again.index.fingerprint == first.index.fingerprint


def test_the_district_is_the_requested_one(open_source: Open) -> None:
    """R3.7: its last_sync is read before and after the pull."""
    with open_source(ignore) as source:
        before, after = source.district(), source.district()
    assert before.id
    assert before.last_sync == after.last_sync


def test_every_shared_record_is_read(place: Place) -> None:
    """R3.2: a pull is complete. No record is left out, and none appears twice."""
    for collection, found in read(place.open(ignore)).items():
        ids = [each for page in found for each in page.columns["clever_id"].to_pylist()]
        assert sorted(ids) == sorted(place.shared[collection])


def test_a_section_with_other_members_is_another_record(place: Place) -> None:
    """R6.2: the digest of a section covers its members; otherwise a changed enrollment would count as unchanged."""

    def digests() -> set[bytes | None]:
        return {each for page in read(place.open(ignore))[Collection.SECTIONS] for each in page.digests}

    before = digests()
    place.remove_a_member()
    after = digests()
    assert len(before - after) == len(after - before) == 1


def test_a_students_email_is_not_read_where_the_profile_does_not_store_it(place: Place) -> None:
    """R3.4."""
    emails = {each for page in read(place.open(ignore))[Collection.STUDENTS] for each in page.columns["email"].to_pylist()}
    assert emails == {None}


def test_every_source_that_a_sync_can_open_is_here() -> None:
    """`sync/sources.py` has one `open_...` for each."""
    assert OPENED
    assert SOURCES.keys() >= OPENED


@pytest.mark.parametrize("name", sorted(OPENED))
def test_a_source_names_its_own_code(name: str, agree: Callable[[str], District]) -> None:
    """After a release that changes what a record becomes, every record is read again. So files of the source itself are among them."""
    with SOURCES[name](agree) as there:
        source = there.open(ignore)
    assert all(file.suffix == ".py" and file.is_file() for file in source.code)
    assert Path(inspect.getfile(type(source))).parent in {file.parent for file in source.code}


def test_clever_reports_its_listing_once(agree: Callable[[str], District]) -> None:
    """R11.7: which districts are connected, without their tokens."""
    listings: list[Listing] = []
    with at_clever(agree) as there, there.open(listings.append) as source:
        assert [listing.district_ids for listing in listings] == [{source.district().id}]
    assert len(listings) == 1
