"""What assets and sensors need from outside: the application's database and the settings.

Does not belong here: reading the environment (`settings.py`) and opening servers (`database/`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from roster_pipeline.database.engine import Database, open_database
from roster_pipeline.settings import Settings, settings


class RosterDatabase(dg.ConfigurableResource[Database]):
    """The application's database, as this process's environment names it. Nothing is read or opened before `open`."""

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return settings()

    @contextmanager
    def open(self) -> Iterator[Database]:
        """The database, for as long as the block runs.

        Raises:
            RosterError: it cannot be opened.
        """
        with open_database(self.settings) as database:
            yield database
