"""Which records of a pull are seen, compared with plain sets of bytes; and that the decoder leaves them out.

Does not belong here: how seen records are restored (`sync/test_restore.py`).
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from roster_pipeline.clever.decode import CollectionDecoder, Decoded, ListBody, parse_body
from roster_pipeline.errors import PermanentError
from roster_pipeline.source.digests import DIGEST_BYTES, Seen, SnapshotIndex
from roster_pipeline.source.vocabulary import Collection, Finding
from roster_pipeline_tests.clever.scripted import DISTRICT, page, person, school

KEY = b"one district"
Pages = Sequence[tuple[Collection, Sequence[int]]]

# Two collections of one resource and one of another; few records, so that most of them come more than once.
COLLECTIONS = st.sampled_from((Collection.STUDENTS, Collection.TEACHERS, Collection.SCHOOLS))
RECORDS = st.integers(0, 5)
PAGES = st.lists(st.tuples(COLLECTIONS, st.lists(RECORDS, max_size=5)), max_size=6)


def raw(record: int) -> Raw:
    return Raw(b'{"id":%d}' % record)


def digest(record: int, key: bytes = KEY) -> bytes:
    return SnapshotIndex(key).filter_page(Collection.SCHOOLS, [raw(record)]).digests[0]


def joined(pages: Iterable[Seen]) -> Seen:
    digests, positions = [], []
    for each in pages:
        digests += each.digests
        positions += each.positions
    return Seen(digests, positions)


def filtered(index: SnapshotIndex, pages: Pages) -> SnapshotIndex:
    """The index after these pages."""
    for collection, records in pages:
        index.filter_page(collection, [raw(each) for each in records])
    return index


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(pages=PAGES, users=st.sets(RECORDS), schools=st.sets(RECORDS), among=st.sets(RECORDS))
def test_seen_records_are_found_on_every_page(pages: Pages, users: set[int], schools: set[int], among: set[int]) -> None:
    """Page by page, the same result as with one set of records per resource and one set of seen records per collection."""
    known = {"users": users, "schools": schools}
    index = SnapshotIndex(KEY, {resource: b"".join(map(digest, records)) for resource, records in known.items()})
    seen: dict[Collection, dict[int, int]] = {}
    next_position = Counter[str]()
    for collection, records in pages:
        page = index.filter_page(collection, [raw(each) for each in records])
        expected = []
        for offset, record in enumerate(records):
            ours = seen.setdefault(collection, {})
            if record in known[collection.resource] and record not in ours:
                ours[record] = next_position[collection.resource] + offset
            else:
                expected.append(offset)
        assert (page.unseen, page.position) == (expected, next_position[collection.resource])
        assert page.digests == [digest(each) for each in records]
        next_position[collection.resource] += len(records) + 1
    for collection in Collection:
        ours = seen.get(collection, {})
        assert index.count_seen(collection) == len(ours)
        assert joined(index.seen(collection)) == Seen([digest(each) for each in ours], list(ours.values()))
        chosen = {each: place for each, place in ours.items() if each in among}
        assert joined(index.seen(collection, b"".join(map(digest, among)))) == Seen(
            [digest(each) for each in chosen], list(chosen.values())
        )
        first = index.first_seen(collection)
        assert len(first) == bool(ours)
        assert set(first) <= {digest(each) for each in ours}
    for resource, all_known in known.items():
        left = all_known.difference(*(ours for collection, ours in seen.items() if collection.resource == resource))
        assert sorted(index.missing(resource)) == sorted(map(digest, left))


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(data=st.data(), known=st.sets(RECORDS))
def test_the_fingerprint_is_of_the_whole_pull(data: st.DataObject, known: set[int]) -> None:
    """It is equal only for the same records in the same order and pages, whatever the last snapshot was."""
    pages = data.draw(PAGES)
    others = data.draw(st.one_of(st.just(pages), st.permutations(pages), PAGES))
    one = filtered(SnapshotIndex(KEY, {"users": b"".join(map(digest, known))}), pages)
    other = filtered(SnapshotIndex(KEY), others)
    assert (one.fingerprint == other.fingerprint) == (pages == others)
    assert one.fingerprint != filtered(SnapshotIndex(b"another"), pages).fingerprint


@pytest.mark.parametrize(
    "others",
    [
        [(Collection.STUDENTS, [1]), (Collection.STUDENTS, [2])],
        [(Collection.STUDENTS, [2, 1])],
        [(Collection.TEACHERS, [1, 2])],
        [(Collection.STUDENTS, [1, 2, 2])],
        [(Collection.STUDENTS, [1])],
        [(Collection.STUDENTS, [1, 2]), (Collection.TEACHERS, [])],
        [],
    ],
    ids=["other pages", "other order", "other collection", "twice", "one less", "an empty page more", "nothing"],
)
def test_what_makes_another_fingerprint(others: Pages) -> None:
    assert filtered(SnapshotIndex(), others).fingerprint != filtered(SnapshotIndex(), [(Collection.STUDENTS, [1, 2])]).fingerprint


def test_digests_of_another_key_do_not_match() -> None:
    """The key identifies what records become. With another key, not even the same bytes match."""
    records = [raw(each) for each in range(9)]
    known = {"schools": b"".join(SnapshotIndex(KEY).filter_page(Collection.SCHOOLS, records).digests)}
    assert SnapshotIndex(KEY, known).filter_page(Collection.SCHOOLS, records).unseen == []
    other = SnapshotIndex(b"another", known)
    assert other.filter_page(Collection.SCHOOLS, records).unseen == list(range(9))
    assert other.count_seen(Collection.SCHOOLS) == 0


def test_a_record_is_seen_only_in_its_own_resource() -> None:
    """There, in every collection."""
    index = SnapshotIndex(KEY, {"users": digest(1)})
    assert index.filter_page(Collection.SCHOOLS, [raw(1)]).unseen == [0]
    assert [index.filter_page(each, [raw(1)]).unseen for each in Collection if each.role] == [[]] * 4


def alike(record: int, *, last: bool) -> bytes:
    """A digest of no record. It has the first half of a record's digest, and sorts before or after it."""
    return digest(record)[:8] + (b"\xff" if last else b"\x00") * 8


