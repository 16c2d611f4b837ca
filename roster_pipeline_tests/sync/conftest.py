"""Districts for the tests of the rules of a sync."""

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline_tests.reference.driver import LiveDistrict


@pytest.fixture
def district(database: Database) -> LiveDistrict:
    """A district of the profile `typing_agent` that has never been synced."""
    return LiveDistrict.sign_up(database, "typing_agent")


@pytest.fixture
def twig(database: Database) -> LiveDistrict:
    """A district of the profile `twig_science` that has never been synced."""
    return LiveDistrict.sign_up(database, "twig_science")
