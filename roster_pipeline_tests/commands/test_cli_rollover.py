"""`roster rollover preview`: what it counts, prints and writes (R14.5)."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from roster_pipeline.sandbox import District, Sandbox
from roster_pipeline.sandbox.changes import ROLLOVERS

from .conftest import Roster
from .test_cli_window import BY, night

__all__ = ["night"]

Query = Callable[..., list[Any]]


@pytest.fixture
def synced(roster: Roster, clever: Sandbox, district: District) -> str:
    """A district that is synced, so that the year can change. Its limits are 0, because it is small."""
    limits = [f"brakes.{each}_{part}=0" for each in ("role", "school") for part in ("floor", "share")]
    assert roster("district", "set", district.id, *limits).status == 0
    assert roster("sync", district.id).status == 0
    return district.id


def test_a_new_year_is_previewed(roster: Roster, clever: Sandbox, synced: str, query: Query, night: Callable[[int], str]) -> None:
    """R14.5: exactly what the sync does, with and without a window; nothing is written; exit status 3 while it would be held."""
    done = clever.change().rollover(5)
    students = query("select count(*) from app.users where grade is not null and deleted_at is null")[0][0]
    before = query("select max(sync_id), (select count(*) from ops.holds), (select count(*) from ops.audit) from ops.syncs")
    ended = roster("rollover", "preview", synced, "--json")
    assert ended.status == 3
    found = ended.document
    assert query("select max(sync_id), (select count(*) from ops.holds), (select count(*) from ops.audit) from ops.syncs") == before

    totals = found["totals"]
    assert (totals["graduate"], totals["move"]) == (done["graduated"], done["changed_school"])
    assert totals["promoted"] == done["risen"] - done["changed_school"]
    assert (totals["lost"], totals["return"], totals["new"]) == (0, 0, 0)
    assert sum(totals.values()) >= students
    assert all(row["grade"] == "12" for row in found["students"] if row["graduate"])
    assert found["window"] is None
    assert found["held_today"] == ["district_role", "school_role"]
    (brake,) = [each for each in found["brakes"] if each["kind"] == "district_role"]
    assert (brake["acts_without_window"], brake["limit_without_window"], brake["trips_without_window"]) == (done["graduated"], 0, True)
    # Graduates are counted by no brake.
    assert (brake["acts_with_window"], brake["trips_with_window"]) == (0, False)

    assert roster("window", "add", synced, "--kind", "rollover", "--from", night(0), "--to", night(2), *BY).status == 0
    within = roster("rollover", "preview", synced, "--json")
    assert (within.status, within.document["held_today"], within.document["window"]["window_id"]) == (0, [], 1)
    assert within.document["students"] == found["students"]
    report = roster("sync", synced, "--json").document
    assert (report["status"], report["counts"]["graduated"]) == ("successful", totals["graduate"])
    changes = report["counts"]["changes"]
    assert changes["users"]["soft_delete"] == totals["graduate"] + totals["lost"]
    assert (changes["classrooms"]["soft_delete"], changes["classrooms"]["create"]) == (
        found["classrooms"]["ending"],
        found["classrooms"]["beginning"],
    )


def test_it_fits_a_terminal(roster: Roster, clever: Sandbox, synced: str) -> None:
    """R14.5: tables have at most 80 columns."""
    clever.change().rollover(5)
    ended = roster("rollover", "preview", synced)
    assert ended.status == 3
    assert max(len(line) for line in ended.out.splitlines() if not line.endswith(".")) <= 80
    assert "Brakes: acts of the limit" in ended.out
    assert "No rollover window is agreed on" in ended.out
    assert "The limits of today would hold:" in ended.out


def test_an_ordinary_day(roster: Roster, synced: str) -> None:
    """R14.5: nothing would be held."""
    ended = roster("rollover", "preview", synced)
    assert ended.status == 0
    assert "The limits of today would hold nothing." in ended.out


def test_students_who_return_move_and_are_new(roster: Roster, clever: Sandbox, district: District) -> None:
    """R14.5: each category, at the school and grade of today, or of the future."""
    synced = district.id
    assert roster("sync", synced).status == 0
    change = clever.change()
    students = clever.district().shared("users", "student")
    change.remove_users(students[:1])
    assert roster("sync", synced).status == 0
    before = roster("rollover", "preview", synced, "--json").document["totals"]
    change.restore_users(students[:1])
    change.remove_users(students[1:2])
    schools = sorted(clever.district().shared("schools"))
    moved = students[2]
    home = clever.district().get("users", moved)["roles"]["student"]["school"]
    change.move_students({moved: next(each for each in schools if each != home)})
    change.add_user("student", "New", "Comer", schools=[home], grade="3")
    change.patch("users", students[3], "roles.student.grade", "PostGraduate")
    totals = roster("rollover", "preview", synced, "--json").document["totals"]
    assert {each: totals[each] - before[each] for each in totals} == {
        "stay": -3,
        "promoted": 1,
        "move": 1,
        "graduate": 0,
        "lost": 1,
        "return": 1,
        "new": 1,
    }


def step(roster: Roster, variant: str, number: int, *options: str) -> None:
    """A step of a variant in the simulated Clever of the test."""
    port = os.environ["CLEVER_API_URL"].rpartition(":")[2]
    ended = roster("sandbox", "rollover", variant, "--step", str(number), "--port", port, *options)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(f"Step {number} of {len(ROLLOVERS[variant])}: ")


def test_everything_at_once_after_a_pause(roster: Roster, synced: str, night: Callable[[int], str], query: Query) -> None:
    """R14.4: in a rollover window nobody has to decide anything."""
    roster("window", "add", synced, "--kind", "rollover", "--from", night(0), "--to", night(2), *BY)
    step(roster, "paused", 1)
    assert roster("sync", synced, "--json").document["counts"]["changes"] == {}
    step(roster, "paused", 2)
    report = roster("sync", synced, "--json").document
    assert report["status"] == "successful"
    assert report["counts"]["graduated"] == report["counts"]["changes"]["users"]["soft_delete"]
    assert query("select count(*) from ops.holds") == [(0,)]


def test_an_empty_july(roster: Roster, synced: str, night: Callable[[int], str], query: Query) -> None:
    """R14.3: additions only keeps every classroom, and holds nothing; then the new year comes in a rollover."""
    classrooms = query("select count(*) from app.classrooms where deleted_at is null")
    roster("window", "add", synced, "--kind", "additions_only", "--from", night(0), "--to", night(2), *BY)
    step(roster, "empty_july", 1)
    report = roster("sync", synced, "--json").document
    assert (report["status"], report["counts"]["changes"]) == ("successful", {})
    assert report["counts"]["deferred"] > classrooms[0][0]
    assert query("select count(*) from app.classrooms where deleted_at is null") == classrooms
    roster("window", "cancel", "1", "--by", "Ann")
    roster("window", "add", synced, "--kind", "rollover", "--from", night(0), "--to", night(2), *BY)
    step(roster, "empty_july", 2)
    report = roster("sync", synced, "--json").document
    assert (report["status"], report["counts"]["changes"]["classrooms"]["soft_delete"]) == ("successful", classrooms[0][0])


def test_half_loaded(roster: Roster, synced: str, night: Callable[[int], str], query: Query) -> None:
    """R14.4: in a rollover too, more than half of the students are not lost unnoticed; when the rest is loaded, nobody is."""
    roster("window", "add", synced, "--kind", "rollover", "--from", night(0), "--to", night(2), *BY)
    students = "select count(*) from app.users where grade is not null and deleted_at is null"
    before = query(students)[0][0]
    step(roster, "half_loaded", 1)
    report = roster("sync", synced, "--json").document
    assert report["status"] == "held"
    assert query(students)[0][0] > before / 2
    step(roster, "half_loaded", 2)
    assert roster("sync", synced, "--json").document["status"] == "successful"
    assert {status for (status,) in query("select status from ops.holds")} == {"superseded"}


def test_a_step_that_is_none(roster: Roster, synced: str) -> None:
    """Wrong usage has one message; without a simulated Clever the command says how to start one."""
    port = os.environ["CLEVER_API_URL"].rpartition(":")[2]
    ended = roster("sandbox", "rollover", "at_once", "--step", "2", "--port", port)
    assert (ended.status, ended.err) == (2, "Error: The variant at_once has no step 2: it has 1.\n")
    ended = roster("sandbox", "rollover", "at_once", "--port", "9")
    assert ended.status == 1
    assert "`roster sandbox serve` starts one." in ended.err
