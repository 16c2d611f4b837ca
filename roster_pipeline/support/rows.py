"""One row of a lasting table by its key."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection


def first_row(connection: Connection, table: sa.TableClause, **key: object) -> Mapping[str, Any] | None:
    """A row by its key, or None. If a part of the key is None, no row matches."""
    if None in key.values():
        return None
    equal = (table.c[name] == value for name, value in key.items())
    row = connection.execute(sa.select(table).where(*equal).limit(1)).mappings().first()
    return dict(row) if row is not None else None
