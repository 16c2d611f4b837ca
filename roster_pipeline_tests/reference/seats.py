"""Which students get a seat (R9.1, R9.2), one after the other.

Does not belong here: which users are students after the sync, and what happens to students without a seat (`model.py`).
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
        has_seat: had one before this sync; a licensed student does not lose it.
        is_unchanged: held, quarantined or protected: the seat, or the lack of one, stays.
    """

    user_id: Id
    clever_id: str | None
    school: Id | None
    created_at: datetime
    has_seat: bool
    is_unchanged: bool


def has_seat(user: User | None) -> bool:
    """Whether a user that this sync can change has a seat."""
    return user is not None and user.deleted_at is None and user.license_status == "licensed"


def hand_out(students: Iterable[Student], licenses: int | None, school_licenses: Mapping[Id, int]) -> set[Id]:
    """The users with a seat: those who have one, then the oldest accounts, while the district and the primary school have free seats."""
    students = list(students)
    seated = {student.user_id for student in students if student.has_seat}
    taken = Counter(student.school for student in students if student.has_seat)
    for student in sorted(students, key=lambda each: (each.created_at, each.clever_id or "")):
        is_candidate = not student.has_seat and not student.is_unchanged
        district_has_one = licenses is None or taken.total() < licenses
        school_has_one = student.school is None or taken[student.school] < school_licenses.get(student.school, inf)
        if is_candidate and district_has_one and school_has_one:
            seated.add(student.user_id)
            taken[student.school] += 1
    return seated
