"""One district's complete pull: its token, the district object, and every collection page by page (R3.1, R3.2, R3.5).

Belongs here: what is requested from Clever, and in which order. Does not belong here: retries of one request (`http.py`), how bytes become
records (`decode.py`), and what is done with a page.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, TypeVar

import pyarrow
import requests
from pydantic import SecretStr
from requests.auth import AuthBase

from roster_pipeline.clever import columns, decode, records
from roster_pipeline.clever.ahead import FetchedPage, PagesAhead
from roster_pipeline.clever.columns import flatten
from roster_pipeline.clever.decode import CollectionDecoder, CountBody, Decoded, DistrictsBody, ListBody, SingleBody, parse_district
from roster_pipeline.clever.errors import RefusedError
from roster_pipeline.clever.http import SYSTEM_CLOCK, CleverHttp, Clock, Deadline
from roster_pipeline.clever.paging import Cursors
from roster_pipeline.clever.records import Record
from roster_pipeline.clever.tokens import TokenListing, list_tokens
from roster_pipeline.errors import PermanentError, RosterError
from roster_pipeline.settings import Settings
from roster_pipeline.source import vocabulary
from roster_pipeline.source.digests import SnapshotIndex
from roster_pipeline.source.protocol import OnListing, PullStats, SourceDistrict
from roster_pipeline.source.vocabulary import Collection, Finding

T = TypeVar("T")

# A Clever that does not count says so with one of these. The pages have been read to their end all the same.
_COUNT_REFUSED = {requests.codes.bad_request, requests.codes.not_found, requests.codes.not_implemented}


@dataclass(frozen=True)
class Page:
    """One page of a collection, decoded.

    Attributes:
        number: 1 for the collection's first page.
    """

    collection: Collection
    number: int
    decoded: Decoded

    @property
    def records(self) -> list[Record]:
        """The usable unseen records, of the type that `records.record_type` names."""
        return self.decoded.records

    @property
    def columns(self) -> pyarrow.Table:
        """The records as the columns of their contract. Every call builds the table again."""
        return flatten(self.collection, self.decoded.records)

    @property
    def findings(self) -> list[Finding]:
        """What was wrong with records that are left out (`error`), or with optional values of these records (`warn`)."""
        return self.decoded.findings

    @property
    def digests(self) -> list[bytes | None]:
        """The digest of each record; None where a value of it was dropped."""
        return self.decoded.digests

    @property
    def positions(self) -> list[int]:
        """The position of each record in the whole pull of its resource."""
        return self.decoded.positions

    @property
    def end(self) -> int:
        """The position after the page's last record."""
        return self.decoded.end


class _BearerAuth(AuthBase):
    """Sets the header itself, so requests neither reads a netrc file nor stores the token in the session."""

    def __init__(self, token: SecretStr) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        return request


