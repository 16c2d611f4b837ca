"""Which row or record the server has refused, as ids only.

Belongs here: reading ids from the detail of a driver's error. Does not belong here: what the refusal means (`refusals.py`). The detail of
an error quotes values, so nothing else of it may leave this module.
"""

import re
from collections.abc import Mapping, Sequence

import psycopg

# The columns whose values may be shown.
_IDS = frozenset({"clever_id", "user_id", "classroom_id", "school_id"})
# Part of the key or of the beginning of a row, and no id that may be shown.
_PASSED = frozenset({"district_id"})
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
# The first columns of each table. Those after them can have personal data.
FIRST_COLUMNS = {
    "app.schools": ("school_id", "district_id", "clever_id"),
    "app.classrooms": ("classroom_id", "district_id", "school_id", "clever_id"),
    "app.users": ("user_id", "district_id", "clever_id"),
    "app.user_roles": ("district_id", "user_id"),
    "app.enrollments": ("district_id", "classroom_id", "user_id"),
}
# As in: Key (district_id, clever_id)=(1, 5f1c...) already exists.
_KEY = re.compile(r"\(([a-z_]+(?:, [a-z_]+)*)\)=\((.*?)\)")
# As in: Failing row contains (7, 1, 5f1c..., ...), in any language of the server.
_ROW = re.compile(r"\((.*)", re.DOTALL)


def offending_ids(error: psycopg.Error) -> Mapping[str, str]:
    """The ids of the row that the server refused, by column; empty if the server does not say. Never another value."""
    detail = error.diag.message_detail or ""
    if key := _KEY.search(detail):
        names, values = key[1].split(", "), key[2].split(", ")
        return _named(names, values) if len(names) == len(values) else {}
    columns = FIRST_COLUMNS.get(f"{error.diag.schema_name}.{error.diag.table_name}", ())
    found = _ROW.search(detail)
    return _named(columns, found[1].split(", ")) if found else {}


def _named(columns: Sequence[str], values: Sequence[str]) -> Mapping[str, str]:
    """The ids at the beginning. After a column that is no id, a value could be anything, also several of them."""
    ids = {}
    for column, value in zip(columns, values, strict=False):
        if column not in _IDS | _PASSED:
            break
        if column in _IDS and _ID.fullmatch(value) and value != "null":
            ids[column] = value
    return ids
