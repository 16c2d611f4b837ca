"""Which records of a pull are, byte for byte, what the last accepted snapshot was made from: those are neither decoded nor checked again.

Belongs here: digests of raw records and their comparison, page by page, in memory that grows by bytes per record. Does not belong here:
where digests are kept, and how a known record comes back (`sync/recall.py`).
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
# A digest as two numbers, which numpy sorts and searches by the thousand.
_HALVES = np.dtype(">u8")


class Sifted(NamedTuple):
    """One page's records against the known ones.

    Attributes:
        fresh: positions of those that are not known.
        digests: of all records of the page.
        arrival: the place of the page's first record in the whole pull of its resource; the others follow.
    """

    fresh: list[int]
    digests: list[bytes]
    arrival: int


class Seen(NamedTuple):
    """Known records that a page of a collection holds: their digests, and their places in the pull of their resource."""

    digests: list[bytes]
    arrivals: list[int]


class _Known:
    """The known digests of one resource, sorted."""

    def __init__(self, digests: bytes) -> None:
        halves = np.frombuffer(digests, _HALVES).astype(np.uint64).reshape(-1, 2)
        halves = halves[np.argsort(halves[:, 0], kind="stable")]
        self.high, self.low = np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])

    def places(self, digests: bytes) -> NDArray[np.int64]:
        """Where each of these is among the known ones; -1: nowhere."""
        halves = np.frombuffer(digests, _HALVES).astype(np.uint64).reshape(-1, 2)
        if not self.high.size:
            return np.full(len(halves), -1, dtype=np.int64)
        places = np.minimum(np.searchsorted(self.high, halves[:, 0]), self.high.size - 1)
        is_known = (self.high[places] == halves[:, 0]) & (self.low[places] == halves[:, 1])
        return np.where(is_known, places, -1)

    def digests(self, places: NDArray[np.int64]) -> list[bytes]:
        """Those at these places."""
        joined = np.column_stack((self.high[places], self.low[places])).astype(_HALVES).tobytes()
        return [joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES)]


class Memory:
    """What is known of one district, and what of it a pull meets. One per pull.

    Args:
        key: at most 16 bytes that go into every digest: what a record is made into depends on them. Another key knows nothing.
        known: for each resource its known digests, one after the other.
    """

    def __init__(self, key: bytes = b"", known: Mapping[str, bytes] | None = None) -> None:
        self._key = key
        self._known = {resource: _Known(digests) for resource, digests in (known or {}).items()}
        self._nothing = _Known(b"")
        self._arrived: Counter[str] = Counter()
        self._met: dict[Collection, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
        self._is_met: dict[Collection, NDArray[np.bool_]] = {}
        self._whole = blake2b(person=key)

    def sift(self, collection: Collection, items: Sequence[Raw]) -> Sifted:
        """Compare one page, in the order in which it was pulled. A record that a collection holds twice is known once."""
        digests = [blake2b(item, digest_size=DIGEST_BYTES, person=self._key).digest() for item in items]
        joined = b"".join(digests)
        # The length tells collections apart whatever they hold.
        self._whole.update(f"{collection}:{len(items)}:".encode() + joined)
        arrival = self._arrived[collection.resource]
        # One more, for what could not be read of this page.
        self._arrived[collection.resource] += len(items) + 1
        known = self._known.get(collection.resource, self._nothing)
        places = known.places(joined)
        found = np.flatnonzero(places >= 0)
        if found.size:
            is_met = self._is_met.setdefault(collection, np.zeros(known.high.size, dtype=np.bool_))
            _, firsts = np.unique(places[found], return_index=True)
            found = found[np.sort(firsts)]
            found = found[~is_met[places[found]]]
            is_met[places[found]] = True
            self._met.setdefault(collection, []).append((places[found], found + arrival))
        is_fresh = np.ones(len(items), dtype=np.bool_)
        is_fresh[found] = False
        return Sifted(np.flatnonzero(is_fresh).tolist(), digests, arrival)

    def known(self, collection: Collection) -> int:
        """How many records of the collection were known."""
        return sum(len(places) for places, _ in self._met.get(collection, ()))

    def seen(self, collection: Collection, among: bytes | None = None) -> Iterator[Seen]:
        """The known records of the collection, page by page; where digests are given, one after the other, only those of them."""
        known = self._known.get(collection.resource, self._nothing)
        is_asked_for = np.full(known.high.size, among is None)
        if among is not None:
            places = known.places(among)
            is_asked_for[places[places >= 0]] = True
        for places, places_in_pull in self._met.get(collection, ()):
            chosen = is_asked_for[places]
            if chosen.any():
                yield Seen(known.digests(places[chosen]), places_in_pull[chosen].tolist())

    def first_seen(self, collection: Collection) -> list[bytes]:
        """The digest of one known record of the collection, if there is any."""
        known = self._known.get(collection.resource, self._nothing)
        return [known.digests(places[:1])[0] for places, _ in self._met.get(collection, [])[:1]]

    def unmet(self, resource: str) -> list[bytes]:
        """The digests of known records that no collection held: Clever has them no more, or has other ones in their place."""
        known = self._known.get(resource, self._nothing)
        is_met = np.zeros(known.high.size, dtype=np.bool_)
        for collection, met in self._is_met.items():
            if collection.resource == resource:
                is_met |= met
        return known.digests(np.flatnonzero(~is_met))

    @property
    def fingerprint(self) -> str:
        """Of everything that was sifted: the same for the same records in the same order and pages, and for nothing else."""
        return self._whole.hexdigest()
