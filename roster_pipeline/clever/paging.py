"""Which page comes next, read from the links of an envelope. Makes no request itself.

Only the cursor is used of a link. Host, path and all other parameters are our own, so no link can send the token elsewhere, drop the role,
or change the page size.
"""

from urllib.parse import parse_qs, urljoin, urlsplit

from roster_pipeline.clever.decode import Link
from roster_pipeline.clever.errors import IncompletePullError

# The links that Clever documents for a list. A link of another name may be the one that leads on.
_RELATIONS = {"self", "next", "prev"}


class Cursors:
    """The cursors of one collection at `base_url` + `path`, as its pages are read."""

    def __init__(self, base_url: str, path: str, *, district: str | None = None) -> None:
        self._origin = urlsplit(base_url)[:2]
        self._page = base_url + path
        self._paths = {path, urlsplit(self._page).path}
        self._path = path
        self._district = district
        self._seen: set[str] = set()

    def following(self, links: list[Link]) -> str | None:
        """The `starting_after` of the next page; None on the last page, which is the one without a `next` link, empty or not.

        Raises:
            IncompletePullError: a link has an unknown name; `next` leads to another host or path, has no cursor, or repeats a cursor.
        """
        if not {link.rel for link in links} <= _RELATIONS:
            raise self._error("has a link of an unknown name, which may be the one to the next page")
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

    def check_end(self, records: int, limit: int) -> None:
        """Check a page without `next`. Clever sends `next` on every full page: where nothing follows, it leads to an empty page.

        Raises:
            IncompletePullError: the page has as many records as were asked for, so the collection may go on after it.
        """
        if records >= limit:
            raise self._error("is full and has no next link")

    def check_count(self, read: int, counted: int | None) -> None:
        """Compare what was read with Clever's own count of the collection, which is None where Clever does not say.

        Fewer records than were read are no fault: some may have been removed since.

        Raises:
            IncompletePullError: Clever has more records than its pages had.
        """
        if counted is not None and counted > read:
            raise self._error(f"was the last one after {read} records, but Clever counts {counted}")

    def _error(self, what: str) -> IncompletePullError:
        return IncompletePullError(f"A page of Clever's {what}.", district=self._district, path=self._path)
