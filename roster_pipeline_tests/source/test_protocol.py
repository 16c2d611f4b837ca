"""Every roster source follows the protocol (`source/protocol.py`): Clever, and the recorded snapshots of the tests.

Add a new source to SOURCES. Does not belong here: what one source does on the wire (`clever/`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow
import pytest

from roster_pipeline import contracts
from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import Agreement, District, find_district, record_agreement
from roster_pipeline.sandbox import Sandbox, SandboxServer, generate_district
from roster_pipeline.settings import Settings
from roster_pipeline.source.digests import SnapshotIndex
from roster_pipeline.source.protocol import Listing, OnListing, RosterSource, SourcePage
from roster_pipeline.source.vocabulary import Collection
from roster_pipeline.sync.frames import frame_of
from roster_pipeline.sync.sources import open_clever
from roster_pipeline_tests.reference.driver import recorded
from roster_pipeline_tests.sync.clever import clever, school, section, student, teacher

Open = Callable[[OnListing], RosterSource]


def ignore(_listing: Listing) -> None:
    """For tests that are not about listings."""


@pytest.fixture
def agree(database: Database) -> Callable[[str], District]:
    """Records an agreement with a district and returns it."""

    def make(clever_id: str) -> District:
        with database.engine.begin() as connection:
            record_agreement(connection, Agreement(clever_id, "District", "typing_agent", "d.example"))
            return find_district(connection, clever_id)

    return make


@contextmanager
def at_clever(agree: Callable[[str], District]) -> Iterator[Open]:
    sandbox = Sandbox(generate_district(1, 30))
    with SandboxServer(sandbox) as server:
        settings = Settings(
            _env_file=None,
            clever_api_url=server.url,
            clever_auth_url=server.url,
            clever_client_id=sandbox.client_id,
            clever_client_secret=sandbox.client_secret,
            clever_page_limit=10,
        )
        district = agree(sandbox.district().id)
        yield lambda on_listing: open_clever(settings, district, on_listing)


@contextmanager
def in_a_recording(agree: Callable[[str], District]) -> Iterator[Open]:
    people = [student(f"p{number}", f"name{number}") for number in range(5)]
    snapshot = clever(school("s2", "South"), section("c1", ["p1", "p2"], ["t1"]), *people, teacher("t1"))
    settings, district = Settings(_env_file=None), agree("recorded")
    yield lambda on_listing: recorded(snapshot, page_size=2)(settings, district, on_listing)


SOURCES = {"clever": at_clever, "recording": in_a_recording}


@pytest.fixture(params=SOURCES.values(), ids=list(SOURCES))
def open_source(request: pytest.FixtureRequest, agree: Callable[[str], District]) -> Iterator[Open]:
    """Opens the same district as often as a test asks."""
    with request.param(agree) as opened:
        yield opened


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


def test_the_code_of_a_source_is_named(open_source: Open) -> None:
    """After a release that changes what a record becomes, every record is read again. So the files that decide it have to exist."""
    code = open_source(ignore).code
    assert code
    assert all(file.suffix == ".py" and file.is_file() for file in code)


def test_clever_reports_its_listing_once(agree: Callable[[str], District]) -> None:
    """R11.7: which districts are connected, without their tokens."""
    listings: list[Listing] = []
    with at_clever(agree) as opened, opened(listings.append) as source:
        assert [listing.district_ids for listing in listings] == [{source.district().id}]
    assert len(listings) == 1
