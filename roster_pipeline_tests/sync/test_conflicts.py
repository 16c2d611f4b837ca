"""R11.4: what the application writes while a sync is planned leads to a new plan, not to a failure.

Every write here is a transaction of its own on another connection. It commits after the sync has read `app` and before it writes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline.errors import PermanentError, RosterError, TransientError
from roster_pipeline.sync import run
from roster_pipeline_tests.sync.scenario import Scenario, scenario

USER = "(select user_id from app.users where clever_id = '{}')"


class Night:
    """A district whose next sync inserts, updates and soft-deletes rows of every roster table."""

    def __init__(self, world: Scenario) -> None:
        self.world = world
        self.a, self.b = world.school("A"), world.school("B")
        change = world.change
        self.teacher = change.add_user("teacher", "T", "A", schools=[self.a], username="teacher")
        self.stays, self.leaves, self.joins = world.students(self.a, 3)
        self.section = change.add_section(self.a, name="class", students=[self.stays, self.leaves], teachers=[self.teacher])
        assert world.sync().status == "successful"
        self.new_school = world.school("C")
        self.new_student = change.add_user("student", "New", "Comer", schools=[self.a], username="newcomer", grade="3")
        change.rename(self.stays, last="Other")
        change.remove_users([self.leaves])
        change.set_members(self.section, students=[self.stays, self.joins, self.new_student])
        self.new_section = change.add_section(self.a, name="second", students=[self.stays], teachers=[self.teacher])
        change.patch("sections", self.section, "name", "renamed")
        change.patch("schools", self.a, "name", "A renamed")
        roles = change.district.get("users", self.teacher)["roles"]
        change.set_roles(self.teacher, {"teacher": {**roles["teacher"], "schools": [self.a, self.b]}})

    def ids(self) -> dict[str, str]:
        """The fields of the statements below."""
        classroom = f"(select classroom_id from app.classrooms where clever_id = '{self.section}')"
        return {
            **{name: USER.format(getattr(self, name)) for name in ("stays", "leaves", "joins", "teacher")},
            **{name: getattr(self, name) for name in ("new_school", "new_section", "section", "a", "b")},
            "classroom": classroom,
            "school_b": f"(select school_id from app.schools where clever_id = '{self.b}')",
        }


@pytest.fixture
def night(database: Database) -> Iterator[Night]:
    with scenario(database) as world:
        yield Night(world)


@contextmanager
def meanwhile(action: Callable[[int], object]) -> Iterator[list[int]]:
    """Calls this after each plan, before its first write to `app`, with the number of the attempt. Yields the attempts."""
    attempts: list[int] = []
    with pytest.MonkeyPatch.context() as patching:
        original = vars(run)["record_plan"]

        def record(*arguments: Any) -> None:
            attempts.append(len(attempts) + 1)
            action(attempts[-1])
            original(*arguments)

        patching.setattr("roster_pipeline.sync.run.record_plan", record)
        yield attempts


LEAVE = "delete from app.enrollments where user_id = {leaves}; delete from app.user_roles where user_id = {leaves};"
# What the application writes -> whether the sync writes the same rows, so that it has to be planned again.
WRITES = {
    "insert the school": ("insert into app.schools (district_id, clever_id, name) values (1, '{new_school}', 'C')", True),
    "insert the classroom": ("insert into app.classrooms (district_id, clever_id, name) values (1, '{new_section}', 'second')", True),
    "insert the username": ("insert into app.users (district_id, username) values (1, 'NEWCOMER')", True),
    "insert the role": (
        "insert into app.user_roles (district_id, user_id, role, school_id) values (1, {teacher}, 'teacher', {school_b})",
        True,
    ),
    "insert the enrollment": (
        "insert into app.enrollments (district_id, classroom_id, user_id, role) values (1, {classroom}, {joins}, 'student')",
        True,
    ),
    "update the school": ("update app.schools set updated_at = now() where clever_id = '{a}'", True),
    "update the classroom": ("update app.classrooms set updated_at = now() where clever_id = '{section}'", True),
    "update the user": ("update app.users set email = 'x@example.org' where user_id = {stays}", True),
    "update the role": ("update app.user_roles set updated_at = now() where user_id = {leaves}", True),
    "update the enrollment": ("update app.enrollments set updated_at = now() where user_id = {leaves}", True),
    "delete the enrollment": ("delete from app.enrollments where user_id = {leaves}", True),
    "delete the role": ("delete from app.user_roles where user_id = {leaves}", True),
    "delete the user": (LEAVE + "delete from app.users where user_id = {leaves}", True),
    "delete the classroom of new enrollments": (
        "delete from app.enrollments where classroom_id = {classroom}; delete from app.classrooms where clever_id = '{section}'",
        True,
    ),
    "delete the school of a new role": ("delete from app.schools where clever_id = '{b}'", True),
    "insert somebody else": ("insert into app.users (district_id, username, protected) values (1, 'somebody', true)", False),
    "a row of its own that refers to a user": ("insert into public.badges values ({stays})", False),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_of_the_application_leads_to_a_new_plan(night: Night, write: str) -> None:
    """R11.4: of any row that the sync writes too. The result is that of a sync after the write: the next one has nothing to do."""
    world = night.world
    world.execute(
        "create table public.badges (user_id bigint references app.users (user_id))" if "badges" in WRITES[write][0] else "select 1"
    )
    statement, is_conflict = WRITES[write]
    with meanwhile(lambda attempt: world.execute(statement.format(**night.ids())) if attempt == 1 else None) as attempts:
        report = world.sync()
    assert report.status == "successful"
    assert attempts == ([1, 2] if is_conflict else [1])
    assert world.rows("select status from ops.syncs order by sync_id") == [("successful",), ("successful",)]
    assert world.value("select count(*) from app.users where username_key = 'newcomer' and deleted_at is null") == 1
    assert world.sync().counts["changes"] == {}


def test_the_same_conflict_three_times_is_permanent(night: Night) -> None:
    """R11.4: the application writes it before every attempt. The error names the table, and ops.syncs has the same reason."""
    world = night.world

    def insert_and_hide(attempt: int) -> None:
        # A row that no plan of the sync can see, and that is in the way of its write.
        world.execute("delete from app.users where username = 'newcomer'")
        world.execute("insert into app.users (district_id, username) values (1, 'newcomer')")

    def remove(attempt: int) -> None:
        world.execute("delete from app.users where username = 'newcomer'")

    with meanwhile(insert_and_hide) as attempts:
        original = vars(run)["one_state"]

        def start(*arguments: Any, **options: Any) -> Any:
            # The first statement of the transaction decides what it sees, so this is before it.
            if attempts:
                remove(attempts[-1])
            return original(*arguments, **options)

        with pytest.MonkeyPatch.context() as patching:
            patching.setattr("roster_pipeline.sync.run.one_state", start)
            with pytest.raises(PermanentError, match=r"app\.users"):
                world.sync()
    assert attempts == [1, 2, 3]
    assert world.rows("select status from ops.syncs order by sync_id") == [("successful",), ("failed",)]


def test_three_different_conflicts_are_worth_another_attempt(night: Night) -> None:
    """R11.4: the application writes a lot at that moment; that is no defect of the data."""
    world, ids = night.world, night.ids()
    names = ("insert the school", "insert the username", "insert the classroom")
    with meanwhile(lambda attempt: world.execute(WRITES[names[attempt - 1]][0].format(**ids))), pytest.raises(TransientError):
        world.sync()
    assert world.sync().status == "successful"


@pytest.mark.parametrize("table", ["schools", "classrooms", "users", "user_roles", "enrollments"])
def test_a_trigger_of_the_application_that_refuses_is_permanent(night: Night, table: str) -> None:
    """R11.4: no new plan changes it. The message says that a trigger refused, and at which table."""
    world = night.world
    world.execute("""
        create function public.refuse() returns trigger language plpgsql as $$
        begin raise exception 'the application says no'; end $$
    """)
    world.execute(f"create trigger refuse before insert or update on app.{table} for each row execute function public.refuse()")
    with meanwhile(lambda _: None) as attempts, pytest.raises(PermanentError, match="trigger") as caught:
        world.sync()
    assert attempts == [1]
    assert f"app.{table}" in caught.value.reason
    assert "says no" not in str(caught.value)


def test_a_foreign_key_of_the_application_that_refuses_is_permanent(night: Night) -> None:
    """R11.4: it refers from a roster table to a table of its own that lacks the row. After three attempts, the error names it."""
    world = night.world
    world.execute("create table public.accounts as select distinct user_id from app.enrollments")
    world.execute("alter table public.accounts add primary key (user_id)")
    world.execute("alter table app.enrollments add constraint has_account foreign key (user_id) references public.accounts (user_id)")
    with meanwhile(lambda _: None) as attempts, pytest.raises(RosterError, match="has_account") as caught:
        world.sync()
    assert attempts == [1, 2, 3]
    assert not caught.value.retryable
