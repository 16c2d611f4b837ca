"""What a step of the benchmark measures: WAL, rows written in `app`, and peak memory.

Does not belong here: the steps, and time, which every step measures itself.
"""

import json
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.engine import Database
from roster_pipeline.process_memory import peak_mb

PATIENCE_SECONDS = 30.0

_POSITION = sa.text("select pg_current_wal_insert_lsn()::text")
# A commit of this flushes all WAL before it.
_WRITE = sa.text("select pg_logical_emit_message(true, 'benchmarks', '')")
_OTHERS = sa.text("""
    select count(*)
    from pg_stat_activity
    where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
""")
_ROWS = sa.text("""
    select relname, n_tup_ins + n_tup_upd + n_tup_del as rows
    from pg_stat_user_tables
    where schemaname = 'app'
""")
# The tables of app, their indexes and their TOAST tables, with their names in WAL: tablespace/database/file.
_FILES = sa.text("""
    with recursive relations as (
        select oid, reltoastrelid from pg_class where relnamespace = 'app'::regnamespace and relkind = 'r'
        union
        select pg_class.oid, pg_class.reltoastrelid
        from relations
        left join pg_index on pg_index.indrelid = relations.oid
        inner join pg_class on pg_class.oid in (pg_index.indexrelid, relations.reltoastrelid)
    )
    select concat_ws(
        '/',
        coalesce(nullif(pg_class.reltablespace, 0), pg_database.dattablespace),
        pg_database.oid,
        pg_relation_filenode(pg_class.oid)
    )
    from relations
    inner join pg_class using (oid)
    inner join pg_database on pg_database.datname = current_database()
""")


@dataclass
class Written:
    """What was written between two points.

    Attributes:
        wal_bytes: of the whole server, with its background work and the catalog rows of temporary tables.
        rows: inserted, updated and deleted rows of each table of `app`.
        between: the two positions in WAL.
    """

    wal_bytes: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    between: tuple[str, str] = ("", "")


@contextmanager
def written(database: Database) -> Iterator[Written]:
    """Counts what any process writes during the block. At its end, every other session of the database must have ended.

    Raises:
        TimeoutError: a session has not ended.
    """
    result = Written()
    before, begin = _rows_and_position(database)
    yield result
    after, end = _rows_and_position(database)
    result.rows = after - before
    result.between = (begin, end)
    with database.engine.connect() as connection:
        result.wal_bytes = wal_between(connection, begin, end)


def wal_position(connection: Connection) -> str:
    """The position of the next byte of WAL."""
    return str(connection.execute(_POSITION).scalar_one())


def wal_between(connection: Connection, begin: str, end: str) -> int:
    """Bytes of WAL between two positions."""
    query = sa.text("select (cast(:end as pg_lsn) - cast(:begin as pg_lsn))::bigint")
    return int(connection.execute(query, {"begin": begin, "end": end}).scalar_one())


def wal_of_app(database: Database, between: tuple[str, str]) -> int:
    """Bytes of the WAL records of the tables of `app` and their indexes.

    Call it soon, before the server reuses the files, and only with the embedded server, because it reads the files.
    """
    with database.engine.begin() as connection:
        connection.execute(_WRITE)
        files = set(connection.execute(_FILES).scalars())
        folder = Path(connection.execute(sa.text("show data_directory")).scalar_one())
        programs = Path(connection.execute(sa.text("select setting from pg_config where name = 'BINDIR'")).scalar_one())
    begin, end = between
    if begin == end:
        return 0
    command = [str(programs / "pg_waldump"), "--path", str(folder / "pg_wal"), "--start", begin, "--end", end]
    total = 0
    with Popen(command, stdout=PIPE, text=True) as dump:
        assert dump.stdout is not None
        for line in dump.stdout:
            # rmgr: Heap  len (rec/tot):  71/  71, tx: 9, lsn: ..., desc: ..., blkref #0: rel 1663/16384/16500 blk 3
            blocks = line.split(" rel ")[1:]
            if any(block.split(" ", 1)[0] in files for block in blocks):
                total += int(line.split("/", 2)[2].split(",", 1)[0])
    if dump.returncode:
        raise RuntimeError(f"pg_waldump ended with {dump.returncode}")
    return total


def print_figures(figures: dict[str, Any]) -> None:
    """Prints the last line of a step's output, as JSON: its figures, with the peak memory of its process and of its largest child."""
    child_peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(json.dumps(figures | {"peak_mb": peak_mb(), "child_peak_mb": child_peak_mb}))


def _rows_and_position(database: Database) -> tuple[Counter[str], str]:
    # A session may report its rows only when it ends, before it leaves pg_stat_activity. So all sessions must end, also our own.
    database.engine.dispose()
    with database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while connection.execute(_OTHERS).scalar_one():
            if time.monotonic() > deadline:
                raise TimeoutError("other sessions are still there")
            time.sleep(0.05)
        found = Counter({name: int(count) for name, count in connection.execute(_ROWS)}), wal_position(connection)
    database.engine.dispose()
    return found
