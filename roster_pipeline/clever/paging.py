"""Which page comes next, read from an envelope's links. Requests nothing itself.

Only the cursor is taken from a link; host, path and every other parameter stay our own, so that no link can send the token elsewhere, drop
the role, or change the page size.
"""

from urllib.parse import parse_qs, urljoin, urlsplit

from roster_pipeline.clever.decode import Link
from roster_pipeline.clever.errors import IncompletePullError


class Cursors:
    """The cursors met while walking one collection at `base_url` + `path`."""

    def __init__(self, base_url: str, path: str, *, district: str | None = None) -> None:
        self._origin = urlsplit(base_url)[:2]
        self._page = base_url + path
        self._paths = {path, urlsplit(self._page).path}
        self._path = path
        self._district = district
        self._seen: set[str] = set()

    def following(self, links: list[Link]) -> str | None:
        """The `starting_after` of the next page, or None on the last one: the page without a `next` link, empty or not.

        Raises:
            IncompletePullError: `next` leads to another host or path, has no cursor, or a cursor that was there before.
        """
        targets = {urljoin(self._page, link.uri) for link in links if link.rel == "next"}
        if not targets:
            return None
        if len(targets) > 1:
            raise self._error("has two different next links")
        target = urlsplit(targets.pop())
        if target[:2] != self._origin or target.path not in self._paths:
            raise self._error("has a next link that leads elsewhere")
        cursor = parse_qs(target.query).get("starting_after", [""])[-1]
        if not cursor:
            raise self._error("has a next link without a cursor")
        if cursor in self._seen:
            raise self._error(f"has a next link back to a page that was there before, after {len(self._seen)} pages")
        self._seen.add(cursor)
        return cursor

    def _error(self, what: str) -> IncompletePullError:
        return IncompletePullError(f"A page of Clever's {what}.", district=self._district, path=self._path)
