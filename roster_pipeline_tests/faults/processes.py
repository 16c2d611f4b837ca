"""The `roster` command as a process of its own. It is forked from a process that has imported everything, so that it starts fast.

Belongs here: starting, stopping and breaking such processes. Does not belong here: what must be true afterwards (`world.py`).
"""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from roster_pipeline import cli
from roster_pipeline.database.engine import open_database
from roster_pipeline.settings import Settings
from roster_pipeline.sync import run
from roster_pipeline.sync.apply import record_plan
from roster_pipeline.sync.run import SyncRequest
from roster_pipeline_tests.ended import Ended

KILLED = -signal.SIGKILL
GIVE_UP_SECONDS = 60

_context = multiprocessing.get_context("forkserver")
_numbers = count(1)


class Running:
    """A process that runs `target` and writes its two streams to files.

    Args:
        target: a function of a module. Its arguments must be picklable.
        environment: the only variables of the project that the process has.
        directory: its working directory, and the directory of its output.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any, environment: Mapping[str, str], directory: Path) -> None:
        self._streams = [directory / f"{next(_numbers)}.{name}" for name in ("out", "err")]
        self._process = _start(_enter, target, arguments, dict(environment), directory, self._streams)

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if the process is still running."""
        if self._process.is_alive():
            assert self._process.pid is not None
            os.kill(self._process.pid, number)

    def ended(self) -> Ended:
        """Waits until the process ends."""
        self._process.join(GIVE_UP_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise AssertionError(f"the process did not end within {GIVE_UP_SECONDS} s")
        return Ended(self._process.exitcode, *(each.read_text() for each in self._streams))

    def discard(self) -> None:
        """Kills the process."""
        self.signal(signal.SIGKILL)
        self._process.join()


@contextmanager
def discarded(*processes: Running) -> Iterator[None]:
    """Kills the processes at the end of the block, if they are still running."""
    try:
        yield
    finally:
        for each in processes:
            each.discard()


def _start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    _context.set_forkserver_preload(["roster_pipeline.fleet.preload", "roster_pipeline.commands.sync", "roster_pipeline.commands.status"])
    process = _context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def _enter(
    target: Callable[..., None], arguments: tuple[Any, ...], environment: dict[str, str], directory: Path, streams: list[Path]
) -> None:
    for number, path in enumerate(streams, start=1):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    # The fork server's streams may be a pipe of the test run. This process must not keep it open.
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)
    os.environ.update(environment)
    os.chdir(directory)
    target(*arguments)


def roster(arguments: tuple[str, ...], prepare: Callable[[], None] = lambda: None) -> None:
    """Target: one command, after `prepare` has broken something in its process."""
    prepare()
    cli.main(arguments)


def roster_when_all_are_ready(arguments: tuple[str, ...], start: Any) -> None:
    """Target: one command, when all other processes are ready."""
    start.wait(GIVE_UP_SECONDS)
    cli.main(arguments)


def dagster_run(clever_id: str, start: Any) -> None:
    """Target: a Dagster run of the district, when all processes are ready. If a sync is running: status 4 and its id, as the command."""
    # Imported only here, because importing Dagster takes longer than a sync.
    import dagster as dg

    from roster_pipeline_tests.defs.runs import run as run_job

    with dg.DagsterInstance.ephemeral() as instance:
        start.wait(GIVE_UP_SECONDS)
        result = run_job(instance, clever_id)
    if result.success:
        sys.exit(0)
    (failed,) = result.get_step_failure_events()
    user_data = failed.step_failure_data.user_failure_data
    running = user_data.metadata.get("running_sync_id") if user_data else None
    sys.stdout.write(json.dumps({"running_sync_id": running.value if running else None}))
    sys.exit(4 if running else 1)


def killed_in_pull(settings: Settings, request: SyncRequest, now: datetime) -> int | None:
    """Sync in a process of its own, which is killed when the first step of its pull is done. Returns its exit status."""
    process = _start(_sync_and_die, settings, request, now)
    process.join(GIVE_UP_SECONDS)
    return process.exitcode


def _sync_and_die(settings: Settings, request: SyncRequest, now: datetime) -> None:
    with open_database(settings) as database:
        run.run_sync(database, settings, request, on_step=lambda _step: os.kill(os.getpid(), signal.SIGKILL), clock=lambda _: now)


def barrier(parties: int) -> Any:
    """A barrier at which processes wait for each other."""
    return _context.Barrier(parties)


def die_in_apply(point: int) -> None:
    """Prepare: `kill -9` when the apply reaches this point. `count_points` has the numbers."""

    def die(reached: int) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    _watch_apply(die)


def count_points(file: Path) -> None:
    """Prepare: write the number of the last point of the apply, the one after the commit, into the file."""
    _watch_apply(lambda reached: file.write_text(str(reached)))


def lose_the_lock() -> None:
    """Prepare: a sync that takes no lock, but goes on as if it had it."""
    # Not by assignment: for the type checker, a function that `run` imports is not an attribute of `run`.
    vars(run)["district_lock"] = lambda *_: nullcontext()


def _watch_apply(reached: Callable[[int], object]) -> None:
    """Calls `reached` with 0 before the first statement of the apply, with n after the n-th, and once more after the commit."""
    numbers = count()
    state = {"applying": False}
    analyze = vars(run)["analyze"]

    def begin(*arguments: Any) -> None:
        state["applying"] = True
        reached(next(numbers))
        record_plan(*arguments)

    def committed(*arguments: Any) -> None:
        reached(next(numbers))
        state["applying"] = False
        analyze(*arguments)

    vars(run).update(record_plan=begin, analyze=committed)

    @event.listens_for(Engine, "after_cursor_execute")
    def _executed(*_: object) -> None:
        if state["applying"]:
            reached(next(numbers))
