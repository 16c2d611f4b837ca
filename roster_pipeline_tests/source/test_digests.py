"""What a pull knows again, against plain sets of bytes; and what the decoder leaves out because of it.

Does not belong here: how known records come back (`sync/test_recall.py`).
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
from roster_pipeline.source.digests import DIGEST_BYTES, Memory, Seen
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
    return Memory(key).sift(Collection.SCHOOLS, [raw(record)]).digests[0]


def joined(pages: Iterable[Seen]) -> Seen:
    digests, arrivals = [], []
    for each in pages:
        digests += each.digests
        arrivals += each.arrivals
    return Seen(digests, arrivals)


def sift(memory: Memory, pages: Pages) -> Memory:
    for collection, records in pages:
        memory.sift(collection, [raw(each) for each in records])
    return memory


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(pages=PAGES, users=st.sets(RECORDS), schools=st.sets(RECORDS), among=st.sets(RECORDS))
def test_what_is_known_is_found_wherever_it_comes(pages: Pages, users: set[int], schools: set[int], among: set[int]) -> None:
    """One sift per page, as a set of records per resource and one of those met per collection would have it."""
    known = {"users": users, "schools": schools}
    memory = Memory(KEY, {resource: b"".join(map(digest, records)) for resource, records in known.items()})
    met: dict[Collection, dict[int, int]] = {}
    arrived = Counter[str]()
    for collection, records in pages:
        sifted = memory.sift(collection, [raw(each) for each in records])
        expected = []
        for position, record in enumerate(records):
            ours = met.setdefault(collection, {})
            if record in known[collection.resource] and record not in ours:
                ours[record] = arrived[collection.resource] + position
            else:
                expected.append(position)
        assert (sifted.fresh, sifted.arrival) == (expected, arrived[collection.resource])
        assert sifted.digests == [digest(each) for each in records]
        arrived[collection.resource] += len(records) + 1
    for collection in Collection:
        ours = met.get(collection, {})
        assert memory.known(collection) == len(ours)
        assert joined(memory.seen(collection)) == Seen([digest(each) for each in ours], list(ours.values()))
        chosen = {each: place for each, place in ours.items() if each in among}
        assert joined(memory.seen(collection, b"".join(map(digest, among)))) == Seen(
            [digest(each) for each in chosen], list(chosen.values())
        )
        first = memory.first_seen(collection)
        assert len(first) == bool(ours)
        assert set(first) <= {digest(each) for each in ours}
    for resource, all_known in known.items():
        left = all_known.difference(*(ours for collection, ours in met.items() if collection.resource == resource))
        assert sorted(memory.unmet(resource)) == sorted(map(digest, left))


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(data=st.data(), known=st.sets(RECORDS))
def test_the_fingerprint_is_of_everything_that_was_sifted(data: st.DataObject, known: set[int]) -> None:
    """The same records in the same order and pages, and nothing else; whatever of it was known."""
    pages = data.draw(PAGES)
    others = data.draw(st.one_of(st.just(pages), st.permutations(pages), PAGES))
    one = sift(Memory(KEY, {"users": b"".join(map(digest, known))}), pages)
    other = sift(Memory(KEY), others)
    assert (one.fingerprint == other.fingerprint) == (pages == others)
    assert one.fingerprint != sift(Memory(b"another"), pages).fingerprint


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
    assert sift(Memory(), others).fingerprint != sift(Memory(), [(Collection.STUDENTS, [1, 2])]).fingerprint


def test_another_key_knows_nothing() -> None:
    """A key stands for what records are made into: not even the same bytes are known under another one."""
    records = [raw(each) for each in range(9)]
    known = {"schools": b"".join(Memory(KEY).sift(Collection.SCHOOLS, records).digests)}
    assert Memory(KEY, known).sift(Collection.SCHOOLS, records).fresh == []
    other = Memory(b"another", known)
    assert other.sift(Collection.SCHOOLS, records).fresh == list(range(9))
    assert other.known(Collection.SCHOOLS) == 0


def test_what_is_known_of_one_resource_is_not_known_of_another() -> None:
    """But of every collection of its own."""
    memory = Memory(KEY, {"users": digest(1)})
    assert memory.sift(Collection.SCHOOLS, [raw(1)]).fresh == [0]
    assert [memory.sift(each, [raw(1)]).fresh for each in Collection if each.role] == [[]] * 4


def alike(record: int, *, last: bool) -> bytes:
    """A digest of nothing, which shares its first half with a record's, and sorts before or after it."""
    return digest(record)[:8] + (b"\xff" if last else b"\x00") * 8


@pytest.mark.parametrize("last", [False, True])
def test_digests_that_begin_alike_are_never_taken_for_one_another(*, last: bool) -> None:
    """Half a digest is what is sorted. Where two begin alike, one may count as unknown; nothing counts as what it is not."""
    neighbours = b"".join(digest(each) for each in range(2, 6))
    memory = Memory(KEY, {"schools": alike(1, last=last) + neighbours})
    assert memory.sift(Collection.SCHOOLS, [raw(1), raw(2)]).fresh == [0]
    assert joined(memory.seen(Collection.SCHOOLS)) == Seen([digest(2)], [1])

    for known in (alike(1, last=last) + digest(1), digest(1) + alike(1, last=last)):
        memory = Memory(KEY, {"schools": known + neighbours})
        fresh = memory.sift(Collection.SCHOOLS, [raw(1), raw(2)]).fresh
        assert joined(memory.seen(Collection.SCHOOLS)).digests == [digest(each) for each, at in ((1, 0), (2, 1)) if at not in fresh]
        assert 1 not in fresh


