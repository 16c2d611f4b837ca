"""What an import writes, on a real database (R8.1, R8.2)."""

import io
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from roster_pipeline.people.imports import PREVIEW_PEOPLE, ImportReport, PlannedPerson, import_people
from roster_pipeline_tests.people.world import ANN, DISTRICT, DORA, NORTH, READABLE, SAM, SETTINGS, SOUTH, SUE, World, counts, run


def test_people_of_every_role(world: World) -> None:
    """R8.1, R8.2, R5.9: source, protection, sign-in, license and schools of imported people."""
    report = run(world, ANN, SAM, DORA, SUE)
    assert counts(report) == (4, 0, 0, 0)
    assert (report.is_written, report.refused, report.errors) == (True, 0, ())
    common = {"source": "csv", "protected": True, "is_active": True}
    assert [dict(row) for row in world.rows(READABLE)] == [
        common | row
        for row in (
            {
                "username": "ann", "first_name": "Ann", "last_name": "Lee", "email": "ann@example.org", "school": None,
                "license_status": None, "login_methods": ["password", "google"], "roles": ["teacher North csv"],
            },
            {
                "username": "sam", "first_name": "Sam", "last_name": "Roe", "email": None, "school": "South",
                "license_status": "licensed", "login_methods": ["password"], "roles": ["student South csv"],
            },
            {
                "username": "dora", "first_name": "Dora", "last_name": "Day", "email": None, "school": None,
                "license_status": None, "login_methods": ["password"], "roles": ["district_admin csv"],
            },
            {
                "username": "sue", "first_name": "Sue", "last_name": "Poe", "email": None, "school": None,
                "license_status": None, "login_methods": ["password"], "roles": ["school_admin North csv"],
            },
        )
    ]  # fmt: skip


def test_the_same_file_twice_changes_nothing(world: World) -> None:
    """R8.2."""
    rows = (ANN, SAM, DORA, SUE, "ann,Ann,Lee,school_admin,South,ann@example.org")
    run(world, *rows)
    before = world.everything()
    assert counts(run(world, *rows)) == (0, 0, 0, 4)
    assert world.everything() == before
    assert before["ops.syncs"] == []


def test_only_people_in_the_file_are_updated(world: World) -> None:
    """R8.2: only rows and columns that differ are written. People who are not in the file are left unchanged."""
    run(world, ANN, SAM, SUE)
    before = {row["username"]: row for row in world.everything()["app.users"]}
    report = run(world, "ANN,Anna,Lee,teacher,North,", SAM, "sam,Sam,Roe,student,North,")
    assert counts(report) == (0, 0, 2, 0)
    after = {row["username"]: row for row in world.everything()["app.users"]}
    ann = world.user("ANN")
    assert (ann["first_name"], ann["email"], ann["login_methods"]) == ("Anna", None, ["password"])
    assert after["ANN"]["user_id"] == before["ann"]["user_id"]
    # A new role counts as an update of the person, although the row of `app.users` stays the same.
    assert after["sam"] == before["sam"]
    assert world.user("sam")["roles"] == ["student North csv", "student South csv"]
    assert after["sue"] == before["sue"]


def test_several_rows_are_several_roles(world: World) -> None:
    """R8.2: all spellings of a username are one person. A repeated row adds no second role. The primary school is that of the first student
    row."""
    report = run(
        world,
        "Max,Max,Roe,teacher,North,m@x.org",
        "MAX,Max,Roe,student,South,m@x.org",
        "max,Max,Roe,student,North,m@x.org",
        "max,Max,Roe,student,North,m@x.org",
        "max,Max,Roe,district_admin,,m@x.org",
    )
    assert counts(report) == (1, 0, 0, 0)
    max_ = world.user("Max")
    assert max_["roles"] == ["district_admin csv", "student North csv", "student South csv", "teacher North csv"]
    assert (max_["school"], max_["license_status"]) == ("South", "licensed")


