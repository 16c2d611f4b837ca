"""The schema's version: upgrades a database to this release, refuses any other version, and lists the tables without a database.

Belongs here: running Alembic from code, and reading from the migrations which tables they create. Does not belong here: the schema itself
(`migrations/versions/*.sql`).
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psycopg
import sqlalchemy as sa
import sqlglot
from sqlalchemy import Connection, text
from sqlglot import TokenType, exp

from roster_pipeline.database.blockers import note_blockers
from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.database.lock import MIGRATION_LOCK, try_lock
from roster_pipeline.database.session import begin_own_session, not_one_session, own_session
from roster_pipeline.errors import PermanentError, TransientError

# Importing Alembic takes a third of a second, and every command imports this module. So only the functions that run a migration import it.
if TYPE_CHECKING:
    from alembic.config import Config

T = TypeVar("T")
log = logging.getLogger(__name__)

VERSION_SCHEMA = "ops"
# A migration needs some of its locks exclusively, so it gives way, and tries again.
LOCK_SECONDS = 3
PAUSE_SECONDS = 5.0
ATTEMPTS = 12
OTHER_MIGRATION_SECONDS = 600
ASK_SECONDS = 0.2
# An index that is built while everybody goes on waits for the transactions that were open before, without being in anybody's way.
OLD_TRANSACTIONS_SECONDS = 60
_IS_VALID = text("select indisvalid from pg_index where indexrelid = to_regclass(:index)")
_MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True)
class MigrationReport:
    """What a migration did. Equal revisions: nothing. `from_revision` None: the database was empty."""

    from_revision: str | None
    to_revision: str | None


def migrate(database: Database) -> MigrationReport:
    """Upgrades the schema to this release's revision, in one transaction. A second process waits, and then has nothing to do.

    A migration waits only shortly for the lock of a table, because everything that uses the table waits behind it. Then it begins again.
    Indexes of large tables are built after the transaction, without a lock that stops writers.

    Raises:
        PermanentError: the database is newer than this release, its user may not create schemas and tables, or the address leads to a
            pooler in transaction mode.
        TransientError: the connection was lost, or another session held a lock at every attempt. Nothing has changed.
    """
    _require_sessions(database)
    with _only_migration(database):
        report = _give_way(database, lambda: _migrate(database))
        _give_way(database, lambda: _build_large_indexes(database))
    return report


@contextmanager
def _only_migration(database: Database) -> Iterator[None]:
    """Waits until no other process migrates. It asks again and again: a session that waits in a statement would be one that the other
    process's index waits for."""
    give_up = time.monotonic() + OTHER_MIGRATION_SECONDS
    with translate_database_errors(), database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        while not try_lock(connection, MIGRATION_LOCK):
            if time.monotonic() > give_up:
                raise TransientError("Another process has been migrating this database for too long.", hint="Look for it, and try again.")
            time.sleep(ASK_SECONDS)
        try:
            yield
        finally:
            connection.invalidate()


def _give_way(database: Database, work: Callable[[], T]) -> T:
    """Try again for a while if another session holds a lock."""
    for attempt in range(1, ATTEMPTS + 1):
        with translate_database_errors():
            try:
                return work()
            except (sa.exc.OperationalError, psycopg.errors.LockNotAvailable) as error:
                cause = error.orig if isinstance(error, sa.exc.OperationalError) else error
                if attempt == ATTEMPTS or not isinstance(cause, psycopg.errors.LockNotAvailable):
                    note_blockers(error, database.engine)
                    raise
        log.info("another session holds a lock that the migration needs; attempt %d of %d", attempt, ATTEMPTS)
        time.sleep(PAUSE_SECONDS)
    raise AssertionError("the last attempt returns or raises")


def _require_sessions(database: Database) -> None:
    """A pooler in transaction mode is best reported at once, not in the night: it gives a new connection the session of an idle one."""
    with translate_database_errors(), database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        begin_own_session(connection)
        with database.engine.connect() as second:
            if second.execute(text("select pg_backend_pid()")).scalar_one() == own_session(connection).pid:
                raise not_one_session()
        connection.invalidate()


