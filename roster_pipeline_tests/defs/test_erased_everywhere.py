"""R18.2: after an erasure, and after a sync that still sends the person, nothing of them is anywhere: in no column of the database or its
statistics, not in Dagster's database, in no file under ROSTER_HOME, in no log and on no terminal.
"""

import logging
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from roster_pipeline.database.clock import time_of
from roster_pipeline.database.engine import Database
from roster_pipeline.sandbox import Sandbox
from roster_pipeline.sandbox.edits import username_of
from roster_pipeline.settings import settings
from roster_pipeline.support.erasure import Erasure, erase_person
from roster_pipeline_tests.defs.runs import check, run
from roster_pipeline_tests.defs.test_sync import texts

FIRST, LAST = "Zzyzxfirst", "Zzyzxlast"
_TABLES = """
    select schemaname || '.' || relname from pg_stat_user_tables where schemaname in ('app', 'staging', 'reconcile', 'ops')
"""


def stored(database: Database) -> dict[str, str]:
    """All columns of all tables, and the planner's samples of them, as text by table."""
    with database.engine.connect() as connection:
        tables = list(connection.execute(sa.text(_TABLES)).scalars())
        found = {
            table: " ".join(connection.execute(sa.text(f"select cast(rows as text) from {table} as rows")).scalars()) for table in tables
        }
        samples = connection.execute(sa.text("select cast(samples as text) from pg_stats as samples where schemaname <> 'pg_catalog'"))
        return found | {"pg_stats": " ".join(samples.scalars())}


def marks(record: dict[str, Any]) -> list[str]:
    """Everything that identifies a student."""
    role = record["roles"]["student"]
    numbers = [role.get("sis_id"), role.get("state_id"), role.get("student_number")]
    return [FIRST, LAST, record["id"], *(each for each in (username_of(record), record.get("email"), *numbers) if each)]


def test_an_erased_student_is_nowhere(
    instance: dg.DagsterInstance, database: Database, sandbox: Sandbox, clever_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """By one who was renamed, quarantined for a night, and is in classes."""
    caplog.set_level(logging.DEBUG)
    student = sandbox.district().shared("users", "student")[0]
    change = sandbox.change()
    change.rename(student, first=FIRST, last="Before")
    assert run(instance, clever_id).success
    change.rename(student, first=FIRST, last=LAST)
    change.patch("users", student, "last_modified", "no time")
    assert run(instance, clever_id).success
    with database.engine.begin() as connection:
        connection.execute(sa.text("set local statement_timeout = 0"))
        connection.execute(sa.text("analyze"))
    record = sandbox.district().get("users", student)
    before = stored(database)
    searched = marks(record)
    assert FIRST in before["app.users"]
    assert FIRST in before["pg_stats"]
    assert student in before["staging.sections"]
    assert student in before["ops.quarantine"]

    erased = erase_person(database, settings(), clever_id, student, by="Kim", reason="ticket 4711", apply=True, now=time_of(database))
    assert isinstance(erased, Erasure)
    assert_nowhere(stored(database), searched)

    change.patch("users", student, "last_modified", "2026-01-01T00:00:00.000Z")
    for _ in range(2):
        result = run(instance, clever_id)
        assert result.success
        reported = check(result, "erased")
        assert (reported.passed, reported.severity, reported.metadata["count"].value) == (False, dg.AssetCheckSeverity.WARN, 1)
        assert_nowhere(stored(database), searched)
    printed = capfd.readouterr()
    files = {str(path): path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()}
    assert_nowhere({"Dagster": texts(database), "log": caplog.text, "out": printed.out, "err": printed.err} | files, searched)
    with database.engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from ops.alerts where kind = 'data_quality'")).scalar_one() == 0


def assert_nowhere(places: dict[str, str], searched: list[str]) -> None:
    """No place has one of these texts."""
    assert [(place, searched.index(each)) for place, text in places.items() for each in searched if each in text] == []
