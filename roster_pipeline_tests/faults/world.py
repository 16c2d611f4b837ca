"""A district that has been synced, its rows before and after one more undisturbed sync, and the checks after every fault.

Belongs here: making that district, reading everything that a sync writes, and the checks. Does not belong here: faults.
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import URL

from roster_pipeline.database.engine import Database, open_database
from roster_pipeline.database.lock import locked_districts
from roster_pipeline.districts.agreement import Agreement, record_agreement
from roster_pipeline.sandbox import Sandbox, SandboxServer, generate_district
from roster_pipeline.settings import Settings
from roster_pipeline.sync.run import SyncRequest, run_sync
from roster_pipeline_tests.conftest import _database_settings as database_settings
from roster_pipeline_tests.conftest import _fresh_database as fresh_database
from roster_pipeline_tests.ended import Ended
from roster_pipeline_tests.faults.processes import GIVE_UP_SECONDS, Running, count_points, discarded, roster
from roster_pipeline_tests.until import until

# Every stored table that a sync writes, except those about the sync itself.
TABLES = (
    *(f"app.{each}" for each in ("districts", "schools", "classrooms", "users", "user_roles", "enrollments")),
    *(f"staging.{each}" for each in ("districts", "schools", "terms", "courses", "sections", "users", "quarantined")),
    *(f"reconcile.{each}" for each in ("user_matches", "soft_deletes", "license_reconciliation", "readiness")),
    *(f"ops.{each}" for each in ("holds", "quarantine", "changes")),
)
# Numbers and times that differ between two databases although the same happened in both.
_DIFFERS = {"change_id", "hold_id", "sync_id", "created_at", "updated_at", "active_since", "pulled_at", "changed_at"}
_SLOW_SECONDS = 1.5

Rows = Mapping[str, Sequence[str]]
Copy = Callable[[URL, str], AbstractContextManager[URL]]


@dataclass(frozen=True)
class Town:
    """A simulated Clever, and a template database. The district has been synced twice, and Clever has changes for a third sync.

    Attributes:
        template: name of the database that is copied for every test.
        before: the template's rows.
        after: the rows after an undisturbed sync, from `comparable`.
        last_point: the number of the last point of the apply (`processes.count_points`), counted from 0.
        seconds: how long the undisturbed sync took, with the start of its process.
    """

    sandbox: Sandbox
    server: URL
    template: str
    before: Rows
    after: Rows
    last_point: int
    seconds: float
    environment: Mapping[str, str]
    copy: Copy


class World:
    """One test's copy of the town's database."""

    def __init__(self, town: Town, database: Database, directory: Path) -> None:
        self.town = town
        self.sandbox = town.sandbox
        self.database = database
        self.directory = directory
        self.clever_id = town.sandbox.district().id
        self.environment = {**town.environment, "ROSTER_DATABASE_URL": database.url.render_as_string(hide_password=False)}
        ((self.last_sync,),) = self.rows("select max(sync_id) from ops.syncs")

    def start(self, *arguments: str, prepare: Callable[[], None] | None = None, **environment: str) -> Running:
        """Starts one command."""
        of_target = (arguments,) if prepare is None else (arguments, prepare)
        return Running(roster, *of_target, environment={**self.environment, **environment}, directory=self.directory)

    def run(self, *arguments: str, prepare: Callable[[], None] | None = None, **environment: str) -> Ended:
        """Runs one command to its end."""
        return self.start(*arguments, prepare=prepare, **environment).ended()

    def sync(self, prepare: Callable[[], None] | None = None, **environment: str) -> Ended:
        """Syncs the district, and waits for the end."""
        return self.run("sync", self.clever_id, "--json", prepare=prepare, **environment)

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        with self.database.engine.begin() as connection:
            result = connection.execute(sa.text(query), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    def syncs(self, columns: str = "status") -> list[tuple[Any, ...]]:
        """These columns of every sync since the copy was made."""
        return self.rows(f"select {columns} from ops.syncs where sync_id > :last order by sync_id", last=self.last_sync)

    def exact(self) -> Rows:
        """All rows, with all columns."""
        return exact(self.database)

    def comparable(self) -> Rows:
        """All rows, without numbers and times, which differ between databases."""
        return comparable(self.database)

    def lock_is_free(self) -> bool:
        with self.database.engine.connect() as connection:
            return not locked_districts(connection)

    def until(self, holds: Callable[[], Any]) -> None:
        """Waits until the function returns true."""
        until(holds, seconds=GIVE_UP_SECONDS)

    @contextmanager
    def stopped_in_pull(self, prepare: Callable[[], None] | None = None) -> Iterator[Running]:
        """A sync that has read a part of the district and is stopped (SIGSTOP): it holds the lock, and has no transaction."""
        self.sandbox.misbehave("delay", "/v3.0/sections", seconds=_SLOW_SECONDS, times=1)
        syncing = self.start("sync", self.clever_id, "--json", prepare=prepare)
        with discarded(syncing):
            # The fault is used up when the request arrives. The answer comes later.
            self.until(lambda: not len(self.sandbox.faults))
            syncing.signal(signal.SIGSTOP)
            yield syncing

    @contextmanager
    def blocked_in_apply(self) -> Iterator[tuple[Running, int]]:
        """A sync in the middle of its apply that waits for a row of `app` that another session has locked, and its backend's process id."""
        with self.database.engine.connect() as holder:
            holder.execute(sa.text("select 1 from app.users where district_id = 1 for update"))
            syncing = self.start("sync", self.clever_id, "--json")
            with discarded(syncing):
                self.until(self.waiting)
                assert self.rows("select 1 from pg_stat_activity where query like '%app.users%' and wait_event_type = 'Lock'")
                yield syncing, self.waiting()[0]
                holder.invalidate()

    def waiting(self) -> list[int]:
        """Process ids of backends that wait for a lock."""
        waiting = "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        return [pid for (pid,) in self.rows(waiting)]

    def backend(self) -> int:
        """The backend that holds the district's lock."""
        ((pid,),) = self.rows("""
            select pid from pg_locks
            where locktype = 'advisory' and classid::bigint >> 16 = 21081
                and database = (select oid from pg_database where datname = current_database())
        """)
        return int(pid)

    def cut(self, backend: int) -> None:
        """Ends a connection from the server's side."""
        self.rows("select pg_terminate_backend(:pid)", pid=backend)