@pytest.mark.parametrize("last", [False, True])
def test_digests_with_the_same_first_half_are_never_confused(*, last: bool) -> None:
    """Only the first half is sorted. If two digests share it, one of them may count as unseen, but no record matches a wrong digest."""
    neighbours = b"".join(digest(each) for each in range(2, 6))
    index = SnapshotIndex(KEY, {"schools": alike(1, last=last) + neighbours})
    assert index.filter_page(Collection.SCHOOLS, [raw(1), raw(2)]).unseen == [0]
    assert joined(index.seen(Collection.SCHOOLS)) == Seen([digest(2)], [1])

    for known in (alike(1, last=last) + digest(1), digest(1) + alike(1, last=last)):
        index = SnapshotIndex(KEY, {"schools": known + neighbours})
        unseen = index.filter_page(Collection.SCHOOLS, [raw(1), raw(2)]).unseen
        assert joined(index.seen(Collection.SCHOOLS)).digests == [digest(each) for each, at in ((1, 0), (2, 1)) if at not in unseen]
        assert 1 not in unseen


def test_digests_are_of_whole_records() -> None:
    """They cover all bytes, also fields that are not decoded. Another spelling of the same record is unseen."""
    assert digest(1) == blake2b(bytes(raw(1)), digest_size=DIGEST_BYTES, person=KEY).digest()
    spaced = SnapshotIndex(KEY, {"schools": digest(1)})
    assert spaced.filter_page(Collection.SCHOOLS, [Raw(b'{"id": 1}')]).unseen == [0]


# The decoder ------------------------------------------------------------------------------------------------------------------------------


def decoder_of(index: SnapshotIndex | None, collection: Collection = Collection.STUDENTS) -> CollectionDecoder:
    return CollectionDecoder(collection, DISTRICT, keep_student_email=True, index=index)


def decode(decoder: CollectionDecoder, *records: Any) -> Decoded:
    return decoder.decode(parse_body(json.dumps(page(*records)).encode(), ListBody).data)


