"""The fixtures of the command line, for the import commands; and the districts of the import tests."""

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline_tests.commands.conftest import environment, roster
from roster_pipeline_tests.people.world import World

__all__ = ["environment", "roster"]


@pytest.fixture
def world(database: Database) -> World:
    return World(database)
