"""Rows of ours that tables of the application refer to by foreign keys of their own.

Belongs here: finding these foreign keys in the catalog, and the SQL that asks whether a row is referred to. Does not belong here: what
happens to such a row (`erasure.py`).
"""

from collections.abc import Mapping
from typing import NamedTuple

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy import Connection

from roster_pipeline.database.migrate import known_tables
from roster_pipeline.districts.agreement import District
from roster_pipeline.errors import TransientError

# `ours` are the tables that the migrations create; every other table is the application's, in whichever schema it is. The key of a
# partition is that of its whole table.
_FOREIGN_KEYS = sa.text("""
    select
        their_schemas.nspname as schema_name,
        theirs.relname as table_name,
        ours.relname as referred,
        has_schema_privilege(theirs.relnamespace, 'usage') and has_table_privilege(theirs.oid, 'select') as is_readable,
        array(
            select attributes.attname
            from unnest(keys.conkey) with ordinality as columns (number, place)
            inner join pg_attribute as attributes on attributes.attrelid = keys.conrelid and columns.number = attributes.attnum
            order by columns.place
        ) as columns,
        array(
            select attributes.attname
            from unnest(keys.confkey) with ordinality as columns (number, place)
            inner join pg_attribute as attributes on attributes.attrelid = keys.confrelid and columns.number = attributes.attnum
            order by columns.place
        ) as referred_columns
    from pg_constraint as keys
    inner join pg_class as ours on keys.confrelid = ours.oid
    inner join pg_namespace as our_schemas on ours.relnamespace = our_schemas.oid
    inner join pg_class as theirs on keys.conrelid = theirs.oid
    inner join pg_namespace as their_schemas on theirs.relnamespace = their_schemas.oid
    where
        keys.contype = 'f'
        and keys.conparentid = 0
        and our_schemas.nspname = 'app'
        and our_schemas.nspname || '.' || ours.relname = any(:ours)
        and their_schemas.nspname || '.' || theirs.relname <> all(:ours)
    order by 3, 1, 2, keys.conname
""")


class _Key(NamedTuple):
    schema: str
    table: str
    referred: str
    is_readable: bool
    columns: list[str]
    referred_columns: list[str]


def references(connection: Connection) -> Mapping[str, str]:
    """For each table of `app` that the application's own tables refer to, a condition on its row `ours`: whether one of them does.

    Where a table may not be read, every row counts as referred to.
    """
    found: dict[str, list[sql.Composable]] = {}
    for row in connection.execute(_FOREIGN_KEYS, {"ours": list(known_tables())}):
        found.setdefault(row.referred, []).append(_condition(_Key(*row)))
    return {table: sql.SQL(" or ").join(conditions).as_string() for table, conditions in found.items()}


def _condition(key: _Key) -> sql.Composable:
    if not key.is_readable:
        return sql.SQL("true")
    equal = (
        sql.SQL("{} = {}").format(sql.Identifier("theirs", theirs), sql.Identifier("ours", ours))
        for theirs, ours in zip(key.columns, key.referred_columns, strict=True)
    )
    return sql.SQL("exists (select from {} as theirs where {})").format(sql.Identifier(key.schema, key.table), sql.SQL(" and ").join(equal))


def referring_table(error: psycopg.errors.ForeignKeyViolation) -> str:
    """The table whose row refers to one that was to be removed."""
    return ".".join(part for part in (error.diag.schema_name, error.diag.table_name) if part)


def referred_meanwhile(error: psycopg.errors.ForeignKeyViolation, district: District) -> TransientError:
    """The error of an erasure: the application has inserted a row since the foreign keys were asked. The next attempt blanks instead."""
    table = referring_table(error)
    return TransientError(
        f"Rows of {table} refer to rows that would be erased (constraint {error.diag.constraint_name}). Nothing was erased.",
        hint="The application has just written them. Try again.",
        district=district.clever_id,
    )
