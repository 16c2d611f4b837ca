"""The resource of the assets and sensors: the application's database and the settings.

Does not belong here: reading the environment (`settings.py`) and opening servers (`database/`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from sqlalchemy import Connection

from roster_pipeline.database.engine import Database, open_database, translate_database_errors
from roster_pipeline.settings import Settings, settings


class RosterDatabase(dg.ConfigurableResource[Database]):
    """The application's database, as configured in the environment of this process. Nothing is read or opened before `open`."""

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return settings()

    @contextmanager
    def open(self) -> Iterator[Database]:
        """The database, while the block runs.

        Raises:
            RosterError: it cannot be opened.
        """
        with open_database(self.settings) as database:
            yield database

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """One session while the block runs, in autocommit.

        Raises:
            RosterError: the database failed.
        """
        with self.open() as database, translate_database_errors(), database.engine.connect() as opened:
            yield opened.execution_options(isolation_level="AUTOCOMMIT")