def assert_unchanged(world: World) -> None:
    """R3.2, R11.5: nothing is applied, not even in part, and no user is deactivated: every row is the same as before."""
    assert world.exact() == world.town.before


def assert_failed(world: World, failures: int = 1) -> None:
    """R11.4, R11.8: every sync since the start is shown as failed: first in the view of recent syncs, then by the command, then in its row.
    Each has one alert."""
    world.until(world.lock_is_free)
    page = world.rows("select status, kind from ops.recent_syncs where sync_id > :last", last=world.last_sync)
    assert page == [("failed", "on demand")] * failures
    shown = world.run("status", world.clever_id, "--json").document["syncs"]
    new = [each for each in shown if each["sync_id"] > world.last_sync]
    assert [(each["status"], each["finished_at"] is not None) for each in new] == [("failed", True)] * min(failures, len(new))
    assert world.syncs("status, finished_at is null, counts::text") == [("failed", False, "{}")] * failures
    assert _alerts(world, "sync_failed") == [f"sync_failed:{sync_id}" for (sync_id,) in world.syncs("sync_id")]


def assert_next_is_clean(world: World) -> None:
    """R11.4: the next sync writes the same rows as an undisturbed one, and no further alert."""
    before = _alerts(world, "sync_failed")
    ended = world.sync()
    assert ended.status == 0, ended
    assert world.syncs()[-1] == ("successful",)
    assert_equal(world.comparable(), world.town.after)
    assert _alerts(world, "sync_failed") == before


def assert_survived(world: World, failures: int = 1) -> None:
    """Everything that must hold after a fault of a sync that did not reach its commit."""
    assert_unchanged(world)
    assert_failed(world, failures)
    assert_unchanged(world)
    assert_next_is_clean(world)


def assert_applied(world: World) -> None:
    """R11.5, R7.2: the last sync is applied completely, its row says so, there is no alert, and the next sync writes nothing."""
    world.until(world.lock_is_free)
    assert world.syncs()[-1] == ("successful",)
    assert world.rows("select status from ops.recent_syncs order by sync_id desc limit 1") == [("successful",)]
    assert_equal(world.comparable(), world.town.after)
    before = world.exact(), _alerts(world, "sync_failed")
    assert world.sync().status == 0
    after = world.exact(), _alerts(world, "sync_failed")
    assert after[1] == before[1]
    # The next sync has another plan, a newer snapshot, and its own quarantine. Nothing else differs.
    for table in TABLES:
        if table not in ("reconcile.user_matches", "reconcile.soft_deletes", "reconcile.readiness", "staging.districts", "ops.quarantine"):
            assert after[0][table] == before[0][table], table


def assert_equal(actual: Rows, expected: Rows) -> None:
    """Compares row by row, so that the message of a failure is short."""
    for table in TABLES:
        ours, theirs = set(actual[table]), set(expected[table])
        assert (sorted(ours - theirs), sorted(theirs - ours)) == ([], []), table
        assert len(actual[table]) == len(expected[table]), table


def _alerts(world: World, kind: str) -> list[str]:
    found = world.rows("select event from ops.alerts where kind = :kind order by sync_id", kind=kind)
    return [event for (event,) in found]


def exact(database: Database) -> Rows:
    """Every row as text, sorted."""
    with database.engine.connect() as connection:
        return {
            table: connection.execute(sa.text(f"select each::text from {table} as each order by 1")).scalars().all() for table in TABLES
        }


