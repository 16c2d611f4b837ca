"""An outbox, and receivers on loopback."""

from collections.abc import Iterator

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline_tests.alerts.outbox import Outbox
from roster_pipeline_tests.alerts.receivers import Mailbox, Webhook, mailbox, webhook


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database)


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as opened:
        yield opened


@pytest.fixture
def other() -> Iterator[Webhook]:
    with webhook() as opened:
        yield opened


@pytest.fixture
def mail() -> Iterator[Mailbox]:
    with mailbox() as opened:
        yield opened
