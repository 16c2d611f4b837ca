"""A small district that a test builds person by person. The sandbox serves it, and it is synced into a real database.

Belongs here: what tests with a `Scenario` share. Does not belong here: expectations.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text

from roster_pipeline.database.clock import Clock, database_time
from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import Agreement, record_agreement
from roster_pipeline.sandbox import Changes, District, Sandbox, SandboxServer
from roster_pipeline.settings import Settings
from roster_pipeline.support import holds
from roster_pipeline.support.preview import PlanReport, preview_sync
from roster_pipeline.sync.run import SyncReport, SyncRequest, run_sync

DISTRICT = "5f00000000000000000000d1"


class Scenario:
    """One district: `change` it at Clever, `sync` it, and read `app`."""

    def __init__(self, database: Database, server: SandboxServer, profile: str) -> None:
        self.database = database
        self.settings = Settings(
            _env_file=None,
            clever_api_url=server.url,
            clever_auth_url=server.url,
            clever_client_id="sandbox",
            clever_client_secret="sandbox-secret",
        )
        self.profile = profile
        self.district = server.sandbox.district()
        self.change: Changes = server.sandbox.change()
        self.clock: Clock = database_time
        self.agree()

    def agree(self, **agreement: Any) -> None:
        """Record (or change) the district's agreement."""
        with self.database.engine.begin() as connection:
            record_agreement(connection, Agreement(DISTRICT, "Test", self.profile, "test.example", **agreement))

    def school(self, name: str) -> str:
        """A new school; returns its Clever id."""
        key = self.district.new_id()
        self.change.replace(
            "schools",
            key,
            {
                "id": key,
                "district": DISTRICT,
                "name": name,
                "sis_id": name,
                "school_number": "1",
                "created": _STAMP,
                "last_modified": _STAMP,
            },
        )
        return key

    def students(self, school: str, number: int, *, prefix: str = "s") -> list[str]:
        """New students of one school, with usernames prefix1, prefix2, ...; returns their Clever ids."""
        return [
            self.change.add_user("student", f"F{prefix}{each}", f"L{prefix}{each}", schools=[school], username=f"{prefix}{each}", grade="3")
            for each in range(1, number + 1)
        ]

    def fill(self, sizes: dict[str, int]) -> dict[str, list[str]]:
        """Make a school with a number of students for each name, and sync once. Each school has a section with all of them.

        Returns the ids of the students, by the school's name.
        """
        students = {}
        for name, size in sizes.items():
            school = self.school(name)
            teacher = self.change.add_user("teacher", "T", name, schools=[school], username=f"t-{name}")
            students[name] = self.students(school, size, prefix=name)
            self.change.add_section(school, name=f"class {name}", students=students[name], teachers=[teacher])
        assert self.sync().status == "successful"
        return students

    def sync(self) -> SyncReport:
        """Sync now."""
        return run_sync(self.database, self.settings, SyncRequest(DISTRICT), clock=self.clock)

    def plan(self) -> PlanReport:
        """What a sync would do now."""
        return preview_sync(self.database, self.settings, DISTRICT, clock=self.clock)

    def rows(self, query: str, **parameters: Any) -> Sequence[Any]:
        """The rows of a query, as tuples."""
        with self.database.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query), parameters)]

    def value(self, query: str, **parameters: Any) -> Any:
        """The one value of a query."""
        return self.rows(query, **parameters)[0][0]

    def execute(self, statement: str, **parameters: Any) -> None:
        """Write something by hand, as support or the application would."""
        with self.database.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    def active(self, role: str = "student") -> set[str]:
        """Clever ids of the active users of a role."""
        query = """
            select u.clever_id from app.users u join app.user_roles r using (user_id)
            where r.role = :role and u.deleted_at is null and r.deleted_at is null
        """
        return {row[0] for row in self.rows(query, role=role)}

    def holds(self, *statuses: str) -> list[Any]:
        """Holds of these statuses (default open), oldest first: kind, role, school's name, acts, hold_id."""
        query = """
            select h.kind, h.role, s.name, (h.counts ->> 'acts')::int, h.hold_id
            from ops.holds h left join app.schools s using (school_id)
            where h.status = any(:statuses) order by h.kind, h.role, h.school_id
        """
        return list(self.rows(query, statuses=list(statuses or ("open",))))

    def approve(self, *hold_ids: int) -> None:
        """Approve holds; without ids, all open ones."""
        with self.database.engine.begin() as connection:
            chosen = hold_ids or [row[-1] for row in self.holds()]
            holds.approve(connection, chosen, holds.Decider("tester"), now=self.clock(connection))


_STAMP = "2026-01-01T00:00:00.000Z"


@contextmanager
def scenario(database: Database, profile: str = "typing_agent") -> Iterator[Scenario]:
    """An empty district of this profile with its sandbox."""
    record = {"id": DISTRICT, "name": "#DEMO Test", "sis_type": "sftp", "portal_url": "", "login_methods": [], "launch_date": "2025-01-01"}
    with SandboxServer(Sandbox(District(record))) as server:
        yield Scenario(database, server, profile)
