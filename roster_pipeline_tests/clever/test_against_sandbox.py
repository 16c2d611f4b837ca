"""The client reads the sandbox: a whole realistic district, and with faults (R3.1, R3.2, R3.3)."""

from collections.abc import Callable, Iterator
from typing import cast

import pytest

from roster_pipeline.clever.errors import IncompletePullError
from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.errors import PermanentError
from roster_pipeline.sandbox import Sandbox, SandboxServer, generate_district
from roster_pipeline.sandbox.district import Kind
from roster_pipeline.sandbox.faults import Fault, FaultKind
from roster_pipeline.source.vocabulary import Collection

from .conftest import WALL, FakeTime

Open = Callable[..., DistrictPull]


@pytest.fixture
def sandbox(fake_time: FakeTime) -> Sandbox:
    return Sandbox(generate_district(1, 60), clock=lambda: WALL + fake_time.now)


@pytest.fixture
def open_pull(sandbox: Sandbox, make_pull: Open) -> Iterator[Open]:
    with SandboxServer(sandbox, gzip=True) as server:

        def make(**more: object) -> DistrictPull:
            own = {"clever_client_id": sandbox.client_id, "clever_client_secret": sandbox.client_secret, "clever_page_limit": 10}
            return make_pull(sandbox.district().id, **(own | {"clever_api_url": server.url, "clever_auth_url": server.url} | more))

        yield make


def read(pull: DistrictPull, collection: Collection) -> list[str]:
    return [record.id for page in pull.pages(collection) for record in page.records]


def shared(sandbox: Sandbox, collection: Collection) -> list[str]:
    # The sandbox names its lists as the contracts name their resources.
    return [str(key) for key in sandbox.district().shared(cast("Kind", collection.resource), collection.role)]


@pytest.mark.parametrize("limit", [7, 10, 60, 10_000])
def test_a_whole_district(limit: int, sandbox: Sandbox, open_pull: Open) -> None:
    """R3.2: every collection is read exactly, with any page size. 60 students in pages of 10 or 60 end with an empty page."""
    with open_pull(clever_page_limit=limit) as pull:
        assert pull.district().id == sandbox.district().id
        for collection in Collection:
            assert read(pull, collection) == shared(sandbox, collection) != []
    assert pull.stats.retries == 0


@pytest.mark.parametrize("kind", ["html", "body", "truncated", "cut", "without_links", "without_data"])
def test_faults_on_a_later_page_are_overcome(kind: FaultKind, sandbox: Sandbox, open_pull: Open) -> None:
    """R3.3: the page is read again, and no record is missing or duplicated."""
    sandbox.faults.add(Fault(kind, "role=student.*starting_after=", times=2))
    with open_pull() as pull:
        assert read(pull, Collection.STUDENTS) == shared(sandbox, Collection.STUDENTS)
    assert pull.stats.retries == 2


@pytest.mark.parametrize("kind", ["next_self", "next_earlier", "next_without_cursor", "next_other_host"])
def test_links_that_do_not_lead_to_the_end(kind: FaultKind, sandbox: Sandbox, open_pull: Open) -> None:
    """R3.2: each kind of bad link ends the pull. It does not loop, leave the host, or stop early."""
    sandbox.faults.add(Fault(kind, "role=student.*starting_after="))
    with open_pull() as pull, pytest.raises(IncompletePullError):
        read(pull, Collection.STUDENTS)


def test_the_rate_limit(fake_time: FakeTime, make_pull: Open) -> None:
    """R3.3: if the limit allows fewer requests a minute than there are pages, the pull waits for the next minute and reads everything."""
    sandbox = Sandbox(generate_district(1, 60), rate_limit=3, clock=lambda: WALL + fake_time.now)
    with SandboxServer(sandbox) as server:
        urls = {"clever_api_url": server.url, "clever_auth_url": server.url}
        own = {"clever_client_id": sandbox.client_id, "clever_client_secret": sandbox.client_secret, "clever_page_limit": 10}
        with make_pull(sandbox.district().id, **urls, **own) as pull:
            assert read(pull, Collection.STUDENTS) == shared(sandbox, Collection.STUDENTS)
    assert pull.stats.retries == len(fake_time.waits) == 2
    assert sum(fake_time.waits) > 60


def test_a_token_rotated_between_two_pages(sandbox: Sandbox, open_pull: Open) -> None:
    """R3.1: no record is lost."""
    with open_pull() as pull:
        pages = pull.pages(Collection.STUDENTS)
        found = [record.id for record in next(pages).records]
        sandbox.change().rotate_token()
        found += [record.id for page in pages for record in page.records]
        assert found == shared(sandbox, Collection.STUDENTS)


def test_a_revoked_token_and_a_disconnected_district(sandbox: Sandbox, open_pull: Open) -> None:
    """R3.1: a listed token that is refused, and a district that is no longer listed: two permanent errors with different texts."""
    sandbox.change().revoke_token()
    with open_pull() as pull, pytest.raises(PermanentError, match="401"):
        read(pull, Collection.SCHOOLS)
    sandbox.change().disconnect()
    with pytest.raises(PermanentError, match="no token"), open_pull():
        pass


def test_wrong_types_from_the_sandbox(sandbox: Sandbox, open_pull: Open) -> None:
    """R4.2: a numeric sis_id is dropped and reported; the student stays."""
    student = shared(sandbox, Collection.STUDENTS)[3]
    sandbox.change().patch("users", student, "roles.student.sis_id", 5)
    with open_pull() as pull:
        findings = [finding for page in pull.pages(Collection.STUDENTS) for finding in page.findings]
    assert findings == [(student, "sis_id_type", "warn")]
