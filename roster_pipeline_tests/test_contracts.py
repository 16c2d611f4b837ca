"""The contracts and the database agree (R4.1)."""

from typing import get_args

import pytest
from sqlalchemy import Table, text

from roster_pipeline import contracts
from roster_pipeline.clever.columns import flatten
from roster_pipeline.clever.records import Grade
from roster_pipeline.database import tables
from roster_pipeline.database.engine import Database
from roster_pipeline.source.vocabulary import Collection

_COLUMNS = text("""
    select column_name, case data_type when 'ARRAY' then 'text[]' when 'timestamp with time zone' then 'timestamptz' else data_type end,
        is_nullable = 'YES'
    from information_schema.columns where table_schema = :schema and table_name = :table order by ordinal_position
""")


def test_staging_has_exactly_the_columns_of_the_contracts(database: Database) -> None:
    """R4.1: names, types, nullability and order agree. The table also has the district's id, as first column, and a digest."""
    digest = ("digest", "uuid", True)
    with database.engine.connect() as connection:
        for resource in contracts.RESOURCES:
            staged = [tuple(row) for row in connection.execute(_COLUMNS, {"schema": "staging", "table": resource})]
            assert staged[0] == ("district_id", "bigint", False)
            assert digest in staged
            assert [each for each in staged[1:] if each != digest] == [
                (column.name, column.sql_type, column.nullable) for column in contracts.columns(resource)
            ], resource


@pytest.mark.parametrize("collection", Collection)
def test_records_become_exactly_the_columns_of_the_contract(collection: Collection) -> None:
    """R4.1: `flatten` fills every column, also for no records."""
    filled, named = set(flatten(collection, []).column_names), {column.name for column in contracts.columns(collection.resource)}
    assert not named - filled, f"clever/columns.py does not fill {sorted(named - filled)} of {collection.resource}."
    assert not filled - named, (
        f"clever/columns.py fills {sorted(filled - named)} of {collection.resource}, which contracts.py does not have."
    )


def test_python_tables_are_those_of_the_migrations(database: Database) -> None:
    """Every column that Python names exists, and Python names every column."""
    with database.engine.connect() as connection:
        for table in (each for each in vars(tables).values() if isinstance(each, Table)):
            migrated = [row[0] for row in connection.execute(_COLUMNS, {"schema": table.schema, "table": table.name})]
            assert sorted(migrated) == sorted(table.c.keys()), table.fullname


def test_every_column_has_a_description() -> None:
    """R4.1."""
    assert all(column.description for resource in contracts.RESOURCES for column in contracts.columns(resource))


def test_mandatory_columns_are_those_of_the_spec() -> None:
    """R4.2, R4.7: a broken mandatory field quarantines the row. For any other field but a list, only the value is dropped."""
    mandatory = {
        (resource, column.name) for resource in contracts.RESOURCES for column in contracts.columns(resource) if not column.nullable
    }
    named = {(resource, column) for resource in ("schools", "sections") for column in ("clever_id", "name")}
    people = {("users", column) for column in ("clever_id", "first_name", "last_name")}
    decisive = {("sections", "school"), ("sections", "students")}
    # The pipeline itself always fills it.
    derived = {("users", "is_district_admin")}
    assert mandatory - derived == named | people | decisive | {("terms", "clever_id"), ("courses", "clever_id")}
    lists = {(resource, each.name) for resource in contracts.RESOURCES for each in contracts.columns(resource) if each.sql_type == "text[]"}
    quarantines = {
        (resource, each.name) for resource in contracts.RESOURCES for each in contracts.columns(resource) if each.broken == "error"
    }
    assert quarantines == mandatory | lists


def test_the_contract_has_all_grades_of_clever() -> None:
    """CLEVER_API section 5: 22 values, one of them blank."""
    assert {*contracts.GRADES, ""} == set(get_args(Grade))
    assert len(contracts.GRADES) == 21
