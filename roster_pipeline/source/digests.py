"""Which records of a pull are, byte for byte, records of the last accepted snapshot. Those are neither decoded nor validated again.

Belongs here: digests of raw records, and their comparison page by page; memory grows by some bytes per record. Does not belong here: where
digests are stored, and how a seen record is restored (`sync/restore.py`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from roster_pipeline.source.vocabulary import Collection

DIGEST_BYTES = 16
# A digest as two numbers, which numpy sorts and searches fast.
_HALVES = np.dtype(">u8")


class FilteredPage(NamedTuple):
    """One page, compared with the last accepted snapshot.

    Attributes:
        unseen: offsets on the page of the unseen records.
        digests: the digests of all records of the page.
        position: the position of the page's first record in the pull of its resource. The other records follow.
    """

    unseen: list[int]
    digests: list[bytes]
    position: int


class Seen(NamedTuple):
    """Seen records of one page: their digests, and their positions in the pull of their resource."""

    digests: list[bytes]
    positions: list[int]


def bit_of(collection: Collection) -> int:
    """The bit that says that a person has the role of this collection of users."""
    return 1 << [each for each in Collection if each.role].index(collection)


class _SortedDigests:
    """The digests of one resource in the last accepted snapshot, sorted by their first half, each with the roles of the record if known."""

    def __init__(self, digests: bytes, roles: bytes = b"") -> None:
        halves = np.frombuffer(digests, _HALVES).astype(np.uint64).reshape(-1, 2)
        order = np.argsort(halves[:, 0], kind="stable")
        halves = halves[order]
        self.high, self.low = np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])
        self.roles = np.frombuffer(roles, np.uint8)[order] if roles else None

    def places_in(self, collection: Collection, digests: bytes) -> NDArray[np.int64]:
        """The place of each of these digests in the sorted list; -1 if it is not in it, or if its record lacks the role of the collection:
        such a person is no seen record there, because the roles that were asked for cannot be read (R4.7).
        """
        places = self.places(digests)
        if self.roles is None or not places.size:
            return places
        return np.where((places >= 0) & (self.roles[places] & bit_of(collection) != 0), places, -1)

    def places(self, digests: bytes) -> NDArray[np.int64]:
        """The place of each of these digests in the sorted list; -1 if it is not in it."""
        halves = np.frombuffer(digests, _HALVES).astype(np.uint64).reshape(-1, 2)
        if not self.high.size:
            return np.full(len(halves), -1, dtype=np.int64)
        places = np.minimum(np.searchsorted(self.high, halves[:, 0]), self.high.size - 1)
        is_known = (self.high[places] == halves[:, 0]) & (self.low[places] == halves[:, 1])
        return np.where(is_known, places, -1)

    def digests(self, places: NDArray[np.int64]) -> list[bytes]:
        """The digests at these places of the sorted list."""
        joined = np.column_stack((self.high[places], self.low[places])).astype(_HALVES).tobytes()
        return [joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES)]


class SnapshotIndex:
    """The digests of a district's last accepted snapshot, and which of its records the current pull has seen. One per pull.

    Args:
        key: at most 16 bytes that go into every digest. It identifies everything that decides what a record becomes, so digests made with
            another key never match.
        digests: the digests of each resource, joined.
        sizes: how many records of each collection the snapshot has, with those without a digest.
        roles: for each digest of `users`, one byte with the roles that the record has (`bit_of`).

    Attributes:
        sizes: as given. A collection that is not in it has none.
    """

    def __init__(
        self,
        key: bytes = b"",
        digests: Mapping[str, bytes] | None = None,
        sizes: Mapping[Collection, int] | None = None,
        roles: bytes = b"",
    ) -> None:
        self._key = key
        self.sizes = sizes or {}
        self._snapshot = {
            resource: _SortedDigests(joined, roles if resource == "users" else b"") for resource, joined in (digests or {}).items()
        }
        self._nothing = _SortedDigests(b"")
        self._next_position: Counter[str] = Counter()
        # For each page with seen records: their places in the sorted digests, and their positions in the pull.
        self._seen: dict[Collection, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
        self._is_seen: dict[Collection, NDArray[np.bool_]] = {}
        self._everything = blake2b(person=key)

    def filter_page(self, collection: Collection, items: Sequence[Raw]) -> FilteredPage:
        """Find the unseen records of one page. Call it for every page, in the order of the pull.

        If a collection has the same record twice, only the first one counts as seen.
        """
        digests = [blake2b(item, digest_size=DIGEST_BYTES, person=self._key).digest() for item in items]
        joined = b"".join(digests)
        # With the length, the hash distinguishes the same records in other collections or pages.
        self._everything.update(f"{collection}:{len(items)}:".encode() + joined)
        position = self._next_position[collection.resource]
        # Plus one: the records of this page that cannot be decoded share the position after its last record.
        self._next_position[collection.resource] += len(items) + 1
        snapshot = self._snapshot.get(collection.resource, self._nothing)
        places = snapshot.places_in(collection, joined)
        found = np.flatnonzero(places >= 0)
        if found.size:
            is_seen = self._is_seen.setdefault(collection, np.zeros(snapshot.high.size, dtype=np.bool_))
            _, firsts = np.unique(places[found], return_index=True)
            found = found[np.sort(firsts)]
            found = found[~is_seen[places[found]]]
            is_seen[places[found]] = True
            self._seen.setdefault(collection, []).append((places[found], found + position))
        is_unseen = np.ones(len(items), dtype=np.bool_)
        is_unseen[found] = False
        return FilteredPage(np.flatnonzero(is_unseen).tolist(), digests, position)

    def count_seen(self, collection: Collection) -> int:
        """The number of seen records of the collection."""
        return sum(len(places) for places, _ in self._seen.get(collection, ()))

    def seen(self, collection: Collection, among: bytes | None = None) -> Iterator[Seen]:
        """The seen records of the collection, page by page. With `among` (joined digests), only those that are among these."""
        snapshot = self._snapshot.get(collection.resource, self._nothing)
        is_requested = np.full(snapshot.high.size, among is None)
        if among is not None:
            places = snapshot.places(among)
            is_requested[places[places >= 0]] = True
        for places, positions in self._seen.get(collection, ()):
            chosen = is_requested[places]
            if chosen.any():
                yield Seen(snapshot.digests(places[chosen]), positions[chosen].tolist())

    def first_seen(self, collection: Collection) -> list[bytes]:
        """The digest of the first seen record of the collection; empty if there is none."""
        snapshot = self._snapshot.get(collection.resource, self._nothing)
        return [snapshot.digests(places[:1])[0] for places, _ in self._seen.get(collection, [])[:1]]

    def missing(self, resource: str) -> list[bytes]:
        """The digests of the last snapshot that no collection of the pull had: Clever has removed or changed these records."""
        snapshot = self._snapshot.get(resource, self._nothing)
        is_seen = np.zeros(snapshot.high.size, dtype=np.bool_)
        for collection, seen in self._is_seen.items():
            if collection.resource == resource:
                is_seen |= seen
        return snapshot.digests(np.flatnonzero(~is_seen))

    @property
    def fingerprint(self) -> str:
        """The hash of the whole pull. It is equal for the same records in the same order and pages, and for nothing else."""
        return self._everything.hexdigest()
