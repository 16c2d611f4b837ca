"""Connecting a district through the command line: the commands, queries, and accounts that the application has already.

Does not belong here: what must be true after each step (`test_onboarding.py`).
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text

from roster_pipeline import cli
from roster_pipeline.database.engine import Database
from roster_pipeline.sandbox import Changes, District, Sandbox

DONE, HELD = 0, 3
TABLES = ("schools", "classrooms", "users", "user_roles", "enrollments")


class Person(NamedTuple):
    """A student or teacher of the simulated Clever."""

    clever_id: str
    username: str
    first: str
    last: str


class Connection:
    """What a person who connects a district uses: the command, the application's database, and the district's changes in Clever."""

    def __init__(self, database: Database, clever: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
        self.district: District = clever.district()
        self.changes: Changes = clever.change()
        self._database = database
        self._capsys = capsys

    def roster(self, *arguments: str, status: int = DONE) -> dict[str, Any]:
        """Runs a command, which must end with `status`, and returns its document."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, "--json"])
        captured = self._capsys.readouterr()
        assert ended.value.code == status, captured.out + captured.err
        document = json.loads(captured.out)
        assert isinstance(document, dict)
        return document

    def on_district(self, command: str, *arguments: str, status: int = DONE) -> dict[str, Any]:
        """Runs a command about the district."""
        return self.roster(command, self.district.id, *arguments, status=status)

    def query(self, statement: str, **values: object) -> list[Any]:
        """Runs a statement and returns its rows. If they have one column, returns its values."""
        with self._database.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            rows: list[Any] = list(result.all()) if result.returns_rows else []
        return [row[0] for row in rows] if rows and len(rows[0]) == 1 else rows

    def people(self, role: str) -> list[Person]:
        """The people in Clever that have only this role, and a username that no other of them has."""
        found = []
        for key in self.district.shared("users", role):
            record = self.district.get("users", key)
            if list(record["roles"]) != [role]:
                continue
            username = record["roles"][role]["credentials"]["district_username"]
            found.append(Person(key, username, record["name"]["first"], record["name"]["last"]))
        names = [person.username for person in found]
        return [person for person in found if person.username and names.count(person.username) == 1]

    def only_at(self, school: str) -> list[str]:
        """The students that are shared and whose only school is this one."""
        students = ((key, self.district.get("users", key)) for key in self.district.shared("users", "student"))
        return [key for key, record in students if record["roles"]["student"]["schools"] == [school]]

    def account(self, username: str, *, role: str | None = "student", deleted: bool = False, **more: object) -> int:
        """Makes an account as the application does: a few columns, with plain SQL. Returns its user id."""
        columns = {"username": username, "first_name": "A", "last_name": "Person", **more}
        names, values = ", ".join(columns), ", ".join(f":{name}" for name in columns)
        deleted_at = "now()" if deleted else "null"
        insert = f"insert into app.users (district_id, deleted_at, {names}) values (1, {deleted_at}, {values}) returning user_id"
        (user_id,) = self.query(insert, **columns)
        if role is not None:
            school = "null" if role in ("account_owner", "district_admin") else "(select min(school_id) from app.schools)"
            self.query(f"insert into app.user_roles (user_id, role, school_id) values (:user, :role, {school})", user=user_id, role=role)
        return int(user_id)

    def users(self, ids: Sequence[int]) -> list[tuple[str | None, str, bool]]:
        """Clever id, source and whether active, for each user id."""
        found = self.query("select user_id, clever_id, source, deleted_at is null from app.users where user_id = any(:ids)", ids=list(ids))
        by_id = {row[0]: tuple(row[1:]) for row in found}
        return [by_id[user_id] for user_id in ids]

    def linked(self, people: Sequence[str]) -> list[tuple[str, bool]]:
        """For each of these Clever ids, the username of its user, and whether the user is active."""
        found = self.query("select clever_id, username, deleted_at is null from app.users where clever_id = any(:ids)", ids=list(people))
        by_id = {row[0]: tuple(row[1:]) for row in found}
        return [by_id[clever_id] for clever_id in people]

    def written(self, sync_id: int) -> dict[str, dict[str, int]]:
        """Rows of `ops.changes` of one sync, by table and action."""
        counted: dict[str, dict[str, int]] = {}
        for entity, action, rows in self.query(
            "select entity, action, count(*) from ops.changes where sync_id = :sync group by 1, 2", sync=sync_id
        ):
            counted.setdefault(entity, {})[action] = rows
        return counted

    @contextmanager
    def nothing_written(self) -> Iterator[None]:
        """Checks that the block writes no row of `app` except the agreement, and no history."""
        before = self._versions()
        yield
        assert self._versions() == before

    def _versions(self) -> list[Any]:
        rows = [self.query(f"select row_to_json(rows)::text || xmin::text from app.{table} as rows order by 1") for table in TABLES]
        return [*rows, self.query("select count(*) from ops.changes")]
