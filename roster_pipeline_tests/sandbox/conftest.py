"""A served district, and Clever's OpenAPI file, if it is on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from roster_pipeline.sandbox import Sandbox, SandboxServer, generate_district

from .client import Client

CLEVER_SPEC = Path(__file__).resolve().parents[3] / "shared" / "clever_spec"


@pytest.fixture
def clever() -> Iterator[Client]:
    """A client of a server that serves a new small district."""
    district = generate_district(7, 120)
    with SandboxServer(Sandbox(district)) as server:
        client = Client(server, district)
        with client.session:
            yield client


@pytest.fixture(scope="session")
def clever_spec() -> Path:
    """The folder with Clever's OpenAPI file and recorded answers, which we may not publish."""
    if not CLEVER_SPEC.is_dir():
        pytest.skip(
            f"needs Clever's own specification and recordings in {CLEVER_SPEC.name} beside the project; they are not part of the repository"
        )
    return CLEVER_SPEC