def comparable(database: Database) -> Rows:
    """Every row as text, sorted. Numbers are replaced by the Clever ids and names of their rows, and times are left out."""
    with database.engine.connect() as connection:
        tables = {table: [dict(row) for row in connection.execute(sa.text(f"select * from {table}")).mappings()] for table in TABLES}
    names = {
        column: {str(row[column]): row["clever_id"] or row[name] for row in tables[f"app.{table}"]}
        for table, column, name in (
            ("users", "user_id", "username"),
            ("schools", "school_id", "name"),
            ("classrooms", "classroom_id", "name"),
        )
    }
    return {table: sorted(str(_named(row, names)) for row in rows) for table, rows in tables.items()}


def _named(row: Mapping[str, Any], names: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for column, value in row.items():
        if column in _DIFFERS:
            continue
        if isinstance(value, dict):
            named[column] = _named(value, names)
        elif column == "entity_id":
            named[column] = _entity(row["entity"], str(value), names)
        elif column in names and value is not None:
            named[column] = names[column][str(value)]
        elif column == "deleted_at":
            named[column] = value is not None
        else:
            named[column] = value
    return dict(sorted(named.items()))


_PARTS = {
    "users": ("user_id",),
    "schools": ("school_id",),
    "classrooms": ("classroom_id",),
    "user_roles": ("user_id", "role", "school_id"),
    "enrollments": ("classroom_id", "user_id", "role"),
}


def _entity(entity: str, entity_id: str, names: Mapping[str, Mapping[str, str]]) -> str:
    parts = zip(_PARTS[entity], entity_id.split(":"), strict=True)
    return ":".join(names[part].get(value, value) if part in names else value for part, value in parts)


@contextmanager
def town(server: URL, template: str, directory: Path, copy: Copy = fresh_database) -> Iterator[Town]:
    """Makes the town on a server that has a migrated `template`."""
    sandbox = Sandbox(generate_district(11, 24), rate_limit=None)
    with SandboxServer(sandbox) as clever, copy(server, template) as start:
        environment: dict[str, Any] = {
            "ROSTER_HOME": str(directory / "no-home"),
            "CLEVER_API_URL": clever.url,
            "CLEVER_AUTH_URL": clever.url,
            "CLEVER_CLIENT_ID": sandbox.client_id,
            "CLEVER_CLIENT_SECRET": sandbox.client_secret,
            "CLEVER_MAX_ATTEMPTS": "1",
            "CLEVER_PAGE_LIMIT": "10",
        }
        with open_database(database_settings(start)) as database:
            _live(database, sandbox, Settings(_env_file=None, **environment))
            before = exact(database)
        made = Town(sandbox, server, str(start.database), before, {}, 0, 0.0, environment, copy)
        with world(made, directory) as undisturbed:
            undisturbed.run("status")  # The first process waits for the imports of its fork server.
            points, began = directory / "points", time.monotonic()
            ended = undisturbed.sync(partial(count_points, points))
            seconds = time.monotonic() - began
            assert (ended.status, ended.document["status"]) == (0, "successful"), ended
            yield replace(made, after=undisturbed.comparable(), last_point=int(points.read_text()), seconds=seconds)


@contextmanager
def world(made: Town, directory: Path) -> Iterator[World]:
    """A copy of the town's database."""
    made.sandbox.behave()
    with made.copy(made.server, made.template) as url, open_database(database_settings(url)) as database:
        yield World(made, database, directory)


def _live(database: Database, sandbox: Sandbox, settings: Settings) -> None:
    """Runs two syncs, and then makes changes for the third: every action that a sync has."""
    district, change = sandbox.district(), sandbox.change()
    with database.engine.begin() as connection:
        record_agreement(connection, Agreement(district.id, "Test", "typing_agent", "test.example"))
    students, sections = sorted(district.shared("users", "student")), sorted(district.shared("sections"))
    run_sync(database, settings, SyncRequest(district.id))
    change.remove_users(students[:2])
    change.unshare(sections[:1])
    run_sync(database, settings, SyncRequest(district.id))
    change.night_of_changes(1)
    change.reshare(sections[:1])
    change.unshare(sections[1:2])
    one, other, blank = sorted(district.shared("users", "student"))[-3:]
    change.swap_usernames(one, other)
    change.patch("users", blank, "name.last", "")
    school = sorted(district.shared("schools"))[0]
    change.patch("schools", school, "name", "Renamed")
    with database.engine.begin() as connection:
        connection.execute(
            sa.text("insert into app.users (district_id, username, first_name, last_name) values (1, 'made.here', 'A', 'B')")
        )
        connection.execute(
            sa.text("insert into app.user_roles (user_id, role, school_id) select max(user_id), 'student', 1 from app.users")
        )
    change.add_user("student", "Ada", "B", schools=[school], username="made.here", grade="3")