def _migrate(database: Database) -> MigrationReport:
    from alembic import command

    with database.engine.begin() as connection:
        connection.execute(text(f"set local lock_timeout = '{LOCK_SECONDS}s'"))
        before = _current(connection)
        _refuse_newer(before)
        connection.execute(text(f"create schema if not exists {VERSION_SCHEMA}"))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return MigrationReport(before, _current(connection))


def _build_large_indexes(database: Database) -> None:
    """Builds what `large_indexes.sql` names and is not there. One that was not finished is built again."""
    with database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(f"set lock_timeout = '{OLD_TRANSACTIONS_SECONDS}s'"))
        for index, statement in large_indexes().items():
            is_valid = connection.execute(_IS_VALID, {"index": index}).scalar()
            if is_valid is False:
                connection.execute(text(f"drop index concurrently {index}"))
            if not is_valid:
                connection.exec_driver_sql(statement)
        connection.invalidate()


@cache
def large_indexes() -> dict[str, str]:
    """The statements of `large_indexes.sql`, by `schema.name` of their index."""
    script = (_MIGRATIONS / "large_indexes.sql").read_text(encoding="utf-8")
    found = re.findall(r"^create index concurrently (\w+) on (\w+)\.[^;]+;", script, re.MULTILINE)
    statements = re.findall(r"^create index concurrently [^;]+;", script, re.MULTILINE)
    return {f"{schema}.{name}": statement for (name, schema), statement in zip(found, statements, strict=True)}


def require_current_schema(database: Database) -> None:
    """Raises PermanentError unless the database's schema is exactly this release's."""
    with translate_database_errors(), database.engine.connect() as connection:
        current = _current(connection)
    if current is None:
        raise PermanentError("The database has no tables of this project yet.", hint="Run `roster migrate`.")
    _refuse_newer(current)
    if current != _revisions()[-1]:
        raise PermanentError("The database has the tables of an older release.", hint="Run `roster migrate`.")


@cache
def known_tables() -> dict[str, tuple[str, ...]]:
    """Every table and view that the migrations create, read from their SQL: `schema.name` -> its columns in order.

    Raises:
        ValueError: a migration has a `create table`, `create view` or `add column` that this module cannot read.
    """
    return {name: tuple(columns) for name, columns in column_types().items()}


def lasting_table(name: str) -> sa.TableClause:
    """One of these tables, `schema.name`, for queries that SQLAlchemy writes."""
    schema, _, table = name.partition(".")
    return sa.table(table, *(sa.column(each) for each in known_tables()[name]), schema=schema)


@cache
def column_types() -> dict[str, dict[str, str]]:
    """The same tables, with the type of each column, as text of the migration. The columns of a view have an empty type."""
    tables: dict[str, dict[str, str]] = {}
    for path in sorted((_MIGRATIONS / "versions").glob("*.sql")):
        script = path.read_text(encoding="utf-8")
        tables |= _typed_tables(script)
        added = re.findall(r"^alter table (\w+\.\w+) add column (\w+) ([\w\[\]]+)", script, re.MULTILINE)
        if len(added) < script.count("add column"):
            raise ValueError(f"{path.name}: each `alter table ... add column` needs a line of its own")
        for table, column, kind in added:
            tables[table][column] = kind
    return tables