def index_of(records: Iterable[Any], collection: Collection = Collection.STUDENTS) -> SnapshotIndex:
    """The index of a snapshot with these records."""
    digests = decode(decoder_of(None, collection), *records).digests
    assert None not in digests
    return SnapshotIndex(digests={collection.resource: b"".join(each for each in digests if each)})


def ids(page: Decoded) -> list[str]:
    return [each.id for each in page.records]


@pytest.mark.parametrize("broken_neighbour", [False, True], ids=["whole page", "one by one"])
def test_only_unseen_records_are_decoded(broken_neighbour: bool) -> None:
    """Each with its position in the pull. Seen and broken records have positions too."""
    people = [person(f"p{each}") for each in range(5)]
    index = index_of([people[0], people[2], people[4]])
    decoder = decoder_of(index)
    broken = [person("broken", email=5)] if broken_neighbour else []
    first = decode(decoder, *people[:3], *broken)
    assert ids(first) == ["p1"] + ["broken"] * broken_neighbour
    assert first.positions == [1] + [3] * broken_neighbour
    assert first.end == 3 + broken_neighbour
    second = decode(decoder, *people[3:], people[0])
    assert ids(second) == ["p3", "p0"]  # p0 is seen only once.
    assert second.positions == [first.end + 1, first.end + 3]
    assert index.count_seen(Collection.STUDENTS) == 3
    assert joined(index.seen(Collection.STUDENTS)).positions == [0, 2, first.end + 2]


def test_a_page_of_seen_records_is_empty() -> None:
    people = [person("p1"), person("p2")]
    assert decode(decoder_of(index_of(people)), *people) == Decoded([], [], [], [], 2, 2)


def test_a_record_that_changed_is_unseen() -> None:
    """Also if only a field has changed that is not decoded."""
    decoder = decoder_of(index_of([person("p1"), person("p2")]))
    assert ids(decode(decoder, person("p1", email="new@b.example"), person("p2", created="2026"))) == ["p1", "p2"]


def test_seen_records_count_as_rows_of_the_collection() -> None:
    """R4.2: a wrong type in two of ten records is no change of shape, if the other eight are seen. In six of ten it is one."""
    good, bad = [school(f"s{each}") for each in range(8)], [school(f"x{each}", name=5) for each in range(6)]
    decoder = decoder_of(index_of(good, Collection.SCHOOLS), Collection.SCHOOLS)
    first, second = decode(decoder, *good[:4], *bad[:2]), decode(decoder, *good[4:])
    assert (ids(first), ids(second), len(first.findings)) == ([], [], 2)
    decoder.check_shape()

    decoder = decoder_of(index_of(good[:4], Collection.SCHOOLS), Collection.SCHOOLS)
    decode(decoder, *good[:4], *bad)
    with pytest.raises(PermanentError, match="name has an unexpected type in 6 of 10 schools"):
        decoder.check_shape()


def test_a_record_with_a_dropped_value_has_no_digest() -> None:
    """R4.2: so the next pull decodes it again and has the same finding. The records around it have a digest."""
    found = decode(decoder_of(None), person("p0"), person("p1", email=5), person("p2", name=5), person("p3"))
    assert ids(found) == ["p0", "p1", "p3"]
    assert [each is None for each in found.digests] == [False, True, False]
    assert found.positions == [0, 1, 3]
    assert {each.rule for each in found.findings} == {"email_type", "name_type"}


@pytest.mark.parametrize("broken_neighbour", [False, True], ids=["whole page", "one by one"])
def test_foreign_records_have_no_digest(broken_neighbour: bool) -> None:
    """R3.6: they are only in the findings. The other records of the page have their own digests and positions."""
    sent = [person("p0"), person("x", district="another"), person("p1")] + [person("p2", email=5)] * broken_neighbour
    found = decode(decoder_of(None), *sent)
    whole = decode(decoder_of(None), sent[0]).digests + decode(decoder_of(None), sent[2]).digests
    assert ids(found) == ["p0", "p1"] + ["p2"] * broken_neighbour
    assert found.digests == whole + [None] * broken_neighbour
    assert found.positions == [0, 2] + [3] * broken_neighbour
    assert Finding("x", "foreign_district", "error") in found.findings
