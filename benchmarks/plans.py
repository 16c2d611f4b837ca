"""The query plans of a sync among many districts: `python -m benchmarks.plans`. The exit status is 1 if a plan has a violation.

Belongs here: a database of many districts, the query plans that PostgreSQL used in it, and what must not be in them. Does not belong here:
targets for seconds (`__main__.py`), and fixing a bad plan (`dbt_like_sql/` and the migrations).

One large district and one small one are synced; the small one is copied with other ids, `--districts` times. Then come three syncs of the
large district: a night with a full plan, a night with an incremental plan, and a bad day with a full plan, when many people are protected,
missing (held by a brake) or have new ids. The small one has one night with a full plan. Every statement that names a table runs under
EXPLAIN ANALYZE. These are violations:

- *nested loop over people*: rows are read repeatedly, and add up to a multiple of the district's people; or an index is searched for many
  people, and finds almost nothing each time. Only in the large district: for a few hundred people a nested loop can be best.
- *other districts' rows*: a table with the rows of all districts is read from end to end, or a whole index of it. In both districts.

PostgreSQL checks foreign keys row by row, which is in no query plan.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psycopg
import sqlalchemy as sa

from benchmarks.fleet import sign_up
from roster_pipeline.database.embedded import EmbeddedServer
from roster_pipeline.database.engine import Database, open_database
from roster_pipeline.database.migrate import migrate
from roster_pipeline.database.runner import Step
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.sandbox import Sandbox, SandboxServer
from roster_pipeline.settings import Settings
from roster_pipeline.sync import incremental
from roster_pipeline.sync.run import SyncRequest, run_sync

Node = dict[str, Any]

SMALL = 500

# Reading so many rows of other districts is not a violation.
FEW = 1_000
# An index may be searched for this share of the people, and repeated reads may be this multiple of them.
LOOKUPS_PER_PERSON = 0.1
READS_PER_PERSON = 10
# An index that finds at least this many rows each time is a good way to read a part of a table, like the members of each classroom.
ROWS_PER_LOOKUP = 10
# These nodes compute or remember something for each row, and do not read a table.
PER_ROW = {"Function Scan", "Memoize", "ProjectSet", "Result", "Values Scan"}

_STATEMENT = re.compile(r"\s*(select|with|insert|update|delete|create temporary table[^(]*? as)\b", re.IGNORECASE)
_NAMES_A_TABLE = re.compile(r"\b(app|staging|reconcile|ops|pg_temp)\"?\.")

# The tables to copy: those that a sync of the district reads, and the rows of its syncs in ops.
_COPIED = sa.text("""
    select
        table_schema || '.' || table_name as table,
        array_agg(array[column_name, udt_name]::text[] order by ordinal_position) as columns
    from information_schema.columns
    where
        (table_schema in ('app', 'staging', 'reconcile') or (table_schema, table_name) in (('ops', 'syncs'), ('ops', 'quarantine')))
        and is_generated = 'NEVER'
    group by table_schema, table_name
    having bool_or(column_name = 'district_id')
