"""How long a request waits until its sync begins (R11.3: at most 30 s), with the real sensor, queue and processes.

The application inserts a row into `ops.syncs`, as it does for a click on "Sync Now". The time is from `requested_at` to `started_at`, both
by the database's clock. It is measured on the machine as it is, and while processes that only compute keep every core busy.
"""

import argparse
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import sqlalchemy as sa

from benchmarks import fleet
from benchmarks.machine import Machine, run_with_clock
from benchmarks.table import at_most, print_lines
from roster_pipeline.sync.run import SyncRequest, run_sync

MAX_WAIT_S = 30.0
STUDENTS = 500
# Busy processes for each core.
LOADS = (0, 4)

_REQUEST = sa.text(
    "insert into ops.syncs (district_id, requested_by) select district_id, 'benchmark' from app.districts where clever_id = :district"
    " returning sync_id"
)
_WAITED = sa.text("select extract(epoch from started_at - requested_at), finished_at is not null from ops.syncs where sync_id = :sync")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.request", description=__doc__)
    parser.add_argument("--requests", type=int, default=10, help="for each load")
    arguments = parser.parse_args()
    with Machine(run_with_clock("benchmarks.request", datetime.now(UTC)), {}) as machine:
        (district,) = fleet.sign_up(machine.database, machine.sandbox, [STUDENTS])
        run_sync(machine.database, machine.settings, SyncRequest(district))
        machine.start()
        lines = []
        for load in LOADS:
            with busy(load * (os.cpu_count() or 1)):
                waits = wait_times(machine, district, arguments.requests)
            name = f"a request starts, {load} busy processes for each core, {arguments.requests} requests"
            lines += [
                at_most(f"{name}: median, seconds", statistics.median(waits), MAX_WAIT_S),
                at_most(f"{name}: longest, seconds", max(waits), MAX_WAIT_S),
            ]
    print_lines(lines)


def wait_times(machine: Machine, district: str, requests: int) -> Sequence[float]:
    """Seconds until each of so many requests began, one after the other, at any moment between two ticks of the sensor."""
    found = []
    for _ in range(requests):
        time.sleep(random.uniform(0, 10))
        with machine.database.engine.begin() as connection:
            sync_id = connection.execute(_REQUEST, {"district": district}).scalar_one()

        def has_ended(sync: int = sync_id) -> bool:
            with machine.database.engine.connect() as connection:
                return bool(connection.execute(_WAITED, {"sync": sync}).one()[1])

        machine.wait("the requested sync", has_ended)
        with machine.database.engine.connect() as connection:
            found.append(float(connection.execute(_WAITED, {"sync": sync_id}).one()[0]))
    return found


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes compute during the block."""
    started = [multiprocessing.get_context("spawn").Process(target=compute, daemon=True) for _ in range(processes)]
    for each in started:
        each.start()
    try:
        yield
    finally:
        for each in started:
            each.kill()
            each.join()


def compute() -> None:
    """Computes without end."""
    while True:
        pass


if __name__ == "__main__":
    main()
