"""Connecting a district that has accounts already, through the command line: readiness, approval, the first sync, a night of changes, and a
school that is not shared any more.

Each single rule is tested elsewhere. Here every step is checked as the person who connects the district sees it: exit status, `ops.syncs`,
`ops.holds`, and what happens to each existing account.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from roster_pipeline import cli
from roster_pipeline.database.engine import Database
from roster_pipeline.sandbox import Sandbox, SandboxServer, generate_district
from roster_pipeline.settings import Settings
from roster_pipeline_tests.onboarding import HELD, Connection, Person


@pytest.fixture
def connection(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Connection]:
    """A simulated Clever with 200 students at three schools, and an environment with its address and the test's database."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(cli, "_install_handlers", lambda **_: None)  # they would stay installed for the rest of the test run
    monkeypatch.chdir(tmp_path)
    clever = Sandbox(generate_district(1, 200))
    with SandboxServer(clever) as server:
        environment = {
            "ROSTER_HOME": str(tmp_path / "home"),
            "ROSTER_DATABASE_URL": database.url.render_as_string(hide_password=False),
            "CLEVER_API_URL": server.url,
            "CLEVER_AUTH_URL": server.url,
            "CLEVER_CLIENT_ID": clever.client_id,
            "CLEVER_CLIENT_SECRET": clever.client_secret,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield Connection(database, clever, capsys)


def _numbers(report: dict[str, Any], topic: str) -> dict[str, int]:
    """The counts of one question in a readiness report."""
    (question,) = [question for question in report["questions"] if question["topic"] == topic]
    return {item["item"]: item["count"] for item in question["items"]}


class Accounts(NamedTuple):
    """The accounts that the application has before the district is connected: user ids, and the people in Clever that they belong to.

    Attributes:
        same_name: accounts of students with the same usernames as in Clever, except for case and blanks; `matching` are these students.
        teaching: the account of the teacher `teacher`.
        returned: the soft-deleted account of the student `back`.
        active: one of two accounts of the student `both`; the other is soft-deleted.
        lost: accounts that match no person in Clever.
        deleted: soft-deleted accounts that are left unchanged.
        protected: accounts that no sync changes.
        named: people in Clever that get their username.
        nameless: Clever ids of people that do not get their username.
    """

    same_name: list[int]
    matching: list[Person]
    teaching: int
    teacher: Person
    returned: int
    back: Person
    active: int
    both: Person
    lost: list[int]
    deleted: list[int]
    protected: list[int]
    named: list[Person]
    nameless: list[str]


def test_a_district_with_accounts_is_connected(connection: Connection, tmp_path: Path) -> None:
    """SPEC 5, 7, 8, 10, step by step: connect, readiness, hold, approval, adoption; a night; an unshared school, its hold, its approval."""
    accounts = connect(connection, tmp_path)
    matches = report_readiness(connection, accounts)
    hold_the_first_sync(connection, accounts)
    approve_the_first_sync(connection, accounts, matches)
    recognise_accounts(connection, accounts)
    sync_a_night_of_changes(connection, accounts)
    elementary_to_high = connection.district.shared("schools")
    unshared = hold_an_unshared_school(connection, *elementary_to_high)
    approve_an_unshared_school(connection, unshared)
    # R5.4: after the school is shared again, the same accounts are active.
    connection.changes.reshare([elementary_to_high[2]])
    connection.on_district("sync")
    assert connection.linked(unshared.people) == unshared.before


def connect(connection: Connection, tmp_path: Path) -> Accounts:
    """Records the agreement, and makes the accounts that the application has already."""
    roster, query, district = connection.roster, connection.query, connection.district
    agreement = ("--name", "Test", "--profile", "typing_agent", "--domain", "test.example.org", "--licenses", "500")
    assert roster("district", "add", district.id, *agreement)["status"] == "active"
    query("insert into app.schools (district_id, name) values (1, 'Aspen')")
    query("insert into app.classrooms (district_id, school_id, name) select 1, school_id, 'Room 1' from app.schools")
    students, teachers = connection.people("student"), connection.people("teacher")
    matching, students = students[:90], students[90:]
    # Case and blanks make no difference (SPEC 5).
    same_name = [connection.account(f" {each.username.upper()} ", first_name=each.first, last_name=each.last) for each in matching]
    teaching = connection.account(teachers[0].username, role="teacher")
    enroll = "insert into app.enrollments (classroom_id, user_id, role) select classroom_id, :user, 'student' from app.classrooms"
    query(enroll, user=same_name[0])
    differing = [connection.account(f"{person.username}@school.example.org") for person in students[:6]]
    former = [connection.account(f"former{number}") for number in range(4)]
    back, of_two, both, imported_name, staff_name, roleless, deactivated, *contested = students[6:15]
    returned = connection.account(back.username, deleted=True)
    two = [connection.account(name, deleted=True) for name in [of_two.username] * 2]
    active = connection.account(both.username)
    deleted_long_ago = connection.account(both.username, deleted=True)
    guarded = connection.account(imported_name.username, protected=True)
    teacher_of_the_name = connection.account(staff_name.username, role="teacher")
    without_role = connection.account(roleless.username, role=None)
    not_to_restore = connection.account(deactivated.username, deleted=True, do_not_restore=True)
    for person in contested:
        connection.changes.change_username(person.clever_id, "contested.name")
    contested_name = connection.account("contested.name")
    admin = next(key for key in district.shared("users", "staff") if "teacher" in district.get("users", key)["roles"])
    name_of_admin = connection.account(district.get("users", admin)["roles"]["staff"]["credentials"]["district_username"], role="teacher")
    owner = connection.account("owner", role="account_owner")
    (tmp_path / "admins.csv").write_text("username,first_name,last_name,role,school,email\nadmin,A,Person,district_admin,,\n")
    roster("admins", "import", "admins.csv", "--district", district.id)
    return Accounts(
        same_name,
        matching,
        teaching,
        teachers[0],
        returned,
        back,
        active,
        both,
        lost=[*differing, *former, teacher_of_the_name, without_role, contested_name, name_of_admin],
        deleted=[*two, deleted_long_ago, not_to_restore],
        protected=[guarded, owner],
        named=[of_two, staff_name, roleless, deactivated],
        nameless=[imported_name.clever_id, *(person.clever_id for person in contested), admin],
    )


def report_readiness(connection: Connection, accounts: Accounts) -> int:
    """Runs readiness and plan, which write nothing. Returns how many usernames match."""
    lost = accounts.lost
    with connection.nothing_written():
        report = connection.on_district("readiness", status=HELD)
        assert (report["verdict"], report["would_be_held"]) == ("stop", ["initial"])
        existing, names, data = (_numbers(report, topic) for topic in ("existing_users", "usernames", "existing_data"))
        assert (existing["active"], existing["protected"]) == (len(accounts.same_name) + len(lost) + 5, 3)
        assert names["match"] == len(accounts.same_name) + 3  # and a teacher, a student who returns, and the active one of two accounts
        assert names["taken"] == 1
        assert names["contested"] == 2 + 2  # two of them are in the generated district
        assert names["not_recognised"] == 3 + 2
        assert (data["users_adopted"], data["users_restored"], data["users_soft_deleted"]) == (names["match"], 1, len(lost))
        assert (data["schools_soft_deleted"], data["classrooms_soft_deleted"], data["enrollments_soft_deleted"]) == (1, 1, 1)
        connection.on_district("plan", status=HELD)
    assert (connection.query("select * from ops.syncs"), connection.query("select * from ops.holds")) == ([], [])
    return names["match"]


def hold_the_first_sync(connection: Connection, accounts: Accounts) -> None:
    """R7.6: the whole first sync is held, and is still held at the next attempt."""
    with connection.nothing_written():
        for _ in range(2):
            assert connection.on_district("sync", status=HELD)["counts"]["changes"] == {}
    assert connection.query("select trigger, status from ops.syncs order by sync_id") == [("initial", "held")] * 2
    holds = connection.query("select kind, sync_id, status, counts -> 'acts' from ops.holds")
    assert holds == [("initial", 2, "open", len(accounts.lost) + 2)], "the latest sync that ended on the hold"


def approve_the_first_sync(connection: Connection, accounts: Accounts, matches: int) -> None:
    """After approval, the first sync does what the plan shows."""
    on_district, query = connection.on_district, connection.query
    hold_id = on_district("holds")["holds"][0]["hold_id"]
    connection.roster("approve", str(hold_id), "--by", "ticket 1")
    planned = on_district("plan")["changes"]
    assert on_district("sync")["counts"]["changes"] == planned == connection.written(3)
    assert planned["users"]["adopt"] == matches
    assert planned["users"]["soft_delete"] == len(accounts.lost)
    assert query("select trigger, status from ops.syncs where sync_id = 3") == [("initial", "successful")]
    assert query("select status, decided_by from ops.holds") == [("used", "ticket 1")]
    assert on_district("holds")["holds"] == []


def recognise_accounts(connection: Connection, accounts: Accounts) -> None:
    """R5.2: people that match an account keep it. No other account is matched."""
    query, teaching = connection.query, (accounts.teaching, accounts.teacher)
    again = [(accounts.returned, accounts.back), (accounts.active, accounts.both)]
    adopted = [*zip(accounts.same_name, accounts.matching, strict=True), teaching, *again]
    assert connection.users([user for user, _ in adopted]) == [(person.clever_id, "clever", True) for _, person in adopted]
    assert connection.users(accounts.lost) == [(None, "app", False)] * len(accounts.lost)
    assert connection.users(accounts.deleted) == [(None, "app", False)] * 4
    assert connection.users(accounts.protected) == [(None, "app", True)] * 2
    assert query("select count(*) from app.users where source = 'csv' and deleted_at is null") == [1]
    # R5.5: a free username goes to the only person that claims it. A protected user's name, and a name that two claim, go to nobody.
    for person in accounts.named:
        assert connection.linked([person.clever_id]) == [(person.username, True)]
    for clever_id in accounts.nameless:
        assert connection.linked([clever_id]) == [(clever_id, True)]
    # The rows from before are soft-deleted, not removed.
    assert query("select name from app.schools where source = 'app' and deleted_at is not null") == ["Aspen"]
    assert query("select deleted_at is not null from app.enrollments where source = 'app'") == [True]
    with connection.nothing_written():
        assert connection.on_district("sync")["message"] == "No changes."


def sync_a_night_of_changes(connection: Connection, accounts: Accounts) -> None:
    """A night with students that are new, removed, renamed, moved or have a new id, and two that swap their usernames."""
    query, matching = connection.query, accounts.matching
    elementary, middle, _high = connection.district.shared("schools")
    one, other, removed, renamed, renumbered = (person.clever_id for person in matching[:5])
    moved = connection.only_at(elementary)[-1]
    new = connection.changes.add_user("student", "New", "Student", schools=[middle], username="new.student", grade="7")
    connection.changes.swap_usernames(one, other)
    connection.changes.remove_users([removed])
    connection.changes.rename(renamed, last="Renamed")
    connection.changes.move_students({moved: middle})
    new_id = connection.changes.re_id([renumbered])[renumbered]
    changed = connection.on_district("sync")["counts"]["changes"]
    assert changed == connection.written(5)
    assert changed["users"] == {"create": 1, "relink": 1, "soft_delete": 1, "update": 4}
    assert connection.linked([new, one, other, removed]) == [
        ("new.student", True),
        (matching[1].username, True),
        (matching[0].username, True),
        (matching[2].username, False),
    ]
    assert query("select last_name from app.users where clever_id = :id", id=renamed) == ["Renamed"]
    moved_to = (
        "select schools.clever_id from app.users as users inner join app.schools as schools using (school_id) where users.clever_id = :id"
    )
    assert query(moved_to, id=moved) == [middle]
    assert connection.users(accounts.same_name[2:5]) == [(removed, "clever", False), (renamed, "clever", True), (new_id, "clever", True)]


class Unshared(NamedTuple):
    """A school that is not shared any more: its students that have no other school, their users before, and the holds that opened."""

    people: list[str]
    before: list[Any]
    holds: list[Any]


ENROLLED = """
    select count(*) from app.enrollments as enrollments
    inner join app.users as users on enrollments.user_id = users.user_id
    where users.clever_id = any(:held) and enrollments.deleted_at is null
"""


def hold_an_unshared_school(connection: Connection, _elementary: str, middle: str, high: str) -> Unshared:
    """A school is not shared any more: deactivating its people is held, a new student is not."""
    on_district, query = connection.on_district, connection.query
    held = connection.only_at(high)
    assert len(held) > 20
    before, enrolled = connection.linked(held), query(ENROLLED, held=held)
    connection.changes.unshare([high])
    new = connection.changes.add_user("student", "New", "Student", schools=[middle], username="new.student.2", grade="7")
    assert on_district("readiness", status=HELD)["verdict"] == "stop"
    stopped = on_district("sync", status=HELD)
    assert query("select status from ops.syncs where sync_id = :sync", sync=stopped["sync_id"]) == ["held"]
    assert stopped["counts"]["changes"]["users"]["create"] == 1
    assert connection.linked([new]) == [("new.student.2", True)]
    assert connection.linked(held) == before
    assert query(ENROLLED, held=held) == enrolled
    assert query("select deleted_at is null from app.schools where clever_id = :high", high=high) == [True]
    holds = on_district("holds")["holds"]
    (high_id,) = query("select school_id from app.schools where clever_id = :high", high=high)
    assert {hold["school_id"] for hold in holds} == {None, high_id}
    kinds = {(hold["kind"], hold["role"]) for hold in holds}
    assert kinds >= {("district_role", "student"), ("school_role", "student")}
    assert {hold["status"] for hold in holds} == {"open"}
    # Without a decision, the next night is the same, with the same holds.
    with connection.nothing_written():
        latest = on_district("sync", status=HELD)["sync_id"]
    holds = [{**hold, "sync_id": latest} for hold in holds]
    assert on_district("holds")["holds"] == holds
    return Unshared(held, before, holds)


def approve_an_unshared_school(connection: Connection, unshared: Unshared) -> None:
    """After approval it is applied, once."""
    on_district, query, held = connection.on_district, connection.query, unshared.people
    for hold in unshared.holds:
        connection.roster("approve", str(hold["hold_id"]), "--by", "ticket 2")
    planned = on_district("plan")["changes"]
    applied = on_district("sync")
    assert applied["counts"]["changes"] == planned == connection.written(applied["sync_id"])
    assert planned["users"]["soft_delete"] >= len(held)
    assert connection.linked(held) == [(username, False) for username, _ in unshared.before]
    assert query(ENROLLED, held=held) == [0]
    assert query("select distinct status from ops.holds") == ["used"]
    with connection.nothing_written():
        on_district("sync")