@cache
def foreign_keys() -> dict[str, frozenset[str]]:
    """For each table, the tables that it refers to by foreign keys. A row is written after the rows that it refers to."""
    keys: dict[str, frozenset[str]] = {}
    for path in sorted((_MIGRATIONS / "versions").glob("*.sql")):
        for table, body in re.findall(r"^create table (\w+\.\w+) \((.*?)^\);", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            keys[table] = frozenset(re.findall(r"\breferences (\w+\.\w+)", body))
    return keys


def tables_created_by(script: str) -> dict[str, tuple[str, ...]]:
    """The tables and views of one script, each with its columns."""
    return {name: tuple(columns) for name, columns in _typed_tables(script).items()}


def _typed_tables(script: str) -> dict[str, dict[str, str]]:
    tables: dict[str, dict[str, str]] = {}
    statement: list[sqlglot.Token] = []
    for token in [*sqlglot.tokenize(script, read="postgres"), None]:
        if token is not None and token.token_type is not TokenType.SEMICOLON:
            statement.append(token)
            continue
        kind = _created_kind(statement)
        text = script[statement[0].start : statement[-1].end + 1] if statement else ""
        name, columns = _table(statement, script) if kind == "TABLE" else _view(text) if kind == "VIEW" else (None, {})
        if kind and (name is None or not columns):
            raise ValueError(f"Cannot read schema, name and columns of: {text[:80]}")
        if name is not None:
            tables[name] = columns
        statement = []
    return tables


def _created_kind(statement: list[sqlglot.Token]) -> str | None:
    """TABLE or VIEW, if the statement creates one. Modifiers (or replace, unlogged, materialized, ...) are skipped."""
    if not statement or statement[0].token_type is not TokenType.CREATE:
        return None
    modifiers = {"OR", "REPLACE", "GLOBAL", "LOCAL", "TEMP", "TEMPORARY", "UNLOGGED", "FOREIGN", "MATERIALIZED", "RECURSIVE"}
    kind = next((token.text.upper() for token in statement[1:] if token.text.upper() not in modifiers), "")
    return kind if kind in {"TABLE", "VIEW"} else None


def _table(statement: list[sqlglot.Token], script: str) -> tuple[str | None, dict[str, str]]:
    """Name and columns of `create table schema.name (...)`. It reads tokens, because sqlglot cannot parse `exclude ... deferrable`."""
    kinds = [token.token_type for token in statement]
    opening = kinds.index(TokenType.L_PAREN) if TokenType.L_PAREN in kinds else 0
    if opening < 4 or kinds[opening - 2] is not TokenType.DOT:
        return None, {}
    openers, closers = {TokenType.L_PAREN, TokenType.L_BRACKET}, {TokenType.R_PAREN, TokenType.R_BRACKET}
    parts: list[list[sqlglot.Token]] = []  # Each part begins with a column's name, or with the first word of a table constraint.
    depth = 0
    for token, following in pairwise(statement[opening:]):
        depth += (token.token_type in openers) - (token.token_type in closers)
        if depth == 0:
            break
        if depth == 1 and token.token_type in (TokenType.L_PAREN, TokenType.COMMA) and following.token_type not in closers:
            parts.append([])
        elif parts:
            parts[-1].append(token)
    constraints = {"CONSTRAINT", "CHECK", "PRIMARY KEY", "PRIMARY", "UNIQUE", "FOREIGN KEY", "FOREIGN", "EXCLUDE"}
    columns = {part[0].text: _type(part[1:], script) for part in parts if part and part[0].text.upper() not in constraints}
    return f"{statement[opening - 3].text}.{statement[opening - 1].text}", columns


def _type(definition: list[sqlglot.Token], script: str) -> str:
    """A column's type: the words between its name and the first constraint."""
    constraints = {"NOT", "NULL", "DEFAULT", "CHECK", "PRIMARY KEY", "UNIQUE", "REFERENCES", "GENERATED", "COLLATE", "CONSTRAINT"}
    words = list(takewhile(lambda token: token.text.upper() not in constraints, definition))
    return script[words[0].start : words[-1].end + 1] if words else ""


def _view(text: str) -> tuple[str | None, dict[str, str]]:
    create = sqlglot.parse_one(text, dialect="postgres")
    name = create.find(exp.Table)
    if not isinstance(create, exp.Create) or name is None or not name.db or not isinstance(create.expression, exp.Query):
        return None, {}
    if isinstance(create.this, exp.Schema):
        return f"{name.db}.{name.name}", {column.name: "" for column in create.this.expressions}
    columns = dict.fromkeys(create.expression.named_selects, "")
    return (None, {}) if "*" in columns else (f"{name.db}.{name.name}", columns)


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["version_schema"] = VERSION_SCHEMA
    return config


@cache
def _revisions() -> list[str]:
    """The revisions of this release, oldest first. The name of a migration's file begins with its revision."""
    return sorted(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def _current(connection: Connection) -> str | None:
    if connection.execute(text(f"select to_regclass('{VERSION_SCHEMA}.alembic_version')")).scalar() is None:
        return None
    revision: str | None = connection.execute(text(f"select version_num from {VERSION_SCHEMA}.alembic_version")).scalar()  # noqa: S608
    return revision


def _refuse_newer(revision: str | None) -> None:
    if revision is not None and revision not in _revisions():
        raise PermanentError(
            f"This database was migrated by a newer release (revision {revision}).", hint="Upgrade the project, or restore an older backup."
        )
