"""Which records of Clever can be used, and which are only present (R4.2, R4.6, R4.7, R4.8).

Belongs here: `GOOD`, `BROKEN` and `UNREAD` for schools, sections and people, and elements without an id. Does not belong here: which of two
records counts, and the values of a good one (`records.py`).
"""

from collections.abc import Mapping
from typing import Any, Literal

from roster_pipeline_tests.reference.rows import Record, Snapshot

Use = Literal["good", "broken", "unread"]
"""`broken`: a value that is needed is missing. `unread`: not even the time of the record is known. Both are quarantined."""

# The collections of users: name, and role in Clever.
WALKS: Mapping[str, str] = {"students": "student", "teachers": "teacher", "staff": "staff", "district_admins": "district_admin"}


def school_use(record: Record) -> Use:
    """R4.2."""
    return "good" if is_text(record.get("name")) else "broken"


def section_use(record: Record) -> Use:
    """R4.2, R4.7: a section needs a school and a list of students. Its list of teachers may be missing."""
    students, teachers = record.get("students"), record.get("teachers")
    if any(each is not None and not isinstance(each, list) for each in (students, teachers)):
        return "unread"
    has_ids = all(is_text(each) for each in (*(students or ()), *(teachers or ())))
    return "good" if is_text(record.get("name")) and record.get("school") and students is not None and has_ids else "broken"


def person_use(record: Record, asked: str) -> Use:
    """R4.2, R4.7.

    Args:
        asked: the role that was asked for.
    """
    roles = record.get("roles")
    if not isinstance(roles, dict) or not isinstance(roles.get(asked), dict):
        return "unread"
    for name, role in roles.items():
        has_schools = role is None or name == "district_admin" or role.get("schools") is not None
        if not has_schools and not (name == "student" and role.get("school")):
            return "unread"
    name = record.get("name") or {}
    return "good" if is_text(name.get("first")) and is_text(name.get("last")) else "broken"


def is_text(value: Any) -> bool:
    """Text that is not blank."""
    return isinstance(value, str) and bool(value.strip())


def odd_people(snapshot: Snapshot, collection: str) -> list[Record]:
    """The odd elements of a collection of users that have an id."""
    return [element["data"] for where, element in snapshot.odd if where == collection and _has_id(element)]


def unreadable_collections(snapshot: Snapshot) -> set[str]:
    """The collections in which an element has no readable id (R4.8)."""
    return {where for where, element in snapshot.odd if not _has_id(element)}


def _has_id(element: Any) -> bool:
    record = element.get("data") if isinstance(element, dict) else None
    return isinstance(record, dict) and is_text(record.get("id"))
