"""SPEC 12: what others wrote cannot act on a terminal, and a terminal that cannot show a name does not end a command."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from roster_pipeline.cli import COMMANDS
from roster_pipeline.database.engine import Database
from roster_pipeline.sandbox import District
from roster_pipeline_tests.commands.conftest import Roster

HOSTILE = "x\x1b]0;owned\x07\x1b[2J\nSync 99: successful.\u202egnp"
TABLES = ["app.districts", "app.schools", "app.classrooms", "app.users", "ops.syncs", "ops.holds"]
TEXTS = ["name", "first_name", "middle_name", "last_name", "username", "email", "domain", "requested_by", "reason", "message", "decided_by"]
# Commands that show nothing which others wrote, or that start servers.
SILENT = {"demo", "dev", "migrate", "sandbox"}


@pytest.fixture
def hostile(roster: Roster, district: District, database: Database) -> int:
    """A synced district in which every text that others can write is hostile. Returns a user id."""
    assert roster("sync", district.id).status == 0
    with database.engine.begin() as connection:
        columns = connection.execute(
            text("""
                select table_schema, table_name, column_name
                from information_schema.columns
                where table_schema || '.' || table_name = any (:tables) and column_name = any (:names)
            """),
            {"tables": TABLES, "names": TEXTS},
        ).all()
        assert len(columns) > 10
        for schema, table, column in columns:
            unique = "|| user_id" if column == "username" else ""
            connection.execute(text(f"update {schema}.{table} set {column} = :hostile {unique}"), {"hostile": HOSTILE})
        insert = text("""
            insert into ops.holds (sync_id, district_id, kind, counts, plan_hash, status)
            values (1, 1, 'empty_collection', jsonb_build_object('collection', cast(:hostile as text)), :hostile, 'open')
        """)
        connection.execute(insert, {"hostile": HOSTILE})
        return int(connection.execute(text("select max(user_id) from app.users")).scalar_one())


def test_no_command_lets_a_text_act_on_the_terminal(hostile: int, roster: Roster, district: District) -> None:
    """Each command in words. A line of output never begins with what somebody else wrote after a line break."""
    soon = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
    arguments: dict[str, list[tuple[str, ...]]] = {
        "status": [("status",), ("status", district.id)],
        "district": [("district", "list"), ("district", "show", district.id)],
        "holds": [("holds",), ("holds", district.id), ("holds", "show", "1")],
        "explain": [("explain", district.id, str(hostile))],
        "readiness": [("readiness", district.id)],
        "plan": [("plan", district.id)],
        "health": [("health",)],
        "request": [("request", district.id, "--requested-by", HOSTILE)],
        "sync": [("sync", district.id), ("sync", HOSTILE)],
        "approve": [("approve", "1", "--by", HOSTILE)],
        "findings": [("findings", district.id)],
        "connections": [("connections", "accept", "--by", HOSTILE)],
        "reject": [("reject", "1", "--by", HOSTILE)],
        "revoke": [("revoke", "1", "--by", HOSTILE, "--reason", HOSTILE)],
        "erase": [("erase", district.id, HOSTILE, "--by", HOSTILE, "--reason", HOSTILE)],
        "rollover": [("rollover", "preview", district.id)],
        "window": [
            ("window", "add", district.id, "--kind", "freeze", "--from", soon, "--to", soon, "--by", HOSTILE, "--reason", HOSTILE),
            ("window", "list"),
            ("window", "cancel", "1", "--by", HOSTILE, "--reason", HOSTILE),
        ],
    }
    for lines in arguments.values():
        for words in lines:
            ended = roster(*words)
            for stream in (ended.out, ended.err):
                shown = re.sub(r"\x1b\[[0-9;]*m", "", stream)  # our own colours
                assert "\x1b" not in shown, words
                assert "\x07" not in shown, words
                assert "\u202e" not in shown, words
                assert not re.search(r"^Sync 99", shown, re.MULTILINE), words
    assert {"admins", "users", "purge"} == set(COMMANDS) - set(arguments) - SILENT


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_terminal_that_cannot_show_a_name_shows_its_number(
    roster: Roster, district: District, query: Callable[..., list[Any]], database: Database, encoding: str, form: tuple[str, ...]
) -> None:
    assert roster("sync", district.id).status == 0
    with database.engine.begin() as connection:
        connection.execute(text("update app.users set first_name = 'שלום'"))
        connection.execute(text("update app.districts set name = '李'"))
    (user,) = query("select max(user_id) from app.users")[0]
    own = {**os.environ, "PYTHONIOENCODING": encoding}
    for words in (("explain", district.id, str(user)), ("district", "list"), ("readiness", district.id)):
        ended = subprocess.run([sys.executable, "-m", "roster_pipeline.cli", *words, *form], env=own, capture_output=True, check=False)
        assert ended.returncode in (0, 3), ended.stderr
        if form:
            json.loads(ended.stdout)
        elif words[0] == "district":
            assert "\\u674e" in ended.stdout.decode(encoding)
