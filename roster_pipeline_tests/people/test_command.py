"""`roster admins import` and `roster users import`, as a person runs them (R8.2)."""

from pathlib import Path

import pytest
from sqlalchemy import text

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline_tests.commands.conftest import Roster

DISTRICT = "5f00000000000000000000d1"
HEADER = "username,first_name,last_name,role,school,email\n"
GOOD = HEADER + "dora,Dora,Day,district_admin,,\nsue,Sue,Poe,school_admin,North,sue@example.org\n"
BAD = GOOD + "tess,Tess,Roe,teacher,North,\n"


@pytest.fixture
def district(roster: Roster, database: Database) -> str:
    """A district of typing_agent with one school."""
    assert roster("district", "add", DISTRICT, "--name", "Test", "--profile", "typing_agent", "--domain", "test.example.org").status == 0
    with database.engine.begin() as connection:
        connection.execute(text("insert into app.schools (district_id, name) select district_id, 'North' from app.districts"))
    return DISTRICT


@pytest.fixture
def write(tmp_path: Path) -> Path:
    """The path of the file that a test writes."""
    return tmp_path / "people.csv"


def usernames(database: Database) -> list[str]:
    with database.engine.connect() as connection:
        return list(connection.execute(text("select username from app.users order by username")).scalars())


def test_good_file(roster: Roster, district: str, database: Database, write: Path) -> None:
    """R8.2: exit status 0 and the counts. The second import changes nothing."""
    write.write_text(GOOD)
    ended = roster("admins", "import", str(write), "--district", district)
    assert (ended.status, ended.err) == (0, "")
    assert "people 2 created, 0 restored, 0 updated, 0 unchanged; 0 rows refused." in ended.out
    assert usernames(database) == ["dora", "sue"]
    again = roster("admins", "import", str(write), "--district", district, "--json")
    assert (again.status, again.document["unchanged"], again.document["created"], again.document["written"]) == (0, 2, 0, True)


def test_a_bad_row_is_reported_and_the_rest_imported(roster: Roster, district: str, database: Database, write: Path) -> None:
    """R8.2: exit status 1, with line, column and reason, but no value of the file."""
    write.write_text(BAD)
    ended = roster("admins", "import", str(write), "--district", district)
    assert ended.status == 1
    line = next(line for line in ended.out.splitlines() if "must be one of" in line)
    assert line.split()[:2] == ["4", "role"]
    assert "Tess" not in ended.out
    assert "sue" not in ended.out
    assert usernames(database) == ["dora", "sue"]


def test_strict(roster: Roster, district: str, database: Database, write: Path) -> None:
    """R8.2: it imports all rows or none."""
    write.write_text(BAD)
    ended = roster("admins", "import", str(write), "--district", district, "--strict", "--json")
    assert ended.status == 1
    assert ended.document == {
        "district": district,
        "district_id": 1,
        "preview": False,
        "written": False,
        "created": 0,
        "restored": 0,
        "updated": 0,
        "unchanged": 0,
        "refused": 1,
        "roles_ended": 0,
        "roles_left": 0,
        "beyond_licenses": 0,
        "ended": [],
        "errors": [{"line": 4, "column": "role", "reason": "must be one of: school_admin, district_admin"}],
    }
    assert usernames(database) == []
    assert "--strict imports all rows or none" in roster("admins", "import", str(write), "--district", district, "--strict").out


def test_preview(roster: Roster, district: str, database: Database, write: Path) -> None:
    """R8.2: it prints the people that it would write, and writes nobody."""
    write.write_text(GOOD)
    ended = roster("admins", "import", str(write), "--district", district, "--preview")
    assert ended.status == 0
    assert all(text in ended.out for text in ("Dora Day", "sue", "school_admin at North", "would be 2 created", "Nothing was written"))
    people = roster("admins", "import", str(write), "--district", district, "--preview", "--json").document["people"]
    assert [(person["line"], person["action"], person["username"]) for person in people] == [(2, "create", "dora"), (3, "create", "sue")]
    assert usernames(database) == []


def test_the_profile_decides_about_users(roster: Roster, district: str, database: Database, write: Path) -> None:
    """SPEC 1: typing_agent has no users from CSV; a setting of the district allows them."""
    write.write_text(BAD)
    ended = roster("users", "import", str(write), "--district", district)
    assert (ended.status, ended.out) == (1, "")
    assert "no users from CSV" in ended.err
    more = ("--name", "Test", "--profile", "typing_agent", "--domain", "test.example.org", "--set", "users_csv=true")
    assert roster("district", "add", district, *more).status == 0
    assert roster("users", "import", str(write), "--district", district).status == 0
    assert usernames(database) == ["dora", "sue", "tess"]


def test_roles_that_end_are_reported(roster: Roster, district: str, database: Database, write: Path) -> None:
    """R8.2: by line, role and school; with names only in a preview."""
    write.write_text(GOOD)
    assert roster("admins", "import", str(write), "--district", district, "--by", "the office").status == 0
    write.write_text(HEADER + "dora,Dora,Day,school_admin,North,\n")
    preview = roster("admins", "import", str(write), "--district", district, "--preview", "--json").document
    assert [(each["roles"], each["ends"]) for each in preview["people"]] == [(["school_admin at North"], ["district_admin"])]
    ended = roster("admins", "import", str(write), "--district", district)
    assert "Roles that end, because the file no longer gives them: 1." in ended.out
    assert "Dora" not in ended.out
    line = next(line for line in ended.out.splitlines() if "district_admin" in line)
    assert line.split() == ["2", "district_admin", "-"]
    explained = roster("explain", district, "sue").out
    assert "import by the office" in explained


def test_a_template(roster: Roster, district: str, write: Path) -> None:
    """R8.2: the first line of a file, which imports nobody."""
    write.write_text(roster("admins", "template").out)
    ended = roster("admins", "import", str(write), "--district", district, "--json")
    assert (ended.status, ended.document["created"], ended.document["refused"]) == (0, 0, 0)
    assert roster("users", "template", "--json").document["roles"] == ["student", "teacher", "school_admin", "district_admin"]


def test_while_a_sync_runs(roster: Roster, district: str, database: Database, write: Path) -> None:
    """R11.2, SPEC 2: exit status 4."""
    write.write_text(GOOD)
    with database.engine.connect() as connection, district_lock(connection.execution_options(isolation_level="AUTOCOMMIT"), 1, district):
        ended = roster("admins", "import", str(write), "--district", district, "--json")
    assert (ended.status, ended.document["retryable"]) == (4, True)
    assert usernames(database) == []


def test_a_file_that_cannot_be_used(roster: Roster, district: str, write: Path) -> None:
    """SPEC 2: a missing file is wrong usage; a file without the header is refused."""
    assert roster("admins", "import", str(write), "--district", district).status == 2
    write.write_text(GOOD.removeprefix(HEADER))
    ended = roster("admins", "import", str(write), "--district", district)
    assert ended.status == 1
    assert "Line 1 of the file is not the header" in ended.err
    assert "dora" not in ended.err.lower()
