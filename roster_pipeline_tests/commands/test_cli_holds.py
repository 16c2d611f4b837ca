"""`roster holds`, `roster approve`, `roster reject`, `roster revoke` as a person uses them (R13.3 to R13.5)."""

import csv
import json
import os
import pty
import select
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roster_pipeline.sandbox import District, Sandbox
from roster_pipeline_tests.commands.conftest import Roster

Query = Callable[..., list[Any]]
WHO = ("--by", "Ann")


@pytest.fixture
def held(roster: Roster, district: District, clever: Sandbox, query: Query) -> District:
    """A district of which nearly half of the students are missing. One of them has a username that a spreadsheet takes for a formula."""
    assert roster("sync", district.id).status == 0
    students = sorted(district.shared("users", "student"))[:14]
    clever.change().remove_users(students)
    query("update app.users set username = '=1+1' where clever_id = :id", id=students[0])
    assert roster("sync", district.id).status == 3
    return district


def pending(query: Query) -> list[int]:
    return [row[0] for row in query("select hold_id from ops.holds where status = 'open' order by 1")]


def test_the_held_people_as_a_file(held: District, roster: Roster, query: Query, tmp_path: Path) -> None:
    """R13.5: Clever id, username, role, school, act; readable by this user only, and without formulas."""
    (hold, *_) = query("select hold_id from ops.holds where kind = 'district_role'")[0]
    people = [
        row[0] for row in query("select users.clever_id from ops.held_acts join app.users on act = 'delete users ' || users.clever_id")
    ]
    shown = roster("holds", "show", str(hold))
    assert shown.status == 0
    assert all(each in shown.out for each in people)
    document = json.loads(roster("holds", "show", str(hold), "--json").out)
    assert len(document["acts"]) == document["counts"]["acts"] == 14
    file = tmp_path / "held.csv"
    written = roster("holds", "show", str(hold), "--csv", str(file))
    assert "Its 14 acts are in" in written.out
    assert "delete users" not in written.out
    rows = list(csv.reader(file.open(encoding="utf-8")))
    assert rows[0] == ["clever_id", "username", "role", "school", "act"]
    assert len(rows) == 15
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not any(cell.startswith("=") for row in rows for cell in row)
    assert roster("holds", "show", "999").status == 1
    unwritable = roster("holds", "show", str(hold), "--csv", str(tmp_path / "none" / "held.csv"))
    assert (unwritable.status, "cannot be written" in unwritable.err) == (1, True)


def test_the_list_says_how_to_go_on(held: District, roster: Roster) -> None:
    """R13.5: with and without a district; and as JSON with the group of each hold."""
    for arguments in (("holds",), ("holds", held.id), ("holds", "list", held.id)):
        listed = roster(*arguments)
        assert listed.status == 0
        assert "roster holds show HOLD" in listed.out
    found = json.loads(roster("holds", "--json").out)["holds"]
    assert {"group", "plan_hash", "decided_principal", "district_name"} <= found[0].keys()
    assert roster("holds", "--help").status == 0


def test_several_holds_and_all_of_a_sync(held: District, roster: Roster, query: Query) -> None:
    """R13.3, R13.5."""
    chosen = [str(each) for each in pending(query)]
    rejected = roster("reject", *chosen, *WHO, "--reason", "not yet")
    assert rejected.status == 0
    assert rejected.out.count("is rejected") == len(chosen)
    approved = roster("approve", *chosen, *WHO, "--json")
    assert {row["status"] for row in json.loads(approved.out)["holds"]} == {"approved"}
    for hold in chosen:
        assert roster("revoke", hold, *WHO, "--reason", "too early").status == 0
    (latest,) = query("select max(sync_id) from ops.syncs")[0]
    assert roster("approve", "--sync", str(latest), "--kind", "relinks", *WHO).status == 1
    assert roster("approve", "--sync", str(latest), *WHO).status == 0
    assert query("select distinct decided_by, decided_principal like 'os:%' from ops.holds") == [("Ann", True)]
    assert roster("sync", held.id).status == 0
    refused = roster("revoke", chosen[0], *WHO, "--reason", "too late")
    assert (refused.status, "was used by sync" in refused.err) == (1, True)
    acts = [row[0] for row in query("select act from ops.audit where subject like 'hold %' order by audit_id")]
    assert acts == [each for each in ("reject", "approve", "revoke", "approve") for _ in chosen]


def test_another_plan_is_refused(held: District, roster: Roster, query: Query) -> None:
    """R13.3."""
    (hold, plan_hash) = query("select hold_id, plan_hash from ops.holds order by 1")[0]
    refused = roster("approve", str(hold), *WHO, "--plan-hash", "0" * 64)
    assert (refused.status, "changed since you looked" in refused.err) == (1, True)
    assert roster("approve", str(hold), *WHO, "--plan-hash", plan_hash).status == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("approve", "1", "--by", "  "),
        ("approve", *WHO),
        ("approve", "1", "--sync", "2", *WHO),
        ("reject", "1", "--kind", "licenses", *WHO),
        ("approve", "--sync", "2", "--kind", "nothing", *WHO),
        ("revoke", "1", *WHO),
        ("revoke", "1", *WHO, "--reason", " "),
        ("approve", "1"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], roster: Roster) -> None:
    """SPEC 2: exit status 2, before anything is read or written."""
    assert roster(*arguments).status == 2


def test_a_terminal_shows_and_asks(held: District, program: list[str], query: Query) -> None:
    """R13.3: what would be released, then a question. Without a yes nothing is decided."""
    (hold, *_) = query("select hold_id from ops.holds where kind = 'district_role'")[0]
    for answer, status, decided in (("n\n", 130, "open"), ("y\n", 0, "approved")):
        output, ended = on_a_terminal([*program, "approve", str(hold), *WHO], answer)
        assert "14 of 30 active student users would be soft-deleted" in output.replace("\r\n", " ")
        assert output.count("delete users") == 10, output
        assert "And 4 more" in output
        assert "Approve this hold? [y/N]" in output
        assert ended == status
        assert query("select status from ops.holds where hold_id = :id", id=hold) == [(decided,)]


def on_a_terminal(command: list[str], answer: str) -> tuple[str, int]:
    """Runs a command on a terminal, and answers its question."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"COLUMNS": "200"})
    os.close(theirs)
    output, is_answered = "", False
    while select.select([ours], [], [], 60)[0]:
        try:
            output += os.read(ours, 65_536).decode()
        except OSError:  # The terminal is closed when the process has ended.
            break
        if not is_answered and "[y/N]" in output:
            os.write(ours, answer.encode())
            is_answered = True
    os.close(ours)
    return output, process.wait(60)
