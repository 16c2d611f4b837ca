"""Records with odd values: one whole record of each resource, and values of every JSON type to put in the place of any value in it.

Belongs here: what can come over the wire in the place of a value. Does not belong here: expectations.
"""

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

HERE = "5a0c91b95c7cc000010d417c"
_BASE = {"id": "x", "district": HERE, "last_modified": "2026-01-01T00:00:00Z"}
_NAME = {"first": "Ada", "middle": "M", "last": "Byron"}
_ROLE = {
    "school": "s1",
    "schools": ["s1"],
    "sis_id": "1",
    "state_id": "2",
    "student_number": "3",
    "grade": "4",
    "credentials": {"district_username": "ada"},
}
_USER = _BASE | {
    "name": _NAME,
    "email": "a@b.example",
    "roles": {"student": _ROLE, "teacher": _ROLE, "staff": {"schools": ["s1"], "credentials": _ROLE["credentials"]}, "district_admin": {}},
}
# One record of each resource, with every field that is read.
WHOLE: dict[str, dict[str, Any]] = {
    "districts": {"id": HERE, "name": "D", "state": "running", "last_sync": "2026-01-01T00:00:00Z"},
    "schools": _BASE | {"name": "S"},
    "terms": _BASE | {"name": "T", "start_date": "2026-01-01", "end_date": "2026-06-30"},
    "courses": _BASE | {"name": "C", "number": "1"},
    "sections": _BASE
    | {"school": "s1", "name": "S", "course": "c1", "term_id": "t1", "students": ["p1"], "teachers": ["p2"], "teacher": "p2"},
    "users": _USER,
}
# Each is read differently by some parser, or is more than some type can hold.
NASTY: list[Any] = [
    *("", " ", "\t", "\x00", "a\x00b", "\ud800", "\udfff\ud800x", "\u202e", "\ufdfa" * 255),
    *("\\", '"', "{}", "{NULL}", "NULL", '{"a"', "a,b", "'", "\\N", "\\.", "@", "a@b@c", "a@" + "b" * 5_000),
    *("a" * 300, "x" * 100_000, "".join(chr(0x4E00 + each * 7 % 20_000) for each in range(4_000))),
    *("2025", "2025-01", "2026-08", "2026-08-17T10", "20250101T10", "20250101", "2025-01-01 00", "2025-W03-1", "2025-001", "8/17/2026"),
    *("2025-02-30", "0000-01-01", "0001-01-01", "9999-12-31", "10000-01-01", "-0044-03-15", "+002025-01-01", "2025-13-01"),
    *(f"2025-01-01T00:00:00{zone}" for zone in ("Z", "z", "+23:59", "+16:00", "-15:59", "+24:00", "+1", "+01:00:30", "[UTC]", " PST")),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2025-01-01T24:00:00Z", "2025-01-01T23:59:60Z"),
    *("2025-01-01T00:00:00.1234567891Z", "\u0662\u0660\u0662\u0665-01-01"),
    *("infinity", "-infinity", "now", "today", "epoch", "allballs", "NaN", "1e400", "true"),
    *(None, True, False, 0, -1, 1.5, 10**400, -(2**63) - 1, 1e308),
]  # fmt: skip
_SCALARS = st.one_of(
    st.sampled_from(NASTY),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
    st.datetimes().map(str),
)
_KEYS = st.sampled_from(["id", "first", "schools", "x"])
ODD: st.SearchStrategy[Any] = st.one_of(_SCALARS, _SCALARS, st.lists(_SCALARS, max_size=3), st.dictionaries(_KEYS, _SCALARS, max_size=2))


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every value in a record, the record itself first."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(inner, (*path, key))


def replaced(record: dict[str, Any], path: tuple[str | int, ...], value: Any) -> Any:
    """The record with another value there."""
    if not path:
        return value
    changed = copy.deepcopy(record)
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


@st.composite
def odd_records(draw: st.DrawFn, whole: dict[str, Any]) -> Any:
    """The record with one or two odd values, anywhere in it."""
    record: Any = whole
    for _ in range(draw(st.integers(1, 2))):
        record = replaced(record, draw(st.sampled_from(list(paths(record)))), draw(ODD))
    return record