class DistrictPull:
    """Reads one district from Clever. A context manager; the deadline runs from its creation.

    Args:
        district_clever_id: the district to read.
        keep_student_email: decode a student's e-mail (`Profile.student_email`). Otherwise it is never in memory.
        prefer_name: decode the name that a student goes by (`Profile.student_name`), and use it instead of the legal one.
        tokens: a listing that has been made already (R3.1). Without it, entering the context makes one.
        on_listing: called with every full listing that this pull uses (R11.7), in the thread that enters and leaves the context. Also
            called if the pull fails, because the listing may show why: it has no token of the district.
        clock: the time, for tests.

    Attributes:
        index: the records of the last accepted snapshot, which the pages leave out; at first there are none.
        tokens: the latest full listing, by Clever district id. After a 401 it is newer than the one passed in (R11.7).
        stats: what the pull has cost so far.
        code: the files that decide what a record of Clever becomes.
    """

    code: ClassVar[tuple[Path, ...]] = tuple(Path(str(module.__file__)) for module in (vocabulary, records, decode, columns))

    def __init__(
        self,
        settings: Settings,
        district_clever_id: str,
        *,
        keep_student_email: bool,
        prefer_name: bool = False,
        tokens: Mapping[str, SecretStr] | None = None,
        on_listing: OnListing = lambda _listing: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.district_clever_id = district_clever_id
        self.index = SnapshotIndex()
        self.stats = PullStats()
        self._settings = settings
        self._keep_student_email = keep_student_email
        self._prefer_name = prefer_name
        self._deadline = Deadline(settings.roster_pull_deadline_s, clock)
        self._http = CleverHttp(settings.clever_api_url, settings, deadline=self._deadline, stats=self.stats, district=district_clever_id)
        self.tokens = tokens
        self._on_listing = on_listing
        self._relisted: TokenListing | None = None
        self._ahead = PagesAhead(settings.clever_requests_at_once)
        # Several requests can be refused for the same old token. One of them lists the tokens again.
        self._listing = threading.Lock()

    def __enter__(self) -> Self:
        if self.tokens is None:
            self.tokens = list_tokens(self._settings, deadline=self._deadline, stats=self.stats)
        if isinstance(self.tokens, TokenListing):
            self._report(self.tokens)
        self._auth()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end_early()
        self._http.__exit__(kind, error, trace)
        if self._relisted is not None and (error is None or isinstance(error, RosterError)):
            self._report(self._relisted)

    @property
    def seconds(self) -> float:
        """How long the pull has been running."""
        return self._deadline.elapsed()

    def district(self) -> SourceDistrict:
        """The district object. If its `last_sync` differs before and after the pull, Clever has loaded new data in between (R3.7).

        Raises:
            PermanentError: Clever refuses, or the token does not belong to this district.
            TransientError: Clever could not be read.
        """
        try:
            items = [self._get(self._path(f"districts/{self.district_clever_id}"), {}, SingleBody)]
        except RefusedError as error:
            if error.status != requests.codes.not_found:
                raise
            items = self._get(self._path("districts"), {}, DistrictsBody).data
        for district in map(parse_district, items):
            if district is not None and district.id == self.district_clever_id:
                return district
        raise PermanentError("The district's token does not lead to the district.", district=self.district_clever_id)

    def request(self, collections: Iterable[Collection]) -> None:
        """Request the first page of each of these collections now, at most CLEVER_REQUESTS_AT_ONCE at a time. Read them in this order."""
        for collection in collections:
            cursors = Cursors(self._http.base_url, self._path(collection.resource), district=self.district_clever_id)
            self._ahead.request(collection, partial(self._fetch, collection, cursors))

    def pages(self, collection: Collection) -> Iterator[Page]:
        """The collection's pages up to the one without `next`. The caller's thread decodes a page while another fetches the next one.

        One page of every requested collection is fetched ahead. An incomplete collection must not be used (R3.2): after an early
        end, the pull is over. All threads have ended then; if Clever does not answer, that can take CLEVER_READ_TIMEOUT_S.

        Raises:
            PermanentError: Clever refuses, or the shape of its data changed (R4.2; found after the last page).
            TransientError: the collection could not be read to its end.
        """
        if not self._ahead.is_requested(collection):
            self.request([collection])
        decoder = CollectionDecoder(
            collection,
            self.district_clever_id,
            keep_student_email=self._keep_student_email,
            prefer_name=self._prefer_name,
            index=self.index,
        )
        cursors = Cursors(self._http.base_url, self._path(collection.resource), district=self.district_clever_id)
        number = read = 0
        counted, is_complete = None, False
        try:
            for fetched in self._ahead.pages(collection):
                number += 1
                self.stats.pages[collection] += 1
                page = Page(collection, number, decoder.decode(fetched.body.data))
                read += page.decoded.size
                counted = fetched.counted
                if fetched.cursor is None:
                    cursors.check_end(page.decoded.size, self._settings.clever_page_limit)
                # A body has megabytes. It is freed before its page is used, and the page is freed before the next one is decoded.
                del fetched
                yield page
                del page
            is_complete = True
        finally:
            if not is_complete:
                self._end_early()
        decoder.check_shape()
        cursors.check_count(read, counted)

    def _end_early(self) -> None:
        self._deadline.stopped.set()
        self._ahead.close()

    def _fetch(self, collection: Collection, cursors: Cursors, cursor: str | None) -> FetchedPage:
        """The page after a cursor; with the last page of the collection, Clever's count."""
        parameters: dict[str, str | int] = {"limit": self._settings.clever_page_limit, **_role(collection)}
        if cursor:
            parameters["starting_after"] = cursor
        body = self._get(self._path(collection.resource), parameters, ListBody)
        following = cursors.following(body.links)
        return FetchedPage(body, following, None if following else self._count(collection))

    def _count(self, collection: Collection) -> int | None:
        """How many records Clever counts in a collection; None if it does not say (the body is not documented for v3)."""
        parameters: dict[str, str | int] = {"count": "true", "limit": 1, **_role(collection)}
        try:
            return self._get(self._path(collection.resource), parameters, CountBody).records
        except RefusedError as error:
            if error.status not in _COUNT_REFUSED:
                raise
            return None

    def _path(self, resource: str) -> str:
        return f"/{self._settings.clever_api_version}/{resource}"

    def _get(self, path: str, params: Mapping[str, str | int], shape: type[T]) -> T:
        """GET with the district's token. The first 401 of the pull lists the tokens again; a 401 with the new token is final (R3.1)."""
        tokens = self.tokens
        try:
            return self._http.get(path, params, shape, auth=self._auth())
        except RefusedError as error:
            if error.status != requests.codes.unauthorized:
                raise
            with self._listing:
                # Unless another request has listed them since this one was sent.
                if self.tokens is tokens:
                    if self._relisted is not None:
                        raise
                    # The listing is reported at the end of the pull, because this may be another thread.
                    self._relisted = self.tokens = list_tokens(self._settings, deadline=self._deadline, stats=self.stats)
        return self._http.get(path, params, shape, auth=self._auth())

    def _report(self, listing: TokenListing) -> None:
        self._on_listing(listing.listing())

    def _auth(self) -> _BearerAuth:
        token = (self.tokens or {}).get(self.district_clever_id)
        if token is None:
            if isinstance(self.tokens, TokenListing) and self.district_clever_id in self.tokens.without_token:
                raise PermanentError(
                    "Clever lists the district, but without a token that can be used.",
                    hint="Only this district is affected. If it lasts, ask Clever, or ask the district to connect the application again.",
                    district=self.district_clever_id,
                )
            raise PermanentError(
                "There is no token: the district has not connected the application at Clever, or has disconnected it.",
                district=self.district_clever_id,
            )
        return _BearerAuth(token)


def _role(collection: Collection) -> dict[str, str | int]:
    return {"role": collection.role} if collection.role else {}
