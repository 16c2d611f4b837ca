"""How long other sessions wait for a sync: `python -m benchmarks.locks DISTRICT`, a step of the benchmark.

While a sync runs in a process of its own, another session updates random users of the district, one after the other, each in a transaction
of its own. Two figures are measured: the longest update, and the longest possible wait. That is the time from the sync's first write in
`app.users` to its commit, because an update right after that write waits for all of it. It is observed in `pg_locks`.

Before the sync writes, updates are rare, because an update of a row between plan and write makes the sync plan again. After that there are
as many updates as possible, so that waits are measured while the sync writes.
"""

import argparse
import random
import subprocess
import sys
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from benchmarks.measure import print_figures
from roster_pipeline.database.engine import Database, open_database
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.settings import Settings

PAUSE_BEFORE_SECONDS = 0.1
WATCH_SECONDS = 0.002

_USERS = sa.text("select user_id from app.users where district_id = :district and deleted_at is null order by user_id")
_UPDATE = sa.text("update app.users set updated_at = now() where user_id = :user")
_IS_WRITTEN = sa.text("""
    select exists (
        select 1
        from pg_locks
        where locktype = 'relation' and relation = 'app.users'::regclass and mode = 'RowExclusiveLock' and pid <> pg_backend_pid()
    )
""")


def longest_wait(database: Database, district: str) -> dict[str, Any]:
    """Runs and observes one sync. Returns its exit status, the longest wait, and how long it held rows of `app.users`."""
    with database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        values = {"district": find_district(connection, district).district_id}
        users = list(connection.execute(_USERS, values).scalars())
        # The first statement of a session takes longer, so it is not measured.
        _update(connection, random.choice(users))
        start = time.perf_counter()
        command = [sys.executable, "-m", "roster_pipeline.cli", "sync", district, "--json"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as sync:
            waits, holds = _watch(connection, users, sync)
        seconds = time.perf_counter() - start
    return {
        "exit_status": sync.returncode,
        "seconds": seconds,
        "updates": len(waits),
        "longest_wait_ms": 1000 * max(waits),
        "longest_hold_ms": 1000 * max(holds, default=0.0),
        "transactions": len(holds),
    }


def _watch(connection: Connection, users: list[int], sync: "subprocess.Popen[bytes]") -> tuple[list[float], list[float]]:
    """Until the sync ends: the seconds of every update, and of every transaction that had written in `app.users`."""
    waits: list[float] = []
    holds: list[float] = []
    began: float | None = None
    unwritten = next_update = time.perf_counter()
    while sync.poll() is None:
        polled = time.perf_counter()
        is_written = connection.execute(_IS_WRITTEN).scalar_one()
        if is_written and began is None:
            # Count from the last poll without a write: a little too long is better than too short.
            began = unwritten
        elif not is_written:
            if began is not None:
                holds.append(time.perf_counter() - began)
                began = None
            unwritten = polled
        if is_written or polled >= next_update:
            waits.append(_update(connection, random.choice(users)))
            next_update = time.perf_counter() + PAUSE_BEFORE_SECONDS
        else:
            time.sleep(WATCH_SECONDS)
    return waits, holds


def _update(connection: Connection, user: int) -> float:
    start = time.perf_counter()
    connection.execute(_UPDATE, {"user": user})
    return time.perf_counter() - start


def main() -> None:
    """Runs the step. The last line of its output is JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.locks")
    parser.add_argument("district")
    arguments = parser.parse_args()
    with open_database(Settings(_env_file=None)) as database:
        print_figures(longest_wait(database, arguments.district))


if __name__ == "__main__":
    main()
