"""A district that has been synced a few times: it is made once, and each test gets a copy of its database.

Does not belong here: what is synced.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import replace

from sqlalchemy import URL

from roster_pipeline.database.engine import open_database
from roster_pipeline_tests.conftest import _database_settings, _fresh_database
from roster_pipeline_tests.reference.driver import LiveDistrict

Copies = Callable[[], AbstractContextManager[LiveDistrict]]


@contextmanager
def copies_of(server: URL, template: str, live: Callable[[LiveDistrict], None]) -> Iterator[Copies]:
    """Makes a district of the profile `typing_agent` and runs `live`. Each call of the result copies it, in its own database."""
    with _fresh_database(server, template) as url:
        with open_database(_database_settings(url)) as database:
            made = LiveDistrict.sign_up(database, "typing_agent")
            live(made)

        @contextmanager
        def another() -> Iterator[LiveDistrict]:
            with _fresh_database(server, str(url.database)) as own, open_database(_database_settings(own)) as database:
                yield replace(made, database=database, clock=copy(made.clock), hold_acts=dict(made.hold_acts))

        yield another
