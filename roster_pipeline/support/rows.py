"""One row of a lasting table by its key."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection


def first_row(connection: Connection, table: sa.TableClause, **key: object) -> Mapping[str, Any] | None:
    """A row by its key. A part that is None matches nothing."""
    if None in key.values():
        return None
    equal = (table.c[name] == value for name, value in key.items())
    row = connection.execute(sa.select(table).where(*equal).limit(1)).mappings().first()
    return dict(row) if row is not None else None