""")
_IDS_APART = 10**9
_NAMES = {"clever_id", "username", "school", "course", "term"}


@dataclass
class Statement:
    """One executed statement of a sync."""

    text: str
    plan: Node
    seconds: float
    step: str = ""

    @property
    def writes(self) -> bool:
        """Whether it writes rows of a table, or creates a table."""
        return self.plan["Node Type"] == "ModifyTable" or self.text.startswith("create")

    @property
    def rows(self) -> int:
        """How many rows it returned or wrote."""
        node = self.plan
        if node["Node Type"] == "ModifyTable":
            node = next(each for each in node["Plans"] if each["Parent Relationship"] == "Outer")
        return int(node["Actual Rows"] * node["Actual Loops"])


class Explaining(psycopg.ClientCursor[Any]):
    """A cursor that explains what it executes. EXPLAIN ANALYZE executes a statement; one that reads is then executed for its rows."""

    statements: list[Statement] = []  # noqa: RUF012  (one list for all cursors)

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """Executes a statement, like the cursor of psycopg."""
        text = self.mogrify(query, params)
        # A statement that writes and returns rows writes only single rows of ops, and is not explained.
        if not _STATEMENT.match(text) or not _NAMES_A_TABLE.search(text) or " RETURNING " in text:
            return super().execute(query, params, **options)
        with psycopg.ClientCursor(self.connection) as other:
            # Without the time of each node: reading the clock for every row would take most of the time.
            row = other.execute(b"explain (analyze, timing off, format json) " + text.encode()).fetchone()
        assert row is not None
        found = row[0][0]
        statement = Statement(text.strip(), found["Plan"], (found["Planning Time"] + found["Execution Time"]) / 1000)
        self.statements.append(statement)
        if not statement.writes:
            return super().execute(query, params, **options)
        self._rowcount = statement.rows
        return self


def explained_sync(database: Database, settings: Settings, district: str, *, is_full: bool = True) -> list[Statement]:
    """Syncs a district with a full or an incremental plan, and returns every statement of the sync."""

    def explain(connection: Any, _record: object) -> None:
        connection.cursor_factory = Explaining

    def name(step: Step) -> None:
        for statement in Explaining.statements:
            statement.step = statement.step or step.name

    if is_full:
        with database.engine.begin() as connection:
            connection.execute(sa.text("delete from ops.settled"))
    database.engine.dispose()
    Explaining.statements.clear()
    sa.event.listen(database.engine, "connect", explain)
    try:
        report = run_sync(database, settings, SyncRequest(district), on_step=name)
        assert ("touched" in report.counts) != is_full
    finally:
        sa.event.remove(database.engine, "connect", explain)
        database.engine.dispose()
    return list(Explaining.statements)


def violations(plan: Node, people: int, *, is_large: bool) -> Iterator[str]:
    """The violations of a query plan, a line for each node."""
    for node, above in _walk(plan):
        loops, kind, table = node["Actual Loops"], node["Node Type"], node.get("Relation Name", "")
        removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
        read = loops * (node["Actual Rows"] + removed)
        # The temporary tables of a sync have a dot in their name, like `reconcile.people`.
        has_all_districts = kind.endswith("Scan") and table and "." not in table
        reads_everything = "Index Cond" not in node and "Recheck Cond" not in node
        # With a filter for the district, only the rows that it removes are of other districts.
        others = loops * removed if "district_id = " in node.get("Filter", "") else read
        if has_all_districts and reads_everything and others > FEW:
            yield f"other districts' rows: {_described(node, above)}"
        elif is_large and loops > 1 and kind not in PER_ROW:
            too_many_lookups = loops > LOOKUPS_PER_PERSON * people and node["Actual Rows"] < ROWS_PER_LOOKUP
            if too_many_lookups if "Index" in kind else read > READS_PER_PERSON * people:
                yield f"nested loop over people: {_described(node, above)}"


def _walk(node: Node, above: tuple[str, ...] = ()) -> Iterator[tuple[Node, tuple[str, ...]]]:
    """This node and every node below it, each with the names of the nodes above it."""
    yield node, above
    for each in node.get("Plans", []):
        yield from _walk(each, (*above, each.get("Subplan Name", node["Node Type"])))


def _described(node: Node, above: tuple[str, ...]) -> str:
    parts = [node["Node Type"], *(f"on {node[key]}" for key in ("Relation Name", "CTE Name") if key in node), node.get("Index Name", "")]
    counts = f"{node['Actual Loops']:,} x {node['Actual Rows']:,.0f} rows of {node['Plan Rows']:,} expected"
    conditions = [f"{key}: {node[key]}" for key in ("Rows Removed by Filter", "Index Cond", "Filter", "Join Filter") if key in node]
    return " ".join(filter(None, parts)) + f" ({'; '.join([counts, *conditions])}) in {' > '.join(above[-3:])}"


def copy_district(database: Database, district_id: int, copies: int) -> None:
    """Makes many districts like this one, each with its own ids and names. The rows of a copy are together, as after a first sync."""
    with database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        # Do not check foreign keys: a copy keeps them as the original does.
        connection.exec_driver_sql("set session_replication_role = replica")
        for table, columns in connection.execute(_COPIED).all():
            names = ", ".join(name for name, _ in columns)
            values = ", ".join(_copied(name, kind) for name, kind in columns)
            connection.exec_driver_sql(f"""
                with original as materialized (select * from {table} where district_id = {district_id})
                insert into {table} ({names})
                select {values}
                from generate_series(1, cast({copies} as bigint)) as copy
                cross join lateral (select * from original where copy > 0 offset 0) as original
            """)
        connection.invalidate()
    with database.engine.connect() as opened:
        opened.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("vacuum (analyze)")


def _copied(column: str, kind: str) -> str:
    if kind == "int8" and column.endswith("_id"):
        return f"{column} + copy * {_IDS_APART}"
    if kind == "uuid":
        return f"cast(md5({column}::text || copy) as uuid)"
    if column in _NAMES:
        return f"copy || '-' || {column}"
    if kind == "_text" and column.endswith(("students", "teachers", "schools")):
        return f"case when {column} is not null then array(select copy || '-' || each from unnest({column}) as each) end"
    return column


def main() -> None:
    """Makes the districts, explains their syncs, and prints the slowest steps and the violations."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plans")
    parser.add_argument("--students", type=int, default=100_000, help="students of the large district")
    parser.add_argument("--districts", type=int, default=1_000, help=f"other districts of {SMALL} students each")
    arguments = parser.parse_args()
    # Allow an incremental plan also with few students.
    incremental.FROM_PEOPLE = 0
    found: list[str] = []
    with among_districts(arguments.students, arguments.districts) as (database, settings, sandbox, (large, small)):
        for change, is_full in ((night, True), (next_night, False), (bad_day, True)):
            change(database, sandbox, large)
            statements = explained_sync(database, settings, large, is_full=is_full)
            found += _report(change.__name__, statements, people_of(database, large), is_large=True)
        night(database, sandbox, small)
        found += _report("night", explained_sync(database, settings, small), people_of(database, small), is_large=False)
    print(f"{len(found)} violations")
    sys.exit(1 if found else 0)


