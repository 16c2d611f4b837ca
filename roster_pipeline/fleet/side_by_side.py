"""Doing the same for many districts, several at a time. Most of a sync of an unchanged district is waiting for Clever.

Belongs here: the threads, the order in which results come, and their end. Does not belong here: what is done for a district
(`children.py`), and which districts these are (`defs/shards.py`).
"""

import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Done(NamedTuple, Generic[T, R]):
    """The result for one item, and how many seconds it took."""

    item: T
    result: R
    seconds: float


def side_by_side(work: Callable[[T, threading.Event], R], items: Iterable[T], *, at_once: int) -> Generator[Done[T, R], None, None]:
    """Call `work` for every item, in their order, at most `at_once` at a time. Results come as soon as they are there.

    If the iterator is closed, or a call raises, no further call begins, the running ones are asked to stop, and all have ended.

    Args:
        work: called in another thread, with an event that is set when it has to stop.
    """
    stop = threading.Event()

    def timed(item: T) -> Done[T, R]:
        began = time.monotonic()
        return Done(item, work(item, stop), time.monotonic() - began)

    with ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="district") as executor:
        running: list[Future[Done[T, R]]] = []
        waiting = iter(items)
        try:
            while True:
                # Not more than can run, so that little has to be cancelled.
                for item in waiting:
                    running.append(executor.submit(timed, item))
                    if len(running) == at_once:
                        break
                if not running:
                    return
                ended = wait(running, return_when=FIRST_COMPLETED).done
                for each in running:
                    if each in ended:
                        yield each.result()
                running = [each for each in running if each not in ended]
        finally:
            stop.set()
