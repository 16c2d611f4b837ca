"""The terms that every roster source shares with the pipeline: the collections of a pull, and findings about records.

Does not belong here: anything that only one source knows, such as a wire format (`clever/records.py`), and rules about values
(`contracts.py`).
"""

from enum import StrEnum
from typing import Literal, NamedTuple

Severity = Literal["warn", "error"]


class Collection(StrEnum):
    """The lists that one pull reads, in this order (R3.2). Users are read once per role."""

    SCHOOLS = "schools"
    TERMS = "terms"
    COURSES = "courses"
    SECTIONS = "sections"
    STUDENTS = "students"
    TEACHERS = "teachers"
    STAFF = "staff"
    DISTRICT_ADMINS = "district_admins"

    @property
    def role(self) -> str | None:
        """The role of the users in this collection; None for the collections that are not users."""
        return _ROLES.get(self)

    @property
    def resource(self) -> str:
        """What its records become: the key of their contract (`contracts.RESOURCES`), and the resource in `ops.quarantine`."""
        return "users" if self.role else self.value


_ROLES = {
    Collection.STUDENTS: "student",
    Collection.TEACHERS: "teacher",
    Collection.STAFF: "staff",
    Collection.DISTRICT_ADMINS: "district_admin",
}


class Finding(NamedTuple):
    """One broken rule of one record. It never holds a value of the record (SPEC 12).

    Attributes:
        clever_id: "" where the record has no readable id.
        severity: `error`: the record is left out. `warn`: only the broken optional value is left out.
    """

    clever_id: str
    rule: str
    severity: Severity
