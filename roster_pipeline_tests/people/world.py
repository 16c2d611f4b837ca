"""Two districts, an import into one of them, and the rows that it writes.

Does not belong here: assertions, except that a refused file changes nothing.
"""

import io
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import Agreement, record_agreement
from roster_pipeline.people.imports import ImportReport, Kind, import_people
from roster_pipeline.settings import Settings

SETTINGS = Settings(_env_file=None)
DISTRICT = "5f00000000000000000000d1"
OTHER = "5f00000000000000000000d2"
NORTH = "5f0000000000000000000051"
SOUTH = "5f0000000000000000000052"
TABLES = ("districts", "schools", "users", "user_roles", "classrooms", "enrollments")
READABLE = """
    select
        username, first_name, last_name, email, s.name as school, u.source, u.protected, license_status, login_methods,
        u.deleted_at is null as is_active,
        array(
            select concat_ws(' ', r.role, rs.name, r.source) from app.user_roles r left join app.schools rs using (school_id)
            where r.user_id = u.user_id and r.deleted_at is null order by 1
        ) as roles
    from app.users u left join app.schools s using (school_id) order by u.user_id
"""
ANN = "ann,Ann,Lee,teacher,North,ann@example.org"
SAM = "sam,Sam,Roe,student,South,"
DORA = "dora,Dora,Day,district_admin,,"
SUE = "sue,Sue,Poe,school_admin,North,"


class World:
    """A database with two districts. The first one has the schools North and South."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.agree()
        self.agree(OTHER)
        for clever_id, name in ((NORTH, "North"), (SOUTH, "South")):
            self.execute(
                "insert into app.schools (district_id, clever_id, name, source) values (:id, :clever_id, :name, 'clever')",
                clever_id=clever_id,
                name=name,
            )

    def agree(self, district: str = DISTRICT, profile: str = "twig_science", **settings: object) -> None:
        with self.database.engine.begin() as connection:
            record_agreement(connection, Agreement(district, "District", profile, "d.example", settings=settings))

    def execute(self, statement: str, **parameters: Any) -> None:
        """Run a statement; `:id` is the first district."""
        with self.database.engine.begin() as connection:
            own = connection.execute(text("select district_id from app.districts where clever_id = :d"), {"d": DISTRICT}).scalar_one()
            connection.execute(text(statement), {"id": own} | parameters)

    def rows(self, query: str) -> list[Mapping[str, Any]]:
        with self.database.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(query)).mappings()]

    def user(self, username: str) -> Mapping[str, Any]:
        (user,) = [row for row in self.rows(READABLE) if row["username"] == username]
        return user

    def usernames(self) -> list[str]:
        return [row["username"] for row in self.rows('select username from app.users order by username collate "C"')]

    def everything(self) -> dict[str, list[Mapping[str, Any]]]:
        """Every row of `app` with its version, and the history of syncs."""
        tables = [f"app.{table}" for table in TABLES] + ["ops.changes", "ops.syncs"]
        return {table: self.rows(f"select *, xmin::text, ctid::text from {table} order by ctid") for table in tables}

    def share(self, clever_id: str, username: str | None = None, *, staff: bool = False, district_admin: bool = False) -> None:
        """Add a person to the last accepted snapshot."""
        self.execute(
            "insert into staging.users (district_id, clever_id, first_name, last_name, username, staff_schools, is_district_admin)"
            " values (:id, :clever_id, 'F', 'L', :username, :staff, :admin)",
            clever_id=clever_id,
            username=username,
            staff=[NORTH] if staff else None,
            admin=district_admin,
        )


def run(world: World, *rows: str, kind: Kind = "users", district: str = DISTRICT, **how: Any) -> ImportReport:
    lines = ("username,first_name,last_name,role,school,email", *rows)
    return import_people(world.database, SETTINGS, district, io.BytesIO("\n".join(lines).encode()), kind, **how)


def counts(report: ImportReport) -> tuple[int, int, int, int]:
    return report.created, report.restored, report.updated, report.unchanged


def refused(world: World, *rows: str, **how: Any) -> list[tuple[int, str | None, str]]:
    """The errors of a file whose rows are all refused. It must change nothing."""
    before = world.everything()
    report = run(world, *rows, **how)
    assert counts(report) == (0, 0, 0, 0)
    assert world.everything() == before
    return [(error.line, error.column, error.reason) for error in report.errors]
