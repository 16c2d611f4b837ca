"""COPY of an Arrow table into a table of the database.

Does not belong here: which rows are copied, and into what (`sync/landing.py`, `sync/restore.py`).
"""

import io
import re
from typing import Any

import psycopg
import pyarrow
import pyarrow.csv
from psycopg import sql

from roster_pipeline import contracts
from roster_pipeline.database.refusals import name_record


def copy_rows(connection: "psycopg.Connection[Any]", target: sql.Identifier, table: pyarrow.Table) -> None:
    """Append rows to a table that has columns of these names.

    Raises:
        psycopg.Error: it says which record was refused, if the server says on which line it is.
    """
    if not table.num_rows:
        return
    buffer = io.BytesIO()
    # Null is written as nothing and blank text as quotes, so COPY can distinguish them. In one chunk: of an empty chunk (a page of which no
    # record could be decoded) write_csv writes memory that it has not filled.
    pyarrow.csv.write_csv(table.combine_chunks(), buffer, pyarrow.csv.WriteOptions(include_header=False))
    statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(target, sql.SQL(", ").join(map(sql.Identifier, table.column_names)))
    try:
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(buffer.getbuffer())
    except psycopg.Error as error:
        if clever_id := _refused_record(error, table):
            name_record(error, clever_id)
        raise


def _refused_record(error: psycopg.Error, table: pyarrow.Table) -> str | None:
    """The Clever id on the line that the server names. Its context quotes the value, so only the number is read."""
    line = re.search(r"COPY \S+, \D*(\d+)", error.diag.context or "")
    if line is None or "clever_id" not in table.column_names or not 0 < int(line[1]) <= table.num_rows:
        return None
    found = table.column("clever_id")[int(line[1]) - 1].as_py()
    return found if found and re.match(contracts.ID, found) else None
