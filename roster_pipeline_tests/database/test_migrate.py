"""The schema's version: migrating reaches it once, even with several processes, and any other version is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import text

from roster_pipeline.database import migrate as module
from roster_pipeline.database.engine import Database
from roster_pipeline.database.migrate import MigrationReport, known_tables, migrate, require_current_schema, tables_created_by
from roster_pipeline.errors import PermanentError

REPOSITORY = Path(__file__).parents[2]

COMMAND = """
from roster_pipeline.database.engine import open_database
from roster_pipeline.database.migrate import migrate
from roster_pipeline.settings import settings
with open_database(settings()) as database:
    print("ready", flush=True)
    input()
    print(migrate(database).from_revision)
"""


def head() -> str:
    revision = ScriptDirectory.from_config(module._config()).get_current_head()
    assert revision is not None
    return revision


def set_revision(database: Database, revision: str) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("update ops.alembic_version set version_num = :revision"), {"revision": revision})


def test_a_second_migration_does_nothing(empty_database: Database) -> None:
    assert migrate(empty_database) == MigrationReport(None, head())
    assert migrate(empty_database) == MigrationReport(head(), head())
    require_current_schema(empty_database)


def test_three_commands_can_migrate_an_empty_database_at_once(empty_database: Database) -> None:
    environment = os.environ | {"ROSTER_DATABASE_URL": empty_database.url.render_as_string(hide_password=False)}
    commands = [
        subprocess.Popen(
            [sys.executable, "-c", COMMAND], cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in commands:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in commands:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    before = sorted(process.communicate()[0].strip() for process in commands)
    assert before == sorted([head(), head(), "None"])
    assert [process.returncode for process in commands] == [0, 0, 0]


def test_a_failed_migration_leaves_the_database_unchanged(empty_database: Database) -> None:
    with empty_database.engine.begin() as connection:
        connection.execute(text("create schema reconcile"))  # the migration cannot create it again
    with pytest.raises(PermanentError, match="42P06"):
        migrate(empty_database)
    with empty_database.engine.connect() as connection:
        assert connection.execute(text("select to_regnamespace('app')")).scalar() is None
        assert connection.execute(text("select to_regnamespace('ops')")).scalar() is None


def test_an_empty_an_older_and_a_newer_database_are_refused_with_what_to_do(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PermanentError) as refused:
        require_current_schema(empty_database)
    assert "roster migrate" in refused.value.hint

    migrate(empty_database)
    with monkeypatch.context() as patch:  # as if this release had one more migration than the database
        patch.setattr(module, "_revisions", lambda: ["0001", head(), "9999"])
        with pytest.raises(PermanentError, match="older release") as refused:
            require_current_schema(empty_database)
        assert "roster migrate" in refused.value.hint

    set_revision(empty_database, "from_the_future")
    for check in (require_current_schema, migrate):
        with pytest.raises(PermanentError, match="newer release"):
            check(empty_database)


def test_a_downgrade_is_refused(database: Database) -> None:
    config = module._config()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        with pytest.raises(PermanentError, match="only go forward"):
            command.downgrade(config, "base")


def test_known_tables_are_those_of_the_migrated_database(database: Database) -> None:
    """The parser must find every table and column, because the SQL models' dependencies are checked with them."""
    catalogue = text("""
        select n.nspname || '.' || c.relname, array_agg(a.attname::text order by a.attnum)
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relkind in ('r', 'v', 'm', 'p', 'f')
            and n.nspname not in ('pg_catalog', 'information_schema') and c.relname <> 'alembic_version'
        group by 1
    """)
    with database.engine.connect() as connection:
        assert known_tables() == {name: tuple(columns) for name, columns in connection.execute(catalogue)}


def test_tables_and_views_are_read_among_other_statements() -> None:
    script = """
        -- create table commented.out (x int);
        create function app.f() returns trigger language plpgsql as $$ begin create table in_a.body (x int); end $$;
        CREATE UNLOGGED TABLE IF NOT EXISTS app.a (
            id numeric(10, 2), names text[] default array['x', 'é;'], "Order" int check ("Order" in (1, 2)), key text,
            primary key (id, key), constraint one unique (key), exclude using btree (id with =) where (key is null) deferrable
        ) partition by list (key);
        create or replace view app.b as select a.id, count(*) as n from app.a group by a.id;
        create materialized view app.c (one, two) as select 1, 2;
        alter table app.a add column later int
    """
    assert tables_created_by(script) == {"app.a": ("id", "names", "Order", "key"), "app.b": ("id", "n"), "app.c": ("one", "two")}


@pytest.mark.parametrize(
    "statement",
    ["create table a (x int)", "create table s.a as select 1 as x", "create view s.a as select * from s.b", "create table s.a ()"],
)
def test_a_table_that_cannot_be_read_is_an_error(statement: str) -> None:
    with pytest.raises(ValueError, match="Cannot read"):
        tables_created_by(statement)
