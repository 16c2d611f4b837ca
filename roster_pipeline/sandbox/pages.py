"""The format of Clever's lists and single objects: cursors, links, envelopes.

Belongs here: paging rules and JSON envelopes. Does not belong here: which records a request asks for (`api.py`).
Every rule comes from Clever's recorded answers.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from roster_pipeline.sandbox.district import District, Kind, encode

MAX_LIMIT = 10_000
DEFAULT_LIMIT = 100
_CACHE_BYTES = 512 * 2**20


class BadParameterError(ValueError):
    """A query parameter that Clever refuses.

    Attributes:
        status: HTTP status of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True)
class Query:
    """The path and query of one request.

    Attributes:
        path: with the version, without the query.
        text: the query as the client sent it, without the question mark.
    """

    path: str
    text: str = ""

    @property
    def items(self) -> list[tuple[str, str]]:
        """Decoded parameters, in the order of the query."""
        return parse_qsl(self.text, keep_blank_values=True)

    def get(self, name: str) -> str | None:
        """The value of a parameter, None if the query does not have it."""
        return dict(self.items).get(name)

    @property
    def uri(self) -> str:
        """The relative uri of the request."""
        return f"{self.path}?{self.text}" if self.text else self.path

    def moved(self, cursor: str, to: str) -> str:
        """The uri of another page: the same parameters with another cursor."""
        others = [(name, value) for name, value in self.items if name not in ("starting_after", "ending_before")]
        return f"{self.path}?{urlencode([*others, (cursor, to)])}"

    @property
    def limit(self) -> int:
        """Records a page.

        Raises:
            BadParameterError: 413 above 10,000; 400 for anything but a positive whole number (there is no recording of Clever's answer).
        """
        text = self.get("limit")
        if text is None:
            return DEFAULT_LIMIT
        if not text.isdecimal() or int(text) < 1:
            raise BadParameterError(400, "limit must be a positive whole number")
        if int(text) > MAX_LIMIT:
            raise BadParameterError(413, f"limit must not be above {MAX_LIMIT}")
        return int(text)


def window(ids: list[str], query: Query) -> list[str]:
    """The ids of the requested page. A cursor need not exist: it is a place in the order of ids. `ending_before=last` means the end."""
    after, before = query.get("starting_after"), query.get("ending_before")
    low = bisect_right(ids, after) if after else 0
    high = bisect_left(ids, before) if before else len(ids)
    if before and not after:
        return ids[max(low, high - query.limit) : high]
    return ids[low : min(high, low + query.limit)]


def links(query: Query, page: list[str]) -> list[dict[str, str]]:
    """`next` if and only if the page is full, even if no record follows; `prev` on every page that was requested with a cursor."""
    found = [{"rel": "self", "uri": query.uri}]
    if len(page) == query.limit:
        found.append({"rel": "next", "uri": query.moved("starting_after", page[-1])})
    cursor = query.get("starting_after") or query.get("ending_before")
    if cursor:
        found.append({"rel": "prev", "uri": query.moved("ending_before", page[0] if page else cursor)})
    return found


def list_body(district: District, kind: Kind, ids: list[str], query: Query) -> bytes:
    """A page of `ids`, or with `count=true` only their number. Pages are cached until the district changes."""
    if query.get("count") == "true":
        return encode({"count": len(ids), "links": [{"rel": "self", "uri": query.uri}]})
    if query not in district.pages:
        body = _assemble(district, kind, window(ids, query), query)
        if sum(map(len, district.pages.values())) + len(body) > _CACHE_BYTES:
            district.pages.clear()
        district.pages[query] = body
    return district.pages[query]


def _assemble(district: District, kind: Kind, page: list[str], query: Query) -> bytes:
    """Joins all pieces once. A page has megabytes, and further copies would be measurable in a benchmark."""
    records = district.records[kind]
    middle = f',"uri":"{_version(query)}/{kind}/'.encode()
    pieces = [b'{"data":[']
    for key in page:
        pieces += (b'{"data":', records[key], middle, key.encode(), b'"}', b",")
    if page:
        pieces.pop()
    pieces += (b'],"links":', encode(links(query, page)), b"}")
    return b"".join(pieces)


def district_list_body(district: District, query: Query) -> bytes:
    """The list of districts, without paging: a token gives access to exactly one."""
    self_link = [{"rel": "self", "uri": query.uri}]
    if query.get("count") == "true":
        return encode({"count": 1, "links": self_link})
    return encode({"data": [{"data": district.record, "uri": f"{_version(query)}/districts/{district.id}"}], "links": self_link})


def single_body(raw: bytes, query: Query, kind: str, key: str, relations: tuple[str, ...]) -> bytes:
    """One object, with links to its related objects. A single object has no `uri` of its own."""
    base = f"{_version(query)}/{kind}/{key}"
    related = [{"rel": _LINK_NAMES.get(name, name), "uri": f"{base}/{name}"} for name in relations]
    return b'{"data":%b,"links":%b}' % (raw, encode([{"rel": "self", "uri": query.uri}, *related]))


_LINK_NAMES = {"mycontacts": "myContacts", "mystudents": "myStudents", "myteachers": "myTeachers"}


def _version(query: Query) -> str:
    return "/" + query.path.split("/", 2)[1]
