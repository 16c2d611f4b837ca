"""Single edits of a district: of one person, one section, one school or one field.

Belongs here: edits that a SIS, a district admin or a test makes in one step. Does not belong here: changes of many edits (`changes.py`).
A changed record gets a new `last_modified`, and its district a new `last_sync`. Edits of sharing, tokens and the district object do not
change them, because Clever's `last_sync` is only about new data from the SIS.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from hashlib import sha1
from typing import Any

from roster_pipeline.errors import UsageError
from roster_pipeline.sandbox.district import District, Kind, Record, Role, roles_of

_STAMPED = ("schools", "sections", "users")  # the kinds that have created and last_modified


def timestamp(moment: datetime) -> str:
    """An aware UTC time in Clever's format: `2026-03-02T22:24:53.347Z`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


class Edits:
    """The single edits of one district. Every method holds the district's lock, so a page is from before or after the edit.

    Every method raises UsageError for ids that do not exist.

    Args:
        district: what to change.
        now: the simulated time.
    """

    def __init__(self, district: District, now: Callable[[], datetime]) -> None:
        self.district = district
        self._now = now

    # --- people ---

    def add_user(
        self,
        role: Role,
        first: str,
        last: str,
        *,
        schools: Collection[str] = (),
        username: str = "",
        email: str | None = None,
        grade: str | None = None,
        sections: Collection[str] = (),
        user: str | None = None,
    ) -> str:
        """Adds a person with one role; the first of `schools` is the primary one, `user` the id (None: a new one). Returns the id."""
        with self._editing() as stamp:
            key = user or self.district.new_id()
            details = role_record(role, schools=list(schools), username=username, number=key[-8:], grade=grade)
            record: Record = {
                "created": stamp,
                "district": self.district.id,
                "last_modified": stamp,
                "name": {"first": first, "last": last},
                "id": key,
            }
            if email is not None:
                record["email"] = email
            self.district.put("users", key, record | {"roles": {role: details}}, roles=(role,))
            for section in sections:
                self._add_members(section, "teachers" if role == "teacher" else "students", [key], stamp)
        return key

    def remove_users(self, users: Collection[str]) -> None:
        """Deletes people, and removes them from their sections."""
        with self._editing() as stamp:
            for user in users:
                self.district.removed[user] = self.district.get("users", user), self.district.roles[user]
                self.district.drop("users", user)
            self._replace_members(dict.fromkeys(users), stamp)

    def restore_users(self, users: Collection[str]) -> None:
        """Brings removed people back with their old ids, but not into their sections."""
        with self._editing() as stamp:
            for user in users:
                if user not in self.district.removed:
                    raise UsageError(f"No user {user} has been removed.", district=self.district.id)
                record, roles = self.district.removed.pop(user)
                self.district.put("users", user, record | {"last_modified": stamp}, roles=roles)

    def enroll(self, students: Mapping[str, Collection[str]]) -> None:
        """Adds students to sections (section id -> user ids)."""
        with self._editing() as stamp:
            for section, users in students.items():
                self._add_members(section, "students", users, stamp)

    def rename(self, user: str, *, first: str | None = None, last: str | None = None, middle: str | None = None) -> None:
        """Changes the parts of a name that are not None."""
        with self._record("users", user) as record:
            record["name"] |= {part: value for part, value in {"first": first, "last": last, "middle": middle}.items() if value is not None}

    def change_username(self, user: str, username: str) -> None:
        """Changes `district_username` in every role that has credentials."""
        with self._record("users", user) as record:
            for role in roles_of(record).values():
                if "credentials" in role:
                    role["credentials"] = {"district_username": username}

    def swap_usernames(self, one: str, other: str) -> None:
        """Exchanges the usernames of two people."""
        with self._editing():
            first, second = username_of(self.district.get("users", one)), username_of(self.district.get("users", other))
            self.change_username(one, second)
            self.change_username(other, first)

    def set_roles(self, user: str, roles: dict[str, Record]) -> None:
        """Replaces all of a user's roles, and with them the lists the user appears in."""
        with self._editing() as stamp:
            record = self.district.get("users", user) | {"roles": roles, "last_modified": stamp}
            self.district.put("users", user, record, roles=tuple(roles))

    def re_id(self, users: Collection[str]) -> dict[str, str]:
        """Gives people new Clever ids, as Clever does when a sis_id changes; sections follow. Returns old id -> new id."""
        with self._editing() as stamp:
            new = {user: self.district.new_id() for user in users}
            for user, key in new.items():
                record, roles = self.district.get("users", user), self.district.roles[user]
                self.district.drop("users", user)
                self.district.put("users", key, record | {"id": key, "created": stamp, "last_modified": stamp}, roles=roles)
            self._replace_members(new, stamp)
        return new

    def move_students(self, moves: dict[str, str]) -> None:
        """Moves students (user id -> school id): out of their old primary school's sections, into as many of the new school's."""
        with self._editing() as stamp:
            left: dict[str, str] = {}
            for user, school in moves.items():
                self.district.get("schools", school)
                record = self.district.get("users", user)
                student = record["roles"]["student"]
                left[user] = student["school"]
                student["schools"] = [school, *(other for other in student["schools"] if other not in (school, left[user]))]
                student["school"] = school
                self.district.put("users", user, record | {"last_modified": stamp})
            places = dict.fromkeys(moves, 0)
            for key, section in self._sections_with(moves):
                leavers = {user for user in section["students"] if left.get(user) == section["school"] != moves.get(user)}
                if leavers:
                    section["students"] = [user for user in section["students"] if user not in leavers]
                    self.district.put("sections", key, section | {"last_modified": stamp})
                    for user in leavers:
                        places[user] += 1
            enrolled: dict[str, list[str]] = {}
            offered = self._sections_by_school(set(moves.values()))
            for user, school in moves.items():
                choice = offered.get(school, [])
                start = int(user[-6:], 16)  # spreads the students over the school's sections without a random source
                for number in range(min(places[user], len(choice))):
                    enrolled.setdefault(choice[(start + number) % len(choice)], []).append(user)
            self.enroll(enrolled)

    # --- sections ---

    def set_members(self, section: str, *, students: list[str] | None = None, teachers: list[str] | None = None) -> None:
        """Replaces a section's students, teachers (the first is the primary one), or both."""
        with self._record("sections", section) as record:
            if students is not None:
                record["students"] = students
            if teachers is not None:
                record["teachers"] = teachers
                record.pop("teacher", None)
                if teachers:
                    record["teacher"] = teachers[0]

    def add_section(self, school: str, *, name: str, students: list[str], teachers: list[str], section: str | None = None) -> str:
        """Adds a section with the id `section`, or with a new id. Returns the id."""
        with self._editing() as stamp:
            key = section or self.district.new_id()
            record: Record = {
                "created": stamp,
                "district": self.district.id,
                "id": key,
                "last_modified": stamp,
                "name": name,
                "school": school,
            }
            record |= {"sis_id": key[-8:], "subject": "", "students": students, "teachers": teachers}
            if teachers:
                record["teacher"] = teachers[0]
            self.district.put("sections", key, record)
        return key

    def remove_sections(self, sections: Collection[str]) -> None:
        """Deletes sections."""
        with self._editing():
            for section in sections:
                self.district.drop("sections", section)

    # --- sharing and connection ---

    def unshare(self, ids: Collection[str]) -> None:
        """Hides schools (with their sections, and the people who have no other shared school) or single users."""
        with self.district.lock:
            self.district.unshared.update(ids)
            self._note_change()

    def reshare(self, ids: Collection[str]) -> None:
        """Shows what `unshare` hid. Every object has the same id as before."""
        with self.district.lock:
            self.district.unshared.difference_update(ids)
            self._note_change()

    def set_district(self, **fields: Any) -> None:
        """Sets fields of the district object: `state`, `last_sync`, `pause_start`, `error`, …"""
        with self.district.lock:
            self.district.record.update(fields)
            self.district.forget_views()

    def disconnect(self) -> None:
        """Disconnects the district: its token is not listed any more, and does not work."""
        self.district.connected = False

    def connect(self) -> None:
        """Connects the district again, with the same ids as before."""
        self.district.connected = True

    def revoke_token(self) -> None:
        """Makes the token stop working until `rotate_token`. It stays listed."""
        self.district.token_accepted = False

    def rotate_token(self) -> None:
        """Lists a new token, which works. The old one does not work any more."""
        with self.district.lock:
            new = sha1(self.district.access_token.encode(), usedforsecurity=False).hexdigest()
            self.district.token = {**self.district.token, "access_token": new}
            self.district.token_accepted = True

    # --- raw records ---

    def patch(self, kind: Kind, key: str, path: str, value: object) -> None:
        """Sets one field, without checking the type: `patch("users", id, "roles.student.grade", 3)`.

        It does not change in which roles' lists a user is; `set_roles` does.
        """
        with self._record(kind, key) as record:
            *parents, last = path.split(".")
            _descend(record, parents)[last] = value

    def delete_key(self, kind: Kind, key: str, path: str) -> None:
        """Removes one field."""
        with self._record(kind, key) as record:
            *parents, last = path.split(".")
            _descend(record, parents).pop(last, None)

    def replace(self, kind: Kind, key: str, record: Record) -> None:
        """Replaces a whole record, or adds one, without checks and without a new `last_modified`."""
        with self._editing():
            self.district.put(kind, key, record, roles=tuple(roles_of(record)) if kind == "users" else None)

    # --- tools ---

    @contextmanager
    def _editing(self) -> Iterator[str]:
        """Holds the lock, yields the timestamp of the edit, and sets `last_sync` to it at the end."""
        with self.district.lock:
            moment = self._now()
            if self.district.changed_at is not None:  # two edits never have the same timestamp
                moment = max(moment, self.district.changed_at + timedelta(milliseconds=1))
            self.district.changed_at = moment
            yield timestamp(moment)
            self.district.record["last_sync"] = timestamp(self.district.changed_at)
            self._note_change()

    def _note_change(self) -> None:
        """`last_clever_sync` moves with changes of sharing too. A district has it only if `set_district` has given it one."""
        if "last_clever_sync" in self.district.record:
            moment = max(self._now(), self.district.noted_at + timedelta(milliseconds=1)) if self.district.noted_at else self._now()
            self.district.noted_at = moment
            self.district.record["last_clever_sync"] = timestamp(moment)
        self.district.forget_views()

    @contextmanager
    def _record(self, kind: Kind, key: str) -> Iterator[Record]:
        """Yields a record to change in place. At the end stores it with a new `last_modified`, unless the caller has set one."""
        with self._editing() as stamp:
            record = self.district.get(kind, key)
            before = record.get("last_modified")
            yield record
            if kind in _STAMPED and record.get("last_modified", "") == before:
                record["last_modified"] = stamp
            self.district.put(kind, key, record)

    def _sections_with(self, users: Collection[str]) -> Iterator[tuple[str, Record]]:
        members = set(users)
        for key, section in self.district.holding("sections", members):
            if not members.isdisjoint(section["students"]) or not members.isdisjoint(section["teachers"]):
                yield key, section

    def _sections_by_school(self, schools: Collection[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for key, section in self.district.holding("sections", schools):
            found.setdefault(section["school"], []).append(key)
        return found

    def _add_members(self, section: str, field: str, users: Collection[str], stamp: str) -> None:
        record = self.district.get("sections", section)
        record[field] = [*record[field], *(user for user in users if user not in record[field])]
        if field == "teachers":
            record["teacher"] = record[field][0]
        self.district.put("sections", section, record | {"last_modified": stamp})

    def _replace_members(self, new: Mapping[str, str | None], stamp: str) -> None:
        """Replaces user ids in all sections and contacts' relationships. None removes the user."""
        for key, section in self._sections_with(new):
            for field in ("students", "teachers"):
                section[field] = [other for user in section[field] if (other := new.get(user, user)) is not None]
            section.pop("teacher", None)
            if section["teachers"]:
                section["teacher"] = section["teachers"][0]
            self.district.put("sections", key, section | {"last_modified": stamp})
        for key, user in self.district.holding("users", new):
            contact = roles_of(user).get("contact")
            if contact is not None and any(item["student"] in new for item in contact["student_relationships"]):
                related = [item | {"student": new.get(item["student"], item["student"])} for item in contact["student_relationships"]]
                contact["student_relationships"] = [item for item in related if item["student"] is not None]
                self.district.put("users", key, user | {"last_modified": stamp})


def role_record(role: str, *, schools: list[str], username: str = "", number: str = "", grade: str | None = None) -> Record:
    """The object under `roles.<role>` of a user, with the fields that it always has."""
    credentials = {"district_username": username}
    primary = {"school": schools[0]} if schools else {}
    match role:
        case "student":
            record = {
                "credentials": credentials,
                "enrollments": [],
                **primary,
                "schools": schools,
                "sis_id": number,
                "student_number": number,
            }
            return record | ({"grade": grade} if grade is not None else {})
        case "teacher":
            return {"credentials": credentials, **primary, "schools": schools, "sis_id": number}
        case "staff":
            return {"credentials": credentials, "schools": schools, "staff_id": number}
        case "district_admin":
            return {"title": ""}
    raise UsageError(f"A user cannot be added with the role {role}.", hint="Use student, teacher, staff or district_admin.")


def username_of(user: Record) -> str:
    """The first `district_username` of a user's roles, or "" if there is none."""
    return next((role["credentials"]["district_username"] for role in roles_of(user).values() if role.get("credentials")), "")


def _descend(record: Record, path: list[str]) -> Record:
    for name in path:
        record = record[name]
        if not isinstance(record, dict):
            raise UsageError(f"The path has no object at {name!r}.")
    return record
