"""Reads what Clever sends (R3.6, R3.8, R4.5): one record per Clever id, clean text, and the values of each person.

Does not belong here: which records can be used (`readable.py`), the rows of the application, and decisions about people (`matching.py`,
`model.py`).
"""

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from roster_pipeline_tests.reference.readable import WALKS, Use, odd_people, person_use
from roster_pipeline_tests.reference.rows import Record, Rules, Snapshot

GRADES = (
    {"InfantToddler", "Preschool", "PreKindergarten", "TransitionalKindergarten", "Kindergarten", "PostGraduate", "Ungraded", "Other"}
    | {str(grade) for grade in range(1, 14)}
)  # fmt: skip


@dataclass
class Person:
    """One valid person of the snapshot.

    Attributes:
        listed: the roles in Clever, each with the Clever id of the school; None is the district.
        student_schools: of a student, the primary one first.
        kinds: the roles in Clever, also one without a school, by their names in the application.
        schools: every school that Clever names for the person, also one where the person gets no role.
        username: the desired username.
        plain_username: the desired username while every admin role that Clever gives is new and held (R7.4).
        admin_roles: the admin roles that Clever gives, at whatever school.
    """

    clever_id: str
    values: dict[str, str | None]
    listed: set[tuple[str, str | None]]
    kinds: set[str]
    schools: set[str]
    student_schools: tuple[str, ...]
    primary: str | None
    username: str
    plain_username: str
    admin_roles: set[str]


def key(username: str | None) -> str | None:
    """How usernames and school names compare (SPEC 5)."""
    return None if username is None else unicodedata.normalize("NFKC", username).strip().lower()


def clean(text: Any) -> str | None:
    """Text as it is stored (R4.5); None if it is blank."""
    if text is None:
        return None
    for line_break in ("\r\n", "\t", "\n", "\x0b", "\x0c", "\r", "\x85", "\u2028", "\u2029"):
        text = text.replace(line_break, " ")
    text = "".join(each for each in text if unicodedata.category(each) not in ("Cc", "Cs"))
    return unicodedata.normalize("NFC", text).strip() or None


def newest(uses: Iterable[tuple[Record, Use]], district: str) -> tuple[dict[str, Record], set[str]]:
    """The newest record of each Clever id, without those of other districts (R3.6, R3.8): the good ones, and the ids of the others.

    A record that cannot be used and does not say how old it is counts as the newest: what is behind it stays (R4.6).
    """
    chosen: dict[str, tuple[tuple[bool, str], Record, Use]] = {}
    for record, use in uses:
        if (record.get("district") or district) != district:
            continue
        modified = record.get("last_modified") or ""
        age = (use == "unread" or (use == "broken" and not modified), modified)
        rival = chosen.get(record["id"])
        if rival is None or age >= rival[0]:
            chosen[record["id"]] = (age, record, use)
    good = {clever_id: record for clever_id, (_, record, use) in chosen.items() if use == "good"}
    return good, set(chosen) - set(good)


def read_places(records: Iterable[Record], district: str, use_of: Callable[[Record], Use]) -> tuple[dict[str, Record], set[str]]:
    """Schools or sections: the good ones by Clever id, and the ids of the quarantined ones (R4.2)."""
    return newest([(record, use_of(record)) for record in records], district)


def read_term(record: Record) -> tuple[str | None, date | None, date | None]:
    """Name, first and last day of a term (R6.1). A date that cannot be read is dropped (R4.2)."""
    days: list[date | None] = []
    for each in (record.get("start_date"), record.get("end_date")):
        try:
            days.append(date.fromisoformat((each or "")[:10]))
        except ValueError:
            days.append(None)
    return clean(record.get("name")), days[0], days[1]


def read_people(snapshot: Snapshot, rules: Rules) -> tuple[dict[str, Person], set[str]]:
    """The valid people, and the ids of the quarantined ones (R4.2). There is one collection for each role, pulled in this order."""
    in_order = [
        (record, person_use(record, role))
        for collection, role in WALKS.items()
        for record in (*(each for each in snapshot.users if role in each["roles"]), *odd_people(snapshot, collection))
    ]
    good, quarantined = newest(in_order, rules.clever_id)
    return {clever_id: read_person(record, rules) for clever_id, record in good.items()}, quarantined


def read_person(record: Record, rules: Rules) -> Person:
    """One user of Clever (SPEC 1: username, e-mail; R5.8: roles)."""
    roles = {name: role for name, role in record["roles"].items() if role is not None}
    student, teacher, staff = (
        {**roles.get(each, {}), "schools": roles.get(each, {}).get("schools") or ()} for each in ("student", "teacher", "staff")
    )
    listed: set[tuple[str, str | None]] = set()
    if "student" in roles:
        listed |= {("student", school) for school in {*student.get("schools", ()), student.get("school")} if school}
    listed |= {("teacher", school) for school in {*teacher.get("schools", ()), teacher.get("school")} if school}
    listed |= {("school_admin", school) for school in staff.get("schools", ())}
    if "district_admin" in roles:
        listed.add(("district_admin", None))

    sent = next(
        (name for each in (student, teacher, staff) if (name := clean((each.get("credentials") or {}).get("district_username")))), None
    )
    grade = clean(student.get("grade"))
    email = clean(record.get("email"))
    return Person(
        clever_id=record["id"],
        values={
            "first_name": clean(record["name"]["first"]),
            "middle_name": clean(record["name"].get("middle")),
            "last_name": clean(record["name"]["last"]),
            "email": email if email and email.count("@") == 1 and ("student" not in roles or rules.student_email) else None,
            "district_username": sent,
            "sis_id": clean(student.get("sis_id")) or clean(teacher.get("sis_id")),
            "state_id": clean(student.get("state_id")) or clean(teacher.get("state_id")),
            "student_number": clean(student.get("student_number")),
            "grade": grade if grade in GRADES else None,
        },
        listed=listed,
        kinds={"school_admin" if each == "staff" else each for each in roles},
        schools={school for role in (student, teacher, staff) for school in (*role.get("schools", ()), role.get("school")) if school},
        student_schools=tuple(each for each in (student.get("school"), *student.get("schools", ())) if each),
        primary=student.get("school") or teacher.get("school"),
        username=sent if sent and "staff" not in roles and "district_admin" not in roles else record["id"],
        plain_username=sent or record["id"],
        admin_roles={role for role, sent_as in (("school_admin", "staff"), ("district_admin", "district_admin")) if sent_as in roles},
    )
