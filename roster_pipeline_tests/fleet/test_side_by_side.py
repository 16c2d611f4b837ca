"""Many districts at a time: order, limit, and the end (R11.2)."""

import threading
import time
from contextlib import closing

import pytest

from roster_pipeline.fleet.side_by_side import side_by_side


def test_results_come_when_they_are_there() -> None:
    """A slow district does not keep the others waiting."""
    slow = threading.Event()

    def work(item: int, _stop: threading.Event) -> int:
        if item == 0:
            assert slow.wait(10)
        return item * 10

    found = []
    for each in side_by_side(work, range(6), at_once=2):
        found.append(each.item)
        assert each.result == each.item * 10
        if len(found) == 5:
            slow.set()
    assert found == [1, 2, 3, 4, 5, 0]


@pytest.mark.parametrize("at_once", [1, 3])
def test_so_many_at_a_time(at_once: int) -> None:
    """Never more than `at_once`, and as many as that. They begin in their order."""
    lock, began, at_a_time, most = threading.Lock(), [], 0, 0

    def work(item: int, _stop: threading.Event) -> None:
        nonlocal at_a_time, most
        with lock:
            began.append(item)
            at_a_time += 1
            most = max(most, at_a_time)
        time.sleep(0.02)
        with lock:
            at_a_time -= 1

    assert {each.item for each in side_by_side(work, range(12), at_once=at_once)} == set(range(12))
    assert most == at_once
    assert sorted(began) == list(range(12))
    assert began == list(range(12)) or at_once > 1


def test_an_early_end_stops_what_runs_and_begins_nothing_else() -> None:
    """R11.2: after the loop no thread is left, and every running call was stopped."""
    began, stopped = [], []

    def work(item: int, stop: threading.Event) -> None:
        began.append(item)
        if item and stop.wait(10):
            stopped.append(item)

    with closing(side_by_side(work, range(9), at_once=3)) as results:
        assert next(results).item == 0
    assert (sorted(began), sorted(stopped)) == ([0, 1, 2], [1, 2])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("district")]


def test_a_call_that_raises_stops_the_others() -> None:
    """The error reaches the caller."""

    def work(item: int, stop: threading.Event) -> None:
        if item == 1:
            raise ValueError(item)
        assert stop.wait(10)

    with pytest.raises(ValueError, match="1"):
        list(side_by_side(work, range(5), at_once=2))
