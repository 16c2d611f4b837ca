"""What a sync asks of a roster source.

Belongs here: the protocol, and the few types that both sides exchange. A source reads one district and returns pages whose columns follow
`contracts.py`. Does not belong here: anything that only one vendor has. `clever/pull.py` is a source, and the tests have a second one that
reads recorded snapshots.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import pyarrow

from roster_pipeline.source.digests import SnapshotIndex
from roster_pipeline.source.vocabulary import Collection, Finding


class SourceDistrict(NamedTuple):
    """The district as the source describes it now.

    Attributes:
        state: Clever's own word for it, such as `running`, `pending` or `error`.
        last_sync: when the source last loaded the district's data, as the source writes it (R3.7). None if it never has.
        findings: what was wrong with optional values, which are left out.
        last_changed: when anything that the application may see last changed, as the source writes it, changes of sharing included. None if
            the source does not say.
    """

    id: str
    name: str | None
    state: str | None
    last_sync: str | None
    findings: tuple[Finding, ...] = ()
    last_changed: str | None = None

    @property
    def mark(self) -> str | None:
        """What differs as soon as the source has newer data (R17.1). It is only compared, and is no time of ours."""
        return self.last_changed or self.last_sync


class Listing(NamedTuple):
    """The districts that are connected to the application, as the source listed them (R11.7).

    Attributes:
        district_ids: the ids of all connected districts.
        age: how many seconds ago the listing was requested. If there are two listings, the one that was requested later is newer. It is no
            time, because this machine's clock can be wrong (R11.6).
        client: the application that they are connected to, as a hash of its client id.
        without_token: those districts that are listed without a usable token. Their own syncs fail, and nobody else's (R3.1).
        unreadable: how many entries do not say which district they are about. As long as there is one, no district counts as missing.
    """

    district_ids: frozenset[str]
    age: float
    client: str
    without_token: frozenset[str] = frozenset()
    unreadable: int = 0


OnListing = Callable[[Listing], None]


@dataclass
class PullStats:
    """What a pull has cost so far. `requests` counts attempts, retries included; `bytes` counts bodies after decompression."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    pages: Counter[str] = field(default_factory=Counter)


class SourcePage(Protocol):
    """The unseen records of one page of a collection."""

    @property
    def columns(self) -> pyarrow.Table:
        """The columns of the resource's contract, one row per record, as the source sent them: not cleaned, not validated."""

    @property
    def findings(self) -> Sequence[Finding]:
        """What was wrong with records that are left out (`error`), or with optional values of these rows (`warn`)."""

    @property
    def digests(self) -> Sequence[bytes | None]:
        """The digest of each row; None where a value of the record was dropped."""

    @property
    def positions(self) -> Sequence[int]:
        """The position of each row in the whole pull of its resource."""

    @property
    def end(self) -> int:
        """The position after the page's last record."""


class RosterSource(Protocol):
    """One district at a roster source, read once. A context manager.

    Attributes:
        index: the records of the last accepted snapshot, which the pages leave out. A sync sets it before it enters the source.
        stats: what the pull has cost so far.
    """

    index: SnapshotIndex
    stats: PullStats

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    @property
    def code(self) -> tuple[Path, ...]:
        """The files that decide what a record becomes. Digests that were made with other code do not match."""

    def district(self) -> SourceDistrict:
        """The district object.

        Raises:
            RosterError: the source could not be read, or it refuses.
        """

    def request(self, collections: Iterable[Collection]) -> None:
        """Say which collections are read next, in this order, so that a source that has to wait can wait for all of them at once."""

    def pages(self, collection: Collection) -> Iterator[SourcePage]:
        """Every page of one collection, up to its end (R3.2).

        Raises:
            RosterError: the collection could not be read to its end, or the shape of its data has changed (R4.2).
        """
