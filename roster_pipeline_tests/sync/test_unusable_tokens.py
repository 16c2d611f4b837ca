"""One entry of Clever's list of tokens cannot be used: whole syncs of its district, and of another one (R3.1, R11.7)."""

from collections.abc import Iterator
from typing import Any

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline.errors import PermanentError
from roster_pipeline.sandbox import District, Sandbox, SandboxServer
from roster_pipeline.sync.run import SyncRequest, run_sync
from roster_pipeline_tests.sync.scenario import DISTRICT, Scenario

OTHER = "5f00000000000000000000bb"


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(District({"id": DISTRICT, "name": "#DEMO Test"}))


@pytest.fixture
def world(database: Database, sandbox: Sandbox) -> Iterator[Scenario]:
    with SandboxServer(sandbox) as server:
        world = Scenario(database, server, "typing_agent")
        world.students(world.school("a"), 3)
        sandbox.add(District({"id": OTHER, "name": "Other"}))
        world.sync()
        yield world


CASES: list[tuple[dict[str, Any], str]] = [
    ({"access_token": None}, "without a token that can be used"),
    ({"access_token": ""}, "without a token that can be used"),
    ({"owner": {"type": "district", "id": None}}, "There is no token"),
    ({"owner": {"id": OTHER}}, "There is no token"),
    ({"owner": None}, "There is no token"),
]


@pytest.mark.parametrize(("changes", "reason"), CASES, ids=[str(changes) for changes, _ in CASES])
def test_a_bad_entry_concerns_its_own_district_alone(world: Scenario, sandbox: Sandbox, changes: dict[str, Any], reason: str) -> None:
    """R3.1, R11.7: the other district syncs, nobody is disconnected, and it is reported once."""
    world.execute("update app.districts set status = 'active', profile = 'typing_agent' where clever_id = :id", id=OTHER)
    sandbox.districts[OTHER].token |= changes
    for _ in range(2):
        assert world.sync().status == "successful"
    with pytest.raises(PermanentError, match=reason):
        run_sync(world.database, world.settings, SyncRequest(OTHER))
    assert dict(world.rows("select clever_id, status from app.districts")) == {DISTRICT: "active", OTHER: "active"}
    reported = world.rows("select facts from ops.alerts where kind = 'tokens_unusable'")
    assert reported == [({"without_token": [OTHER] if "access_token" in changes else [], "unreadable": int("owner" in changes)},)]
    assert world.value("select count(*) from ops.alerts where kind = 'disconnected'") == 0


def test_an_entry_without_a_time_is_used(world: Scenario, sandbox: Sandbox) -> None:
    """R3.1: nothing is wrong with its token."""
    sandbox.districts[DISTRICT].token |= {"created": None}
    assert world.sync().status == "successful"
    assert world.value("select count(*) from ops.alerts where kind = 'tokens_unusable'") == 0
