"""R18.1: a district whose contract has ended is exported, then erased."""

import csv
import hashlib
import json
import logging
import os
import stat
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from roster_pipeline.database.lock import district_lock
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.errors import PermanentError, SyncRunningError, TransientError
from roster_pipeline.support import export as export_module
from roster_pipeline.support.export import Export, export_district
from roster_pipeline.support.holdings import HOLDINGS
from roster_pipeline.support.offboarding import Offboarding, erase_district
from roster_pipeline.support.references import references
from roster_pipeline_tests.reference.driver import SETTINGS, LiveDistrict, leaves_unchanged
from roster_pipeline_tests.support.test_erasure import places
from roster_pipeline_tests.sync.clever import clever, section, student, teacher
from roster_pipeline_tests.sync.rows import active, new_user, user

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SNAPSHOT = clever(
    student("b1Zed", "zoe", name="Zoe Quux", sis_id="9911"),
    student("b2", "bo", name="=cmd Quux"),
    teacher("t1", name="Vera Quux", email="broken"),
    section("c1", ["b1Zed", "b2"], ["t1"], name="Quux - Math"),
)


def export(district: LiveDistrict, folder: Path) -> Export:
    return export_district(district.database, SETTINGS, district.clever_id, folder, by="Kim", now=NOW)


def erase(district: LiveDistrict, *, apply: bool = True) -> Offboarding:
    return erase_district(district.database, SETTINGS, district.clever_id, by="Kim", reason="contract ended", apply=apply, now=NOW)


def set_status(district: LiveDistrict, status: str) -> None:
    district.execute("update app.districts set status = :status where district_id = :district", status=status)


@pytest.fixture
def ended(district: LiveDistrict) -> LiveDistrict:
    """A paused district with people, a soft-deleted one, an imported owner, and findings."""
    district.agree(schools=[("S1", None)])
    district.sync(SNAPSHOT)
    district.sync(clever(*(each for each in SNAPSHOT.users if each["id"] != "b2"), *SNAPSHOT.sections))
    new_user(district, "quux-boss", role="account_owner")
    district.execute("update ops.syncs set requested_by = 'quux-boss', reason = 'for Quux' where sync_id = 2")
    set_status(district, "paused")
    return district


# Export ----------------------------------------------------------------------------------------------------------------------------------


