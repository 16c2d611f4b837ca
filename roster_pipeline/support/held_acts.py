"""What a hold holds: its acts, with the people, classrooms and schools that they are about (R13.5).

Belongs here: reading `ops.held_acts`, which a sync writes when it opens a hold (`sync/brakes.py`). Names are personal data: they go to the
caller's own terminal or file (SPEC 12). Does not belong here: deciding (`holds.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

_SQL = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")


class HeldAct(NamedTuple):
    """One act that a hold holds.

    clever_id: of the person, classroom or school; None if it has none, or is removed.
    username: of a person; the name of a classroom or school.
    role: the role that is held, or all active roles of the person.
    school: the name of the school that is held, or that the person or classroom belongs to.
    act: what would happen, such as "delete users"; with the number of a row that has no Clever id.
    """

    clever_id: str | None
    username: str | None
    role: str | None
    school: str | None
    act: str


def held_acts(connection: Connection, hold_id: int) -> Iterator[HeldAct]:
    """The acts of a hold, in the order of their texts."""
    for row in _rows(connection, hold_id):
        act = row["act"].removesuffix(f" {row['clever_id']}")
        yield HeldAct(row["clever_id"], row["username"], row["role"], row["school"], act)


def held_user_ids(connection: Connection, hold_id: int) -> frozenset[int]:
    """The users that a hold is about. People who would only be created are not among them."""
    return frozenset(row["user_id"] for row in _rows(connection, hold_id) if row["user_id"] is not None)


def cause_of(connection: Connection, hold_id: int) -> int | None:
    """The one school that all acts of a hold are about; None if they are about several, or about none."""
    schools = {row["school_id"] for row in _rows(connection, hold_id)}
    return schools.pop() if len(schools) == 1 else None


def grouped(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Holds of one cause together: those of one sync that are all about one school, which the district has stopped sharing, say.

    Args:
        rows: as `list_holds` returns them. A group is where its first hold was.
    """
    groups: dict[object, list[Mapping[str, Any]]] = {}
    for row in rows:
        school_id = cause_of(connection, row["hold_id"])
        key = (row["sync_id"], school_id) if school_id is not None else row["hold_id"]
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _rows(connection: Connection, hold_id: int) -> Sequence[Mapping[str, Any]]:
    return [dict(row) for row in connection.execute(sa.text(_SQL), {"hold_id": hold_id}).mappings()]