def test_text_is_cleaned(world: World) -> None:
    """R4.5: it is trimmed and NFC, with spaces for line breaks and without control characters. All other characters of a name stay."""
    run(world, '" zoe\u00a0","Zoe\u0308\r\nAnne",O\u2019Brien\x07 \u202ex,teacher,"  north ",')
    user = world.user("zoe")
    assert (user["first_name"], user["last_name"], user["roles"]) == ("Zoë Anne", "O\u2019Brien \u202ex", ["teacher North csv"])


@pytest.mark.parametrize("school", [SOUTH, "South", " SOUTH ", "ＳＯＵＴＨ"])
def test_a_school_by_clever_id_or_name(world: World, school: str) -> None:
    """R8.2: names of schools are compared in the same way as usernames."""
    assert run(world, f"ann,Ann,Lee,teacher,{school},").errors == ()
    assert world.user("ann")["roles"] == ["teacher South csv"]


def test_a_clever_id_goes_before_a_name(world: World) -> None:
    """R8.2: a school whose name is another school's Clever id does not make that id ambiguous."""
    world.execute("insert into app.schools (district_id, name) values (:id, :name)", name=NORTH)
    assert run(world, f"ann,Ann,Lee,teacher,{NORTH},").errors == ()
    assert world.user("ann")["roles"] == ["teacher North csv"]


def test_preview_writes_nothing_and_says_what_would_happen(world: World) -> None:
    """R8.2."""
    run(world, ANN, SAM)
    before = world.everything()
    report = run(
        world, SUE, "ann,Anna,Lee,teacher,North,", "sam,Sam,Roe,student,North,", DORA, "bad,B,L,teacher,Nowhere,", SAM, preview=True
    )
    assert world.everything() == before
    assert (report.is_written, counts(report), report.refused) == (False, (2, 0, 2, 0), 1)
    assert report.people == (
        PlannedPerson(2, "create", "sue", "Sue", "Poe", [], ["school_admin at North"], []),
        PlannedPerson(3, "update", "ann", "Anna", "Lee", ["first_name", "email", "login_methods"], ["teacher at North"], []),
        PlannedPerson(4, "update", "sam", "Sam", "Roe", ["school_id"], ["student at North", "student at South"], []),
        PlannedPerson(5, "create", "dora", "Dora", "Day", [], ["district_admin"], []),
    )


def test_a_strict_preview_of_a_file_with_an_error_is_empty(world: World) -> None:
    """R8.2: the import would write nobody."""
    report = run(world, ANN, "bad,B,Lee,teacher,Nowhere,", strict=True, preview=True)
    assert (counts(report), report.people, report.refused) == ((0, 0, 0, 0), (), 1)


def test_a_deleted_imported_user_is_restored(world: World) -> None:
    """R8.2: with the same user id, protected again, and with the roles of the file."""
    run(world, ANN, SAM)
    user_id = world.rows("select user_id from app.users where username = 'ann'")
    world.execute("update app.users set deleted_at = now(), protected = false")
    world.execute("update app.user_roles set deleted_at = now()")
    report = run(world, "ann,Ann,Lee,teacher,North,ann@example.org")
    assert counts(report) == (0, 1, 0, 0)
    ann, sam = world.user("ann"), world.user("sam")
    assert (ann["is_active"], ann["protected"], ann["roles"]) == (True, True, ["teacher North csv"])
    assert world.rows("select user_id from app.users where username = 'ann'") == user_id
    assert (sam["is_active"], sam["roles"]) == (False, [])


def test_the_last_deleted_of_several_imported_users_is_restored(world: World) -> None:
    """The user with the latest deletion is restored; after a tie, the newest row. An active user comes before all of them."""
    world.execute("""
        insert into app.users (district_id, username, first_name, source, deleted_at) values
            (:id, 'ann', 'old', 'csv', '2020-01-01'), (:id, 'ann', 'newer', 'csv', '2021-01-02'),
            (:id, 'ann', 'newest', 'csv', '2021-01-02'), (:id, 'sam', 'deleted', 'csv', '2021-01-01'), (:id, 'sam', 'active', 'csv', null)
    """)
    newest = world.rows("select user_id from app.users where first_name in ('newest', 'active') order by username")
    assert counts(run(world, ANN, SAM)) == (0, 1, 1, 0)
    assert world.rows("select user_id from app.users where deleted_at is null order by username") == newest