def test_an_export_has_every_row(ended: LiveDistrict, twig: LiveDistrict, tmp_path: Path) -> None:
    """One file for each table about districts, with the district's rows, all columns and unaltered values; nothing of another district."""
    twig.sync(clever(student("other", name="Olga Other")))
    folder = tmp_path / "out"
    with leaves_unchanged(ended):
        done = export(ended, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["district"] == {"clever_id": ended.clever_id, "district_id": ended.district_id, "name": "District"}
    listed = {each["table"]: each for each in manifest["tables"]}
    assert listed.keys() == {table for table, held in HOLDINGS.items() if held.of_district}
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *(each["file"] for each in listed.values())}
    for table, each in listed.items():
        content = (folder / each["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == each["sha256"]
        header, *rows = csv.reader(content.decode().splitlines())
        assert header == [column["name"] for column in each["columns"]]
        assert set(header) == HOLDINGS[table].personal | HOLDINGS[table].other
        assert len(rows) == each["rows"]
        assert b"Olga" not in content
    users = list(csv.DictReader((folder / "app.users.csv").open()))
    assert {row["first_name"] for row in users} == {"Zoe", "=cmd", "Vera", "Ana"}
    assert listed["app.users"]["rows"] == len(users) == 4
    assert listed["ops.changes"]["rows"] > 10
    assert {column["name"] for column in listed["app.users"]["columns"] if column["personal"]} == HOLDINGS["app.users"].personal
    assert sum(each.rows for each in done.tables) == sum(each["rows"] for each in listed.values())
    (act,) = ended.execute("select * from ops.audit where act = 'export'")
    assert (act["given_name"], act["district_id"]) == ("Kim", ended.district_id)
    assert act["facts"]["manifest_sha256"] == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def test_only_the_owner_can_read_it(ended: LiveDistrict, tmp_path: Path) -> None:
    """Also in a folder that was there and open to everybody."""
    folder = tmp_path / "out"
    folder.mkdir()
    folder.chmod(0o755)
    previous = os.umask(0)
    try:
        export(ended, folder)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_that_cannot_be_used(ended: LiveDistrict, tmp_path: Path) -> None:
    """One clear message; nothing is written, also not in ops.audit."""
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "mine").write_text("mine")
    file.write_text("mine")
    refused = {full: "is not empty", file: "is a file", tmp_path / "no" / "out": "There is no folder"}
    for folder, reason in refused.items():
        with pytest.raises(PermanentError, match=reason):
            export(ended, folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine"]
    assert ended.execute("select 1 as n from ops.audit where act = 'export'") == []


@pytest.mark.parametrize("when", ["in the middle", "at the manifest"])
def test_a_disk_that_fills_up(ended: LiveDistrict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Nothing half done: no folder, no temporary one, no act."""
    opened = export_module._new_file
    full = "ops.changes.csv" if when == "in the middle" else "manifest.json"

    def on_a_full_disk(path: Path) -> AbstractContextManager[Any]:
        # The device that is always full: a real write, and a real error of the system.
        return open("/dev/full", "wb", buffering=0) if path.name == full else opened(path)

    monkeypatch.setattr(export_module, "_new_file", on_a_full_disk)
    with pytest.raises(PermanentError, match=r"No space left on device\. Nothing was exported\."):
        export(ended, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert ended.execute("select 1 as n from ops.audit where act = 'export'") == []


def test_an_export_whose_act_cannot_be_committed(ended: LiveDistrict, tmp_path: Path) -> None:
    """R13.2: no export without its row in ops.audit."""
    ended.execute("""
        create function refuse() returns trigger language plpgsql as $$ begin raise serialization_failure; end $$
    """)
    ended.execute("""
        create constraint trigger late after insert on ops.audit deferrable initially deferred for each row execute function refuse()
    """)
    with pytest.raises(TransientError):
        export(ended, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# Erasure ---------------------------------------------------------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing_and_counts_the_same(ended: LiveDistrict) -> None:
    """R18.1: without --apply it only says what it would do."""
    with leaves_unchanged(ended):
        planned = erase(ended, apply=False)
    assert planned.purge_id is None
    assert ended.execute("select 1 as n from ops.purges") == []
    assert erase(ended).counts == planned.counts
    assert planned.counts["app.users"] == {"removed": 4}


@pytest.mark.parametrize("status", ["paused", "disconnected"])
def test_counts_remain(ended: LiveDistrict, twig: LiveDistrict, caplog: pytest.LogCaptureFixture, status: str) -> None:
    """R18.1: no name, username, e-mail, number or Clever id of a person is left in any table; other districts are as before."""
    caplog.set_level(logging.DEBUG)
    twig.sync(clever(student("u1")))
    set_status(ended, status)
    history = len(ended.execute("select 1 as n from ops.changes where district_id = :district"))
    with leaves_unchanged(twig):
        done = erase(ended)
    assert places(ended, "quux", "zoe", "b1Zed", "9911") == set()
    for table in ("users", "user_roles", "classrooms", "enrollments", "schools", "agreed_schools"):
        assert ended.execute(f"select 1 as n from app.{table} where district_id = :district") == [], table
    for table in (each for each in HOLDINGS if each.startswith(("staging.", "reconcile."))):
        assert ended.execute(f"select 1 as n from {table} where district_id = :district") == [], table
    assert len(ended.execute("select 1 as n from ops.changes where district_id = :district")) == history
    assert ended.execute("select 1 as n from ops.changes where district_id = :district and (before is not null or after is not null)") == []
    assert all(row["counts"]["people"] for row in ended.execute("select counts from ops.syncs where district_id = :district"))
    (row,) = ended.execute("select name, status, settings, domain from app.districts where district_id = :district")
    assert row == {"name": "District", "status": status, "settings": {}, "domain": None}
    (purge,) = ended.execute("select * from ops.purges")
    assert (purge["purge_id"], purge["kind"], purge["users"], purge["reason"]) == (done.purge_id, "district", 4, "contract ended")
    assert (purge["counts"], purge["purged_by"], purge["purged_at"]) == (done.counts, "Kim", NOW)
    assert ended.execute("select act, reason from ops.audit where act = 'offboard'") == [{"act": "offboard", "reason": "contract ended"}]
    assert "Quux" not in caplog.text
    assert erase(ended).counts.keys() <= {"ops.holds", "app.districts"}


@pytest.mark.parametrize("status", ["active", "requested"])
def test_a_district_that_has_not_ended_is_refused(ended: LiveDistrict, status: str) -> None:
    """Also as a dry run."""
    set_status(ended, status)
    with leaves_unchanged(ended):
        for apply in (False, True):
            with pytest.raises(PermanentError, match=f"is {status}; only one that is paused or disconnected"):
                erase(ended, apply=apply)


def test_rows_that_the_application_refers_to_are_blanked(ended: LiveDistrict) -> None:
    """R18.1: found in the catalog, in any schema, with several columns; rows that they refer to stay too."""
    ids = ended.execute("select user_id, classroom_id, school_id from app.enrollments join app.classrooms using (classroom_id) limit 1")[0]
    ended.execute("create schema game")
    ended.execute("""
        create table game.scores (
            district bigint, player bigint, foreign key (district, player) references app.users (district_id, user_id)
        )
    """)
    ended.execute("insert into game.scores values (:district, :u)", u=ids["user_id"])
    ended.execute("create table app.lessons (classroom bigint references app.classrooms on delete set null)")
    ended.execute("insert into app.lessons values (:c)", c=ids["classroom_id"])
    ended.execute("create table public.buildings (school bigint references app.schools) partition by hash (school)")
    ended.execute("create table public.buildings_0 partition of public.buildings for values with (modulus 1, remainder 0)")
    ended.execute("insert into public.buildings values (:s)", s=ids["school_id"])
    done = erase(ended)
    for table in ("users", "classrooms", "schools"):
        assert done.counts[f"app.{table}"]["blanked"] == 1, table
        (row,) = ended.execute(f"select * from app.{table} where district_id = :district")
        assert row["deleted_at"] is not None
        assert row["clever_id"] is None
    assert ended.execute("select 1 as n from app.lessons where classroom is null") == []
    assert places(ended, "quux", "zoe", "b1Zed", "9911") == set()
    (school,) = ended.execute("select name from app.schools where district_id = :district")
    assert school["name"] == "(erased)"


def test_a_table_that_may_not_be_read(ended: LiveDistrict) -> None:
    """Nobody knows which rows it refers to, so every row counts as referred to, and is blanked instead of removed."""
    ended.execute("create schema hidden")
    ended.execute("create table hidden.scores (player bigint references app.users)")
    with ended.database.engine.connect() as connection:
        assert "hidden" in references(connection)["users"]
        # Roles belong to the server, not to the database. The transaction is rolled back.
        connection.exec_driver_sql("create role someone_else")
        connection.exec_driver_sql("set role someone_else")
        assert references(connection) == {"users": "true"}
        connection.rollback()


def test_a_running_sync_keeps_the_lock(ended: LiveDistrict) -> None:
    """R11.2: exit status 4."""
    with ended.database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        with district_lock(connection, ended.district_id, ended.clever_id), leaves_unchanged(ended), pytest.raises(SyncRunningError):
            erase(ended)


def test_holds_of_the_district(district: LiveDistrict) -> None:
    """What waits is superseded. The counts of a hold stay, its school does not."""
    district.agree(settings={"brakes": {"school_floor": 0, "school_share": 0}})
    district.sync(SNAPSHOT)
    assert district.sync(clever(*SNAPSHOT.users[1:], *SNAPSHOT.sections)).status == "held"
    set_status(district, "disconnected")
    erase(district)
    (hold,) = district.execute("select status, school_id, counts, plan_hash from ops.holds")
    assert (hold["status"], hold["school_id"]) == ("superseded", None)
    assert hold["counts"]["acts"] == 1


def test_a_district_that_comes_back_is_new(ended: LiveDistrict) -> None:
    """Nothing starts by itself: it is paused. With a new agreement, its people get new accounts; only the erased ones stay away."""
    ended.execute(
        "insert into ops.connections values (:clever_id, :district, '2026-01-01', '2026-05-01', 'active')", clever_id=ended.clever_id
    )
    before = user(ended, "b1Zed")["user_id"]
    erase(ended)
    assert ended.execute("select status_before from ops.connections") == [{"status_before": "paused"}]
    with ended.database.engine.connect() as connection:
        assert find_district(connection, ended.clever_id).profile == "typing_agent"
    set_status(ended, "active")
    assert ended.sync(SNAPSHOT).status == "successful"
    assert active(ended, "users") == {"b1Zed", "b2", "t1"}
    assert user(ended, "b1Zed")["user_id"] > before
