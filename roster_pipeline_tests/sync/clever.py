"""Short functions that make records of Clever, so that tests are easy to read.

Belongs here: records as Clever sends them, with the fields that tests need as arguments. Does not belong here: what the pipeline
makes of them.
"""

from collections.abc import Sequence
from typing import Any

from roster_pipeline_tests.reference.model import Record, Snapshot


def clever(*records: Record) -> Snapshot:
    """A snapshot of these records, each in its collection, and school s1."""
    schools = [each for each in records if each["id"].startswith("s")]
    if all(each["id"] != "s1" for each in schools):
        schools.insert(0, school("s1"))
    terms = [each for each in records if each["id"].startswith("t") and "roles" not in each]
    sections = [each for each in records if each["id"].startswith("c")]
    return Snapshot(schools, sections, [each for each in records if "roles" in each], terms)


def school(clever_id: str, name: str | None = None, **fields: Any) -> Record:
    """A school; its name is its id in capitals unless one is given."""
    return {"id": clever_id, "name": clever_id.upper() if name is None else name, **fields}


def term(clever_id: str, name: str | None = None, start: str | None = None, end: str | None = None, **fields: Any) -> Record:
    """A term with its first and last day."""
    return {"id": clever_id, "name": name, "start_date": start, "end_date": end, **fields}


def section(
    clever_id: str, students: Sequence[str] = (), teachers: Sequence[str] = (), *, at: str = "s1", name: str | None = None, **fields: Any
) -> Record:
    """A section with its members."""
    named = clever_id.upper() if name is None else name
    return {"id": clever_id, "name": named, "school": at, "students": list(students), "teachers": list(teachers), **fields}


def student(
    clever_id: str,
    username: str | None = None,
    *,
    at: str = "s1",
    schools: Sequence[str] = (),
    name: str = "Ana Li",
    email: str | None = None,
    sis_id: str | int | None = None,
    grade: str | None = "3",
    **fields: Any,
) -> Record:
    """A student; `at` is the primary school. A `sis_id` that is a number has the wrong JSON type (R4.2)."""
    role = {"school": at, "schools": [at, *schools], "sis_id": sis_id, "grade": grade, "credentials": {"district_username": username}}
    return _person(clever_id, name, email, {"student": role}, fields)


def teacher(
    clever_id: str,
    username: str | None = None,
    *,
    at: str = "s1",
    schools: Sequence[str] = (),
    name: str = "Eva Ng",
    email: str | None = None,
    sis_id: str | None = None,
    staff: Sequence[str] | None = None,
    district_admin: bool = False,
    **fields: Any,
) -> Record:
    """A teacher, who may also be a school admin (`staff` has the schools) and a district admin."""
    role = {"school": at, "schools": [at, *schools], "sis_id": sis_id, "credentials": {"district_username": username}}
    roles: dict[str, Any] = {"teacher": role}
    if staff is not None:
        roles["staff"] = {"schools": list(staff)}
    if district_admin:
        roles["district_admin"] = {}
    return _person(clever_id, name, email, roles, fields)


def staff(clever_id: str, schools: Sequence[str] = ("s1",), *, username: str | None = None, name: str = "Sam Oh", **fields: Any) -> Record:
    """A school admin at these schools."""
    role = {"schools": list(schools), "credentials": {"district_username": username}}
    return _person(clever_id, name, None, {"staff": role}, fields)


def district_admin(clever_id: str, *, name: str = "Dee Ma", **fields: Any) -> Record:
    """A district admin."""
    return _person(clever_id, name, None, {"district_admin": {}}, fields)


def _person(clever_id: str, name: str, email: str | None, roles: dict[str, Any], fields: dict[str, Any]) -> Record:
    first, _, last = name.partition(" ")
    return {"id": clever_id, "name": {"first": first, "last": last}, "email": email, "roles": roles, **fields}
