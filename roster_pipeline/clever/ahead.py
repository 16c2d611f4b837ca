"""The pages of a pull, requested before they are asked for. So a district waits once for Clever, and not once for each collection.

Belongs here: which pages are requested at once, and how many of them wait in memory. Does not belong here: one request (`http.py`), what a
link means (`paging.py`), and what becomes of a page (`pull.py`).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from roster_pipeline.clever.decode import ListBody
from roster_pipeline.source.vocabulary import Collection

THREADS = "clever-prefetch"


class FetchedPage(NamedTuple):
    """One page as Clever sent it.

    Attributes:
        cursor: the cursor of the next page; None on the last page.
        counted: on the last page, how many records Clever counts in the collection; None if it does not say.
    """

    body: ListBody
    cursor: str | None
    counted: int | None


Fetch = Callable[[str | None], FetchedPage]


class PagesAhead:
    """Pages of several collections, each collection in its own order. At most one page of a collection waits in memory.

    Args:
        at_once: how many requests may run at a time.
    """

    def __init__(self, at_once: int) -> None:
        self._executor = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix=THREADS)
        self._first: dict[Collection, tuple[Fetch, Future[FetchedPage]]] = {}

    def request(self, collection: Collection, fetch: Fetch) -> None:
        """Request the first page of a collection. Its `pages` are to be read later.

        Args:
            fetch: fetches the page after a cursor, None for the first one. It is called in another thread, once at a time.
        """
        self._first[collection] = fetch, self._executor.submit(fetch, None)

    def is_requested(self, collection: Collection) -> bool:
        """Whether the collection has been requested and not read yet."""
        return collection in self._first

    def pages(self, collection: Collection) -> Iterator[FetchedPage]:
        """The pages of a requested collection up to its last one. While the caller uses a page, the next one is fetched.

        Raises:
            RosterError: what `fetch` raised.
        """
        fetch, pending = self._first.pop(collection)
        while True:
            page = pending.result()
            if page.cursor is None:
                yield page
                return
            pending = self._executor.submit(fetch, page.cursor)
            yield page
            # A body has megabytes. It is freed before the next one is asked for.
            del page

    def close(self) -> None:
        """Returns when all threads have ended. A request that runs is waited for: the caller's deadline ends it."""
        self._executor.shutdown(wait=True, cancel_futures=True)
