"""The town of these tests, set up once, and a copy of its database for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from roster_pipeline_tests.faults import world as worlds
from roster_pipeline_tests.faults.world import Town, World


@pytest.fixture(scope="package")
def town(database_server: URL, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A district that has been synced twice, and has changes in Clever for the next sync."""
    with worlds.town(database_server, migrated_template, tmp_path_factory.mktemp("town")) as made:
        yield made


@pytest.fixture
def world(town: Town, tmp_path: Path) -> Iterator[World]:
    """The test's own copy of the town."""
    with worlds.world(town, tmp_path) as made:
        yield made
