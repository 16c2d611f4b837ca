"""One sync, or the floor: `python -m benchmarks.product DISTRICT sync|floor`, a step of the benchmark.

The floor is the work of every sync that reads each record: fetch the same pages over HTTP, decode them into the same typed records, and
COPY the same columns into unlogged tables, as text, without index or constraint.
"""

import argparse
import time

from psycopg import sql

from benchmarks.measure import print_figures, wal_of_app, written
from benchmarks.place import Figures
from roster_pipeline.clever.columns import flatten
from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.database.copying import copy_rows
from roster_pipeline.database.engine import Database, open_database, psycopg_connection
from roster_pipeline.fleet import preload  # noqa: F401  (the processes of a shard import it too)
from roster_pipeline.settings import Settings
from roster_pipeline.source.vocabulary import Collection
from roster_pipeline.sync.run import SyncRequest, run_sync

# After this many bytes of WAL, PostgreSQL still has all its files (`min_wal_size`, with room for a checkpoint in between).
READABLE_WAL_BYTES = 400_000_000


def sync(database: Database, settings: Settings, district: str) -> Figures:
    """Runs one sync. Returns its seconds, its slowest steps, and what it wrote in `app`."""
    with written(database) as what:
        start = time.perf_counter()
        report = run_sync(database, settings, SyncRequest(district))
        seconds = time.perf_counter() - start
    if report.status != "successful":
        raise RuntimeError(f"the sync ended as {report.status}")
    steps = {step.name: round(step.seconds, 2) for step in sorted(report.steps, key=lambda step: -step.seconds)[:12]}
    rows = sum(what.rows.values())
    # After a sync that has written more, PostgreSQL may have reused the files already.
    app_wal = {} if rows or what.wal_bytes > READABLE_WAL_BYTES else {"app_wal_bytes": wal_of_app(database, what.between)}
    return {"seconds": seconds, "steps": steps, "rows": rows, "wal_bytes": what.wal_bytes, **app_wal}


def floor(database: Database, settings: Settings, district: str) -> Figures:
    """Fetches, decodes and COPYs all records. Returns the seconds and the rows."""
    rows = 0
    with database.engine.connect() as opened:
        connection = psycopg_connection(opened.execution_options(isolation_level="AUTOCOMMIT"))
        start = time.perf_counter()
        connection.execute("create schema floor")
        with DistrictPull(settings, district, keep_student_email=False) as pull:
            for collection in Collection:
                for page in pull.pages(collection):
                    if not page.records:
                        continue
                    table = flatten(collection, page.records)
                    columns = ", ".join(f"{name} text" for name in table.column_names)
                    connection.execute(f"create unlogged table if not exists floor.{collection.resource} ({columns})".encode())
                    copy_rows(connection, sql.Identifier("floor", collection.resource), table)
                    rows += table.num_rows
        seconds = time.perf_counter() - start
        connection.execute("drop schema floor cascade")
    return {"seconds": seconds, "rows": rows}


def main() -> None:
    """Runs the step. The last line of its output is JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.product")
    parser.add_argument("district")
    parser.add_argument("what", choices=["sync", "floor"])
    arguments = parser.parse_args()
    settings = Settings(_env_file=None)
    with open_database(settings) as database:
        print_figures((sync if arguments.what == "sync" else floor)(database, settings, arguments.district))


if __name__ == "__main__":
    main()