def test_an_import_does_not_protect_a_user_again(world: World) -> None:
    """R8.1: an import protects new people. Afterwards only support changes the flag."""
    run(world, ANN)
    world.execute("update app.users set protected = false")
    assert counts(run(world, ANN)) == (0, 0, 0, 1)
    assert counts(run(world, "ann,Anna,Lee,teacher,North,")) == (0, 0, 1, 0)
    assert world.user("ann")["protected"] is False


def test_roles_of_other_sources_are_left_unchanged(world: World) -> None:
    """R8.2: an active role keeps its source, a deleted one is restored with source `csv`. A student's role that is not imported stays."""
    run(world, SAM)
    world.execute("update app.user_roles set source = 'app'")
    world.execute("insert into app.user_roles (user_id, role, source) select user_id, 'account_owner', 'app' from app.users")
    world.execute("""
        insert into app.user_roles (user_id, role, school_id, source, deleted_at)
        select u.user_id, 'teacher', s.school_id, 'app', case when s.name = 'South' then now() end from app.users u, app.schools s
    """)
    assert counts(run(world, "sam,Sam,Roe,teacher,North,", "sam,Sam,Roe,teacher,South,")) == (0, 0, 1, 0)
    sam = world.user("sam")
    assert sam["roles"] == ["account_owner app", "student South app", "teacher North app", "teacher South csv"]
    assert (sam["license_status"], sam["school"]) == ("licensed", "South")


def test_login_methods_are_the_districts(world: World) -> None:
    """R5.9: in the district's order, without `clever`; `google` needs an e-mail."""
    world.agree(login_methods=["classlink", "google", "clever", "microsoft"])
    run(world, ANN, SUE)
    assert world.user("ann")["login_methods"] == ["classlink", "google", "microsoft"]
    assert world.user("sue")["login_methods"] == ["classlink", "microsoft"]


class Rows(io.RawIOBase):
    """A file of this many people, which is never in memory as a whole."""

    def __init__(self, people: int) -> None:
        self._lines = self._generate(people)
        self._rest = b""

    @staticmethod
    def _generate(people: int) -> Iterator[bytes]:
        yield b"username,first_name,last_name,role,school,email\n"
        for number in range(people):
            yield f"u{number},First{number},Last{number},{'student' if number % 10 else 'teacher'},North,u{number}@example.org\n".encode()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while len(self._rest) < len(buffer) and (line := next(self._lines, None)):
            self._rest += line
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def test_a_large_file_is_streamed(world: World) -> None:
    """R8.2: a file with four times the people needs no more memory of this process."""

    def peak(number: int, *, preview: bool = False) -> tuple[ImportReport, int]:
        tracemalloc.start()
        try:
            report = import_people(world.database, SETTINGS, DISTRICT, io.BufferedReader(Rows(number)), "users", preview=preview)
            return report, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    _, small = peak(10_000, preview=True)
    report, large = peak(40_000)
    assert counts(report) == (40_000, 0, 0, 0)
    assert large < 1.3 * small, (small, large)


def test_a_preview_shows_a_bounded_number_of_people(world: World) -> None:
    """The counts include all people."""
    report = import_people(world.database, SETTINGS, DISTRICT, io.BufferedReader(Rows(PREVIEW_PEOPLE + 1)), "users", preview=True)
    assert (report.created, len(report.people)) == (PREVIEW_PEOPLE + 1, PREVIEW_PEOPLE)
    assert [person.line for person in report.people] == sorted(person.line for person in report.people)
