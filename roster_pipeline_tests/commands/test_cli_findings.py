"""`roster findings`: the records behind the counts, on the terminal, as JSON and as CSV (R4.3)."""

import csv
from pathlib import Path

import pytest

from roster_pipeline.commands import findings
from roster_pipeline.database.engine import Database
from roster_pipeline_tests.commands.conftest import Roster
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, section, student, teacher


@pytest.fixture
def district(roster: Roster, database: Database) -> LiveDistrict:
    """Students without a username, a section without a teacher, and one that lists a person who is not shared."""
    found = LiveDistrict.sign_up(database)
    found.sync(
        clever(
            section("c1", ["p1", "ghost"], ["p3"], name="Art"),
            section("c2", ["p2"], [], name="=Chess"),
            student("p1", name="Ann Lee"),
            student("p2", name="Ben Roe"),
            teacher("p3", "eva"),
        )
    )
    return found


def test_a_rule(roster: Roster, district: LiveDistrict) -> None:
    """R4.3: each record with its name; without a name where nobody knows the record."""
    ended = roster("findings", district.clever_id, "username_missing")
    assert ended.status == 0
    assert all(text in ended.out for text in ("2 findings of sync", "Ann Lee", "Ben Roe", "p2"))
    assert "Chess" not in ended.out
    document = roster("findings", district.clever_id, "enrollment_unknown_person", "--json").document
    assert document["rules"] == [{"rule": "enrollment_unknown_person", "severity": "warn", "records": 1}]
    assert document["findings"] == [
        {"rule": "enrollment_unknown_person", "resource": "enrollments", "clever_id": "ghost", "name": None, "username": None}
    ]


def test_all_rules(roster: Roster, district: LiveDistrict, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4.3: without a rule, the counts of all rules and the first records of each."""
    monkeypatch.setattr(findings, "SHOWN", 1)
    out = roster("findings", district.clever_id).out
    assert all(text in out for text in ("4 findings of sync", "Ann Lee", "=Chess", "Only the first 1 of each rule"))
    assert "Ben Roe" not in out
    assert len(roster("findings", district.clever_id, "--json").document["findings"]) == 4


def test_a_file(roster: Roster, district: LiveDistrict, tmp_path: Path) -> None:
    """R4.3: all records. Only the caller can read the file, and a name that a spreadsheet would compute is text."""
    path = tmp_path / "findings.csv"
    ended = roster("findings", district.clever_id, "--csv", str(path))
    assert (ended.status, "Ann" in ended.out) == (0, False)
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rule"], row["clever_id"], row["name"]) for row in rows] == [
        ("enrollment_unknown_person", "ghost", ""),
        ("section_without_teacher", "c2", "'=Chess"),
        ("username_missing", "p1", "Ann Lee"),
        ("username_missing", "p2", "Ben Roe"),
    ]
    refused = roster("findings", district.clever_id, "--csv", str(tmp_path / "missing" / "file.csv"))
    assert (refused.status, "cannot be written" in refused.err) == (1, True)


def test_what_cannot_be_listed(roster: Roster, database: Database) -> None:
    """SPEC 2: a rule that does not exist is wrong usage; a district without a sync has no findings yet."""
    new = LiveDistrict.sign_up(database)
    ended = roster("findings", new.clever_id, "no_such_rule")
    assert (ended.status, "section_without_teacher" in ended.err) == (2, True)
    assert "No sync of district" in roster("findings", new.clever_id).out