def test_digests_are_of_whole_records() -> None:
    """What Clever sends beside the fields that are kept is part of it: unknown rather than mistaken."""
    assert digest(1) == blake2b(bytes(raw(1)), digest_size=DIGEST_BYTES, person=KEY).digest()
    spaced = Memory(KEY, {"schools": digest(1)})
    assert spaced.sift(Collection.SCHOOLS, [Raw(b'{"id": 1}')]).fresh == [0]


# The decoder ------------------------------------------------------------------------------------------------------------------------------


def decoder_of(memory: Memory | None, collection: Collection = Collection.STUDENTS) -> CollectionDecoder:
    return CollectionDecoder(collection, DISTRICT, keep_student_email=True, memory=memory)


def decode(decoder: CollectionDecoder, *records: Any) -> Decoded:
    return decoder.decode(parse_body(json.dumps(page(*records)).encode(), ListBody).data)


def knowing(records: Iterable[Any], collection: Collection = Collection.STUDENTS) -> Memory:
    """A memory of records that were decoded once."""
    digests = decode(decoder_of(None, collection), *records).digests
    assert None not in digests
    return Memory(known={collection.resource: b"".join(each for each in digests if each)})


def ids(page: Decoded) -> list[str]:
    return [each.id for each in page.records]


@pytest.mark.parametrize("broken_neighbour", [False, True], ids=["whole page", "one by one"])
def test_only_what_is_unknown_is_decoded(broken_neighbour: bool) -> None:
    """With its place in the pull, which the records around it take up too."""
    people = [person(f"p{each}") for each in range(5)]
    memory = knowing([people[0], people[2], people[4]])
    decoder = decoder_of(memory)
    broken = [person("broken", email=5)] if broken_neighbour else []
    first = decode(decoder, *people[:3], *broken)
    assert ids(first) == ["p1"] + ["broken"] * broken_neighbour
    assert first.arrivals == [1] + [3] * broken_neighbour
    assert first.end == 3 + broken_neighbour
    second = decode(decoder, *people[3:], people[0])
    assert ids(second) == ["p3", "p0"]  # p0 is known once.
    assert second.arrivals == [first.end + 1, first.end + 3]
    assert memory.known(Collection.STUDENTS) == 3
    assert joined(memory.seen(Collection.STUDENTS)).arrivals == [0, 2, first.end + 2]


def test_a_page_of_known_records_is_empty() -> None:
    people = [person("p1"), person("p2")]
    assert decode(decoder_of(knowing(people)), *people) == Decoded([], [], [], [], 2)


def test_a_record_that_changed_is_unknown() -> None:
    """Also in a field that is not kept."""
    decoder = decoder_of(knowing([person("p1"), person("p2")]))
    assert ids(decode(decoder, person("p1", email="new@b.example"), person("p2", created="2026"))) == ["p1", "p2"]


def test_known_rows_are_rows() -> None:
    """R4.2: of ten rows eight are known and two have a wrong type: no change of shape. Six of ten are one, also where four are known."""
    good, bad = [school(f"s{each}") for each in range(8)], [school(f"x{each}", name=5) for each in range(6)]
    decoder = decoder_of(knowing(good, Collection.SCHOOLS), Collection.SCHOOLS)
    first, second = decode(decoder, *good[:4], *bad[:2]), decode(decoder, *good[4:])
    assert (ids(first), ids(second), len(first.findings)) == ([], [], 2)
    decoder.check_shape()

    decoder = decoder_of(knowing(good[:4], Collection.SCHOOLS), Collection.SCHOOLS)
    decode(decoder, *good[:4], *bad)
    with pytest.raises(PermanentError, match="name has an unexpected type in 6 of 10 schools"):
        decoder.check_shape()


def test_what_lost_something_has_no_digest() -> None:
    """R4.2: so that the next pull finds the same again. Its neighbours have one."""
    found = decode(decoder_of(None), person("p0"), person("p1", email=5), person("p2", name=5), person("p3"))
    assert ids(found) == ["p0", "p1", "p3"]
    assert [each is None for each in found.digests] == [False, True, False]
    assert found.arrivals == [0, 1, 3]
    assert {each.rule for each in found.findings} == {"email_type", "name_type"}


@pytest.mark.parametrize("broken_neighbour", [False, True], ids=["whole page", "one by one"])
def test_foreign_records_have_no_digest(broken_neighbour: bool) -> None:
    """R3.6: they are in no list of the page but the findings; the others keep their own digests and places."""
    sent = [person("p0"), person("x", district="another"), person("p1")] + [person("p2", email=5)] * broken_neighbour
    found = decode(decoder_of(None), *sent)
    whole = decode(decoder_of(None), sent[0]).digests + decode(decoder_of(None), sent[2]).digests
    assert ids(found) == ["p0", "p1"] + ["p2"] * broken_neighbour
    assert found.digests == whole + [None] * broken_neighbour
    assert found.arrivals == [0, 2] + [3] * broken_neighbour
    assert Finding("x", "foreign_district", "error") in found.findings