def night(_database: Database, sandbox: Sandbox, district: str) -> None:
    """Changes about 1 % of the records."""
    sandbox.change(district).night_of_changes(1)


def next_night(_database: Database, sandbox: Sandbox, district: str) -> None:
    """Does the same with other people."""
    sandbox.change(district).night_of_changes(2)


def bad_day(database: Database, sandbox: Sandbox, district: str) -> None:
    """Removes a twelfth of the students, gives new ids to a twentieth of them, and protects a twentieth of all users."""
    students = sorted(user for user, roles in sandbox.district(district).roles.items() if "student" in roles)
    sandbox.change(district).remove_users(students[::12])
    sandbox.change(district).re_id(students[1::20])
    protect = "update app.users set protected = true where user_id % 20 = 0 and district_id = :district"
    with database.engine.begin() as connection:
        connection.execute(sa.text(protect), {"district": find_district(connection, district).district_id})


@contextmanager
def among_districts(students: int, others: int) -> Iterator[tuple[Database, Settings, Sandbox, list[str]]]:
    """A database with a large district and a small one, both synced, and many copies of the small one."""
    sandbox = Sandbox(rate_limit=None)
    with ExitStack() as opened:
        home = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="roster-plans-")))
        clever = opened.enter_context(SandboxServer(sandbox))
        # The data of root's server are not below the temporary folder.
        opened.callback(lambda: shutil.rmtree((home / "postgres").resolve(), ignore_errors=True))
        opened.enter_context(EmbeddedServer(home))
        settings = Settings(
            _env_file=None,
            roster_home=home,
            clever_api_url=clever.url,
            clever_auth_url=clever.url,
            clever_client_id=sandbox.client_id,
            clever_client_secret=sandbox.client_secret,
        )
        database = opened.enter_context(open_database(settings))
        migrate(database)
        districts = sign_up(database, sandbox, [students, SMALL])
        for clever_id in districts:
            run_sync(database, settings, SyncRequest(clever_id))
        with database.engine.connect() as connection:
            small = find_district(connection, districts[1]).district_id
        copy_district(database, small, others)
        yield database, settings, sandbox, districts


def people_of(database: Database, district: str) -> int:
    """The number of people in the district's last accepted snapshot."""
    query = sa.text("select count(*) from staging.users inner join app.districts using (district_id) where districts.clever_id = :district")
    with database.engine.connect() as connection:
        return int(connection.execute(query, {"district": district}).scalar_one())


def _report(what: str, statements: list[Statement], people: int, *, is_large: bool) -> list[str]:
    """Prints the slowest steps of a sync of a district with so many people, and its violations. Returns the violations."""
    seconds: dict[str, float] = defaultdict(float)
    rows: dict[str, int] = defaultdict(int)
    for each in statements:
        seconds[each.step] += each.seconds
        rows[each.step] += each.rows
    slowest = sorted(seconds, key=lambda step: -seconds[step])[:10]
    print(f"\n{people:,} people, {what}: {sum(seconds.values()):.1f} s in {len(statements)} statements\n")
    print("\n".join(f"  {seconds[step]:7.2f} s {rows[step]:10,} rows  {step}" for step in slowest))
    found = [
        f"{people:,} people, {what}, {each.step}: {line}"
        for each in statements
        for line in violations(each.plan, people, is_large=is_large)
    ]
    print("\n".join(["", *found]), flush=True)
    return found


if __name__ == "__main__":
    main()
