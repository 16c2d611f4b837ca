"""A shard syncs several districts at a time (R11.2).

Does not belong here: which districts are tried again, and what a shard reports (`test_nightly.py`).
"""

import threading
from typing import Any, NoReturn

import dagster as dg
import pytest

from roster_pipeline.defs import shards
from roster_pipeline.fleet.children import Failure, Outcome
from roster_pipeline_tests.defs.runs import outcomes, run_shard


def test_a_shard_waits_for_several_districts_at_once(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """R11.2: as many as ROSTER_SHARD_DISTRICTS_AT_ONCE. Each waits until the others have begun."""
    together = threading.Barrier(3, timeout=60)

    def sync_in_child(_database: object, _settings: object, _request: Any, **_: object) -> Outcome:
        together.wait()
        return Failure("skipped", "The district is paused.")

    monkeypatch.setattr(shards, "sync_in_child", sync_in_child)
    monkeypatch.setenv("ROSTER_SHARD_DISTRICTS_AT_ONCE", "3")
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_shard(instance, *"abcdef")
    assert outcomes(result) == dict.fromkeys("abcdef", ("skipped", 1))


def test_a_shard_that_ends_early_stops_its_syncs(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """R11.2: a cancelled run leaves no process that goes on without limits."""
    stopped = []

    def sync_in_child(_database: object, _settings: object, request: Any, *, stop: threading.Event, **_: object) -> Outcome:
        if request.district != "first" and stop.wait(60):
            stopped.append(request.district)
        return Failure("failed", "There is no token.")

    def cancel(*_: object) -> NoReturn:
        raise dg.DagsterExecutionInterruptedError

    monkeypatch.setattr(shards, "sync_in_child", sync_in_child)
    monkeypatch.setattr(shards, "_report", cancel)
    monkeypatch.setenv("ROSTER_SHARD_DISTRICTS_AT_ONCE", "3")
    with dg.DagsterInstance.ephemeral() as instance:
        assert not run_shard(instance, "first", "second", "third", "never").success
    assert sorted(stopped) == ["second", "third"]
