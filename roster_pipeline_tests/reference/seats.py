"""Who gets a seat (R9.1, R9.2), student by student.

Does not belong here: who is a student after the sync, and what is done about those who get none (`model.py`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf

from roster_pipeline_tests.reference.rows import Id, User


@dataclass(frozen=True)
class Student:
    """An active student after the sync.

    Attributes:
        school: the primary one.
        has_seat: held before this sync; nobody licensed loses it.
        is_untouched: held, quarantined or protected: whatever they have stays.
    """

    user_id: Id
    clever_id: str | None
    school: Id | None
    created_at: datetime
    has_seat: bool
    is_untouched: bool


def has_seat(user: User | None) -> bool:
    """Whether somebody whom this sync changes has a seat to keep."""
    return user is not None and user.deleted_at is None and user.license_status == "licensed"


def hand_out(students: Iterable[Student], licenses: int | None, school_licenses: Mapping[Id, int]) -> set[Id]:
    """The users with a seat: those who have one, then the longest there, as long as the district and the primary school have one left."""
    students = list(students)
    seated = {student.user_id for student in students if student.has_seat}
    taken = Counter(student.school for student in students if student.has_seat)
    for student in sorted(students, key=lambda each: (each.created_at, each.clever_id or "")):
        is_candidate = not student.has_seat and not student.is_untouched
        district_has_one = licenses is None or taken.total() < licenses
        school_has_one = student.school is None or taken[student.school] < school_licenses.get(student.school, inf)
        if is_candidate and district_has_one and school_has_one:
            seated.add(student.user_id)
            taken[student.school] += 1
    return seated
