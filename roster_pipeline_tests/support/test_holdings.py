"""R18.1: every table and column of a database is classified, so that a new one without an answer fails here."""

import sqlalchemy as sa

from roster_pipeline.database.engine import Database
from roster_pipeline.database.migrate import foreign_keys
from roster_pipeline.support.holdings import HOLDINGS
from roster_pipeline.support.removal import _BLANK, _COPIES

_CATALOG = """
    select schemas.nspname || '.' || tables.relname as name, columns.attname as column_name
    from pg_class as tables
    inner join pg_namespace as schemas on tables.relnamespace = schemas.oid
    inner join pg_attribute as columns on columns.attrelid = tables.oid
    where
        tables.relkind in ('r', 'p', 'm') and columns.attnum > 0 and not columns.attisdropped
        and schemas.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
"""


def catalog(database: Database) -> dict[str, set[str]]:
    """The columns of every table, from the server itself."""
    found: dict[str, set[str]] = {}
    with database.engine.connect() as connection:
        for row in connection.execute(sa.text(_CATALOG)):
            found.setdefault(row.name, set()).add(row.column_name)
    return found


def test_every_column_is_classified(database: Database) -> None:
    """If this fails for a new table or column: can it hold a name, a number or a Clever id of a person? Who removes it when the person, the
    class or the district goes? Write it into roster_pipeline/support/holdings.py, and the statement into
    roster_pipeline/support/removal.py or roster_pipeline/support/offboarding.py."""
    assert catalog(database) == {table: held.personal | held.other for table, held in HOLDINGS.items()}
    assert {table: held.personal & held.other for table, held in HOLDINGS.items() if held.personal & held.other} == {}


def test_every_table_says_who_empties_it() -> None:
    """A table with personal columns says what becomes of a person."""
    for table, held in HOLDINGS.items():
        assert held.person, table
        assert held.district, table
        assert not held.personal or held.person != "holds no person", table
        assert bool(held.of_district) == (held.district != "is about no district"), table


def test_what_is_said_is_done() -> None:
    """Tables of `app` whose rows can be blanked, in an order in which they can be removed; other tables that lose rows of a person."""
    assert list(_BLANK) == sorted(_BLANK, key=list(_BLANK).index)
    for position, table in enumerate(_BLANK):
        later = {f"app.{each}" for each in list(_BLANK)[position:]} - {f"app.{table}"}
        assert foreign_keys()[f"app.{table}"] <= later | {"app.districts"}, table
    assert {f"app.{table}" for table in _BLANK} == {table for table in HOLDINGS if table.startswith("app.")} - {"app.districts"}
    removed = {table for table, what, _ in _COPIES if what == "removed"}
    assert removed == {table for table, held in HOLDINGS.items() if held.person == "removed"}
    for table, blank in _BLANK.items():
        cleared = {part.split("=")[0].strip() for part in blank.split(",")}
        assert HOLDINGS[f"app.{table}"].personal - cleared <= {"username_key"}, table
