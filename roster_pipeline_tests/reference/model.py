"""What one sync has to do to one district, written down a second time: plain Python, person by person, slow and obvious.

Belongs here: SPEC 3-8 as a function from the rows of `app` and a snapshot to the rows of `app`. It shares no code with the pipeline, so
that a mistake has to be made twice to go unseen. Does not belong here: the database, Hypothesis, and how records travel (`driver.py`).

Not modelled: brakes and approvals (R7.3-R7.6) and licenses (R9). What is `kept` below is where a hold would add its people and places.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

Id = int | str
"""A generated key of the database; "new:<Clever id>" for a row this sync creates."""
Record = Mapping[str, Any]
"""One object as Clever sends it."""

GRADES = (
    {"InfantToddler", "Preschool", "PreKindergarten", "TransitionalKindergarten", "Kindergarten", "PostGraduate", "Ungraded", "Other"}
    | {str(grade) for grade in range(1, 14)}
)  # fmt: skip
FAMILY = {"student": "student", "teacher": "staff", "school_admin": "staff", "district_admin": "staff", "account_owner": "staff"}


@dataclass(frozen=True)
class School:
    """A row of app.schools."""

    clever_id: str | None
    name: str
    source: str
    protected: bool
    deleted_at: datetime | None


@dataclass(frozen=True)
class Classroom:
    """A row of app.classrooms."""

    clever_id: str | None
    name: str
    school_id: Id | None
    source: str
    protected: bool
    deleted_at: datetime | None


@dataclass(frozen=True)
class User:
    """A row of app.users, without the license (R9)."""

    clever_id: str | None
    username: str | None
    first_name: str | None
    middle_name: str | None
    last_name: str | None
    email: str | None
    sis_id: str | None
    state_id: str | None
    student_number: str | None
    grade: str | None
    school_id: Id | None
    source: str
    protected: bool
    do_not_restore: bool
    login_methods: tuple[str, ...]
    deleted_at: datetime | None

    @property
    def barred(self) -> bool:
        """Deactivated by support on purpose (R8.3)."""
        return self.do_not_restore and self.deleted_at is not None


@dataclass(frozen=True)
class Role:
    """A row of app.user_roles."""

    source: str
    deleted_at: datetime | None


@dataclass(frozen=True)
class Enrollment:
    """A row of app.enrollments."""

    is_primary: bool
    source: str
    deleted_at: datetime | None


RoleKey = tuple[Id, str, Id | None]
EnrollmentKey = tuple[Id, Id, str]


@dataclass
class State:
    """The rows of one district. Roles go by (user, role, school), enrollments by (classroom, user, role)."""

    schools: dict[Id, School] = field(default_factory=dict)
    classrooms: dict[Id, Classroom] = field(default_factory=dict)
    users: dict[Id, User] = field(default_factory=dict)
    roles: dict[RoleKey, Role] = field(default_factory=dict)
    enrollments: dict[EnrollmentKey, Enrollment] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """What Clever sends for one district: its objects in the order in which they come, the ones it sends twice included."""

    schools: Sequence[Record] = ()
    sections: Sequence[Record] = ()
    users: Sequence[Record] = ()


@dataclass(frozen=True)
class Rules:
    """The district's agreement and profile. `agreed_schools` holds (name, Clever id or None); empty = no bound (R6.4)."""

    clever_id: str
    student_email: bool
    student_multi_school: bool
    login_methods: tuple[str, ...]
    agreed_schools: Sequence[tuple[str, str | None]] = ()
    agreed_grades: Sequence[str] = ()


@dataclass
class Person:
    """One valid person of the snapshot. `listed` are the roles Clever gives, by the school's Clever id; None is the district."""

    clever_id: str
    values: dict[str, str | None]
    is_student: bool
    listed: set[tuple[str, str | None]]
    primary: str | None
    username: str

    @property
    def family(self) -> str:
        return "student" if self.is_student else "staff"


def key(username: str | None) -> str | None:
    """How usernames and school names compare (SPEC 5)."""
    return None if username is None else unicodedata.normalize("NFKC", username).strip().lower()


def clean(text: Any) -> str | None:
    """Text as it is stored (R4.5); blank is nothing."""
    if text is None:
        return None
    for line_break in ("\r\n", "\t", "\n", "\x0b", "\x0c", "\r", "\x85", "\u2028", "\u2029"):
        text = text.replace(line_break, " ")
    text = "".join(each for each in text if unicodedata.category(each) not in ("Cc", "Cs"))
    return unicodedata.normalize("NFC", text).strip() or None


# Reading the snapshot -----------------------------------------------------------------------------------------------------------


def newest(records: Iterable[Record], district: str) -> dict[str, Record]:
    """One record per Clever id, none of another district (R3.6, R3.8)."""
    chosen: dict[str, Record] = {}
    for record in records:
        if (record.get("district") or district) != district:
            continue
        rival = chosen.get(record["id"])
        if rival is None or (record.get("last_modified") or "") >= (rival.get("last_modified") or ""):
            chosen[record["id"]] = record
    return chosen


def split_named(records: Mapping[str, Record]) -> tuple[dict[str, str], set[str]]:
    """Schools or sections: the name of each valid one, and the ids of the quarantined ones (R4.2)."""
    names = {clever_id: clean(record.get("name")) for clever_id, record in records.items()}
    return {clever_id: name for clever_id, name in names.items() if name}, {clever_id for clever_id, name in names.items() if not name}


def read_people(users: Sequence[Record], rules: Rules) -> tuple[dict[str, Person], set[str]]:
    """The valid people, and the ids of the quarantined ones (R4.2). Users are walked once per role, so they arrive role by role."""
    arrivals = [record for role in ("student", "teacher", "staff", "district_admin") for record in users if role in record["roles"]]
    people, quarantined = {}, set()
    for clever_id, record in newest(arrivals, rules.clever_id).items():
        name = record.get("name") or {}
        if clean(name.get("first")) and clean(name.get("last")):
            people[clever_id] = read_person(record, rules)
        else:
            quarantined.add(clever_id)
    return people, quarantined


def read_person(record: Record, rules: Rules) -> Person:
    """One user of Clever (SPEC 1: username, e-mail; R5.8: roles)."""
    roles = record["roles"]
    student, teacher, staff = (roles.get(each) or {} for each in ("student", "teacher", "staff"))
    listed: set[tuple[str, str | None]] = set()
    if "student" in roles:
        at = {*student.get("schools", ()), student.get("school")} if rules.student_multi_school else {student.get("school")}
        listed |= {("student", school) for school in at if school}
    listed |= {("teacher", school) for school in {*teacher.get("schools", ()), teacher.get("school")} if school}
    listed |= {("school_admin", school) for school in staff.get("schools", ())}
    if "district_admin" in roles:
        listed.add(("district_admin", None))

    sent = next((name for each in (student, teacher) if (name := clean((each.get("credentials") or {}).get("district_username")))), None)
    is_admin = "staff" in roles or "district_admin" in roles
    grade = clean(student.get("grade"))
    email = clean(record.get("email"))
    return Person(
        clever_id=record["id"],
        values={
            "first_name": clean(record["name"]["first"]),
            "middle_name": clean(record["name"].get("middle")),
            "last_name": clean(record["name"]["last"]),
            "email": email if email and email.count("@") == 1 and ("student" not in roles or rules.student_email) else None,
            "sis_id": clean(student.get("sis_id")) or clean(teacher.get("sis_id")),
            "state_id": clean(student.get("state_id")) or clean(teacher.get("state_id")),
            "student_number": clean(student.get("student_number")),
            "grade": grade if grade in GRADES else None,
        },
        is_student="student" in roles,
        listed=listed,
        primary=student.get("school") or teacher.get("school"),
        username=record["id"] if is_admin or not sent else sent,
    )


# Who is who ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Matches:
    """Whom each person of the snapshot is in the application, and by which rule. Who is in none of them is new (R5.4)."""

    linked: dict[str, Id] = field(default_factory=dict)
    adopted: dict[str, Id] = field(default_factory=dict)
    relinked: dict[str, Id] = field(default_factory=dict)

    def user_of(self, clever_id: str) -> Id | None:
        return self.linked.get(clever_id) or self.adopted.get(clever_id) or self.relinked.get(clever_id)


def family_of(state: State, user_id: Id) -> str | None:
    """Student or staff: by the roles the user has, or had before losing the last one. Who has both is staff, as in a snapshot."""
    held = [(role, row) for (holder, role, _), row in state.roles.items() if holder == user_id]
    roles = [role for role, row in held if row.deleted_at is None] or [role for role, _ in held]
    if not roles:
        return None
    return "student" if set(roles) == {"student"} else "staff"


def match(state: State, people: Mapping[str, Person], present: set[str]) -> Matches:
    """R5.1-R5.3. `people` are those to be rostered, `present` every Clever id of the snapshot."""
    matches = Matches()
    for user_id, user in state.users.items():
        if user.clever_id is not None and user.clever_id in people:
            matches.linked[user.clever_id] = user_id

    candidates: dict[tuple[str | None, str | None], list[Id]] = defaultdict(list)
    for user_id, user in state.users.items():
        if user.clever_id is None and user.username is not None and not user.protected and not user.do_not_restore:
            candidates[key(user.username), family_of(state, user_id)].append(user_id)
    unlinked = [person for person in people.values() if person.clever_id not in matches.linked]
    claims = Counter((key(person.username), person.family) for person in unlinked)
    for person in unlinked:
        wanted = (key(person.username), person.family)
        found = candidates[wanted]
        found = [user_id for user_id in found if state.users[user_id].deleted_at is None] or found
        if len(found) == 1 and claims[wanted] == 1:
            matches.adopted[person.clever_id] = found[0]

    pairs = [
        (person.clever_id, user_id)
        for person in unlinked
        if person.clever_id not in matches.adopted
        for user_id, user in state.users.items()
        if user.clever_id is not None
        and user.clever_id not in present
        and not user.protected
        and key(user.username) == key(person.username)
        and family_of(state, user_id) == person.family
        and agree(user, person)
    ]
    by_person, by_user = Counter(clever_id for clever_id, _ in pairs), Counter(user_id for _, user_id in pairs)
    matches.relinked = {clever_id: user_id for clever_id, user_id in pairs if by_person[clever_id] == by_user[user_id] == 1}
    return matches


def agree(user: User, person: Person) -> bool:
    """sis_id or both names (R5.3)."""
    same_sis_id = user.sis_id is not None and user.sis_id == person.values["sis_id"]
    theirs, ours = [(key(user.first_name), key(user.last_name)), (key(person.values["first_name"]), key(person.values["last_name"]))]
    return same_sis_id or theirs == ours


def give_usernames(state: State, people: Mapping[str, Person], matches: Matches, kept: set[Id]) -> dict[str, str]:
    """R5.5: the username of each person who is to be written.

    Args:
        people: those to be rostered, without the ones who are in the application as protected users.
        kept: users that stay exactly as they are, with their names.
    """
    taken = {key(user.username) for user_id, user in state.users.items() if user_id in kept and user.deleted_at is None}
    owners = {key(clever_id): clever_id for clever_id in people}
    claimants: dict[str | None, list[str]] = defaultdict(list)
    for person in people.values():
        claimants[key(person.username)].append(person.clever_id)

    given = {}
    for person in people.values():
        name = key(person.username)
        incumbents = [each for each in claimants[name] if _has(state, matches.user_of(each), name)]
        wins = name not in taken and name not in owners and (incumbents or claimants[name]) == [person.clever_id]
        given[person.clever_id] = person.username if wins else person.clever_id
    return given


def add_those_without_a_name(state: State, people: Iterable[str], kept: set[Id]) -> set[str]:
    """R5.5: whose own Clever id is the username of somebody else who stays as is: a protected user, or one who is quarantined.

    Their own users are added to `kept`: now they stay too, with their names.
    """
    ids = {user.clever_id: user_id for user_id, user in state.users.items() if user.clever_id is not None}
    found: set[str] = set()
    while True:
        more = {
            clever_id
            for clever_id in people
            if clever_id not in found and any(_has(state, user_id, key(clever_id)) and user_id != ids.get(clever_id) for user_id in kept)
        }
        if not more:
            return found
        found |= more
        kept |= {ids[each] for each in more if each in ids}


def _has(state: State, user_id: Id | None, name: str | None) -> bool:
    return user_id is not None and state.users[user_id].deleted_at is None and key(state.users[user_id].username) == name


# The sync -----------------------------------------------------------------------------------------------------------------------


def sync(state: State, snapshot: Snapshot, rules: Rules, now: datetime) -> tuple[State, dict[tuple[str, str], str]]:
    """The district after the sync, and every written row's action by (entity, entity id) as in `ops.changes`."""
    end = _Sync(state, snapshot, rules, now)
    end.run()
    return end.after, actions(state, end.after, end.matches)


class _Sync:
    def __init__(self, state: State, snapshot: Snapshot, rules: Rules, now: datetime) -> None:
        self.before, self.rules, self.now = state, rules, now
        self.after = State(dict(state.schools), dict(state.classrooms), dict(state.users), dict(state.roles), dict(state.enrollments))
        self.school_records = newest(snapshot.schools, rules.clever_id)
        self.section_records = newest(snapshot.sections, rules.clever_id)
        self.people, self.quarantined_people = read_people(snapshot.users, rules)
        self.matches = Matches()

    def run(self) -> None:
        self.roster_schools()
        self.roster_people()
        self.roster_classrooms()
        self.roster_enrollments()

    def roster_schools(self) -> None:
        """R6.1, R6.4. Afterwards `open_schools` are those people and classrooms are rostered at, by Clever id.

        `kept_schools` are quarantined: they and what is in them stay as they are. A deleted one is not among them, and not restored either.
        """
        names, quarantined = split_named(self.school_records)
        inside = {clever_id for clever_id, name in names.items() if self._is_agreed(clever_id, name, names)}
        self.open_schools: dict[str, Id] = {}
        self.kept_schools = {each for each, row in self.before.schools.items() if row.clever_id in quarantined and row.deleted_at is None}
        ids = {row.clever_id: school_id for school_id, row in self.before.schools.items() if row.clever_id}
        for school_id, row in self.before.schools.items():
            if not row.protected and school_id not in self.kept_schools:
                self.after.schools[school_id] = replace(row, deleted_at=row.deleted_at or self.now)
        for clever_id in inside:
            school_id = ids.get(clever_id, f"new:{clever_id}")
            old = self.before.schools.get(school_id)
            if old is None or not old.protected:
                self.after.schools[school_id] = School(clever_id, names[clever_id], "clever", False, None)
            if self.after.schools[school_id].deleted_at is None:
                self.open_schools[clever_id] = school_id

    def _is_agreed(self, clever_id: str, name: str, shared: Mapping[str, str]) -> bool:
        """By Clever id, else (none recorded, or one that is not shared) by name."""
        agreed = self.rules.agreed_schools
        return not agreed or any(
            known_id == clever_id if known_id in shared else key(known_name) == key(name) for known_name, known_id in agreed
        )

    def roster_people(self) -> None:
        """R5, R6.3, R6.4. Afterwards `rostered` are the people who are in, and `kept_users` stay exactly as they are."""
        users = self.before.users
        ids = {row.clever_id: user_id for user_id, row in users.items() if row.clever_id is not None}
        present = set(self.people) | self.quarantined_people
        # Whose only school is quarantined is neither gone nor placed (R4.6).
        waiting = {each for each, person in self.people.items() if self._is_agreed_grade(person) and self._is_waiting(person)}
        protected = {user_id for user_id, row in users.items() if row.protected}
        kept = protected | {ids[each] for each in (self.quarantined_people | waiting) if each in ids}
        nameless = add_those_without_a_name(self.before, self.people, kept)

        candidates = {each: person for each, person in self.people.items() if each not in waiting | nameless and self._roles_of(person)}
        self.matches = match(self.before, candidates, present)
        barred = {each for each in candidates if (user_id := self.matches.user_of(each)) is not None and users[user_id].barred}
        self.rostered = {each: person for each, person in candidates.items() if each not in barred and ids.get(each) not in protected}
        names = give_usernames(self.before, self.rostered, self.matches, kept)

        self.kept_users = kept - protected
        self.user_ids: dict[str, Id] = {each: self.matches.user_of(each) or f"new:{each}" for each in self.rostered}
        for user_id, row in users.items():
            if user_id not in kept:
                self.after.users[user_id] = replace(row, deleted_at=row.deleted_at or self.now)
        for clever_id, username in names.items():
            user_id = self.user_ids[clever_id]
            self.after.users[user_id] = self._user_row(self.rostered[clever_id], username, users.get(user_id))
        for clever_id in barred & set(self.matches.relinked):  # R8.3
            user_id = self.matches.relinked[clever_id]
            self.after.users[user_id] = replace(users[user_id], clever_id=clever_id)
        self._roster_roles(kept)
        # Protected people enroll like others, with the roles they have (R8.1).
        self.members = {each: (self.user_ids[each], self._roles_of(person)) for each, person in self.rostered.items()}
        for clever_id in set(self.people) - waiting - nameless:
            if ids.get(clever_id) in protected and users[ids[clever_id]].deleted_at is None:
                self.members[clever_id] = (ids[clever_id], self._held_roles(ids[clever_id]))

    def _is_agreed_grade(self, person: Person) -> bool:
        grade = person.values["grade"]
        return not person.is_student or not self.rules.agreed_grades or grade is None or grade in self.rules.agreed_grades

    def _is_waiting(self, person: Person) -> bool:
        kept = {row.clever_id for each, row in self.before.schools.items() if each in self.kept_schools}
        return not self._roles_of(person) and any(school in kept for _, school in person.listed)

    def _roles_of(self, person: Person) -> set[tuple[str, Id | None]]:
        """The roles that Clever lists inside the agreement at open schools, and those the person has at schools that stay as they are."""
        listed = {(role, self.open_schools.get(school) if school else None) for role, school in person.listed}
        roles = {(role, school) for role, school in listed if school is not None or role == "district_admin"}
        return (roles if self._is_agreed_grade(person) else set()) | self._kept_roles(person)

    def _kept_roles(self, person: Person) -> set[tuple[str, Id | None]]:
        holders = [each for each, row in self.before.users.items() if row.clever_id == person.clever_id and row.deleted_at is None]
        return {(role, school) for each in holders for role, school in self._held_roles(each) if school in self.kept_schools}

    def _held_roles(self, user_id: Id) -> set[tuple[str, Id | None]]:
        return {(role, school) for (holder, role, school), row in self.before.roles.items() if holder == user_id and row.deleted_at is None}

    def _user_row(self, person: Person, username: str, old: User | None) -> User:
        methods = ["clever"]
        if key(username) != key(person.clever_id):
            methods += [each for each in self.rules.login_methods if each != "clever" and (each != "google" or person.values["email"])]
        known = {row.clever_id: each for each, row in self.before.schools.items() if each in self.kept_schools}
        school = (self.open_schools | known).get(person.primary)
        return User(
            **person.values,
            clever_id=person.clever_id,
            username=username,
            school_id=school,
            source="clever",
            protected=False,
            do_not_restore=old.do_not_restore if old else False,
            login_methods=tuple(methods),
            deleted_at=None,
        )

    def _roster_roles(self, untouched: set[Id]) -> None:
        """R5.8: rostered roles come and go, the others stay."""
        for (user_id, role, school), row in self.before.roles.items():
            if user_id not in untouched and row.source == "clever" and school not in self.kept_schools:
                self.after.roles[user_id, role, school] = replace(row, deleted_at=row.deleted_at or self.now)
        for clever_id, person in self.rostered.items():
            user_id = self.user_ids[clever_id]
            if user_id in untouched:
                continue
            for role, school in self._roles_of(person):
                old = self.before.roles.get((user_id, role, school))
                if school not in self.kept_schools and (old is None or old.source == "clever" or old.deleted_at is not None):
                    self.after.roles[user_id, role, school] = Role("clever", None)

    def roster_classrooms(self) -> None:
        """R6.1. Afterwards `open_classrooms` are those whose members follow Clever, by Clever id; the kept ones stay as they are."""
        names, quarantined = split_named(self.section_records)
        ids = {row.clever_id: each for each, row in self.before.classrooms.items() if row.clever_id}
        kept_schools = {self.before.schools[each].clever_id for each in self.kept_schools}
        in_kept_schools = {each for each, section in self.section_records.items() if section.get("school") in kept_schools}
        self.kept_classrooms = {
            classroom_id
            for classroom_id, row in self.before.classrooms.items()
            if row.protected
            or row.clever_id in quarantined | in_kept_schools
            or (row.school_id in self.kept_schools and row.deleted_at is None)
        }
        for classroom_id, row in self.before.classrooms.items():
            if classroom_id not in self.kept_classrooms:
                self.after.classrooms[classroom_id] = replace(row, deleted_at=row.deleted_at or self.now)
        self.open_classrooms: dict[str, Id] = {}
        for clever_id, name in names.items():
            school = self.open_schools.get(self.section_records[clever_id].get("school") or "")
            classroom_id = ids.get(clever_id, f"new:{clever_id}")
            if school is not None and classroom_id not in self.kept_classrooms:
                self.after.classrooms[classroom_id] = Classroom(clever_id, name, school, "clever", False, None)
                self.open_classrooms[clever_id] = classroom_id

    def roster_enrollments(self) -> None:
        """R6.2, R6.3."""
        for (classroom_id, user_id, role), row in self.before.enrollments.items():
            if classroom_id not in self.kept_classrooms and user_id not in self.kept_users:
                self.after.enrollments[classroom_id, user_id, role] = replace(row, deleted_at=row.deleted_at or self.now)
        for clever_id, classroom_id in self.open_classrooms.items():
            section = self.section_records[clever_id]
            school = self.open_schools[section["school"]]
            teachers = section.get("teachers") or [section.get("teacher")]
            for member in section.get("students") or ():
                user_id, roles = self.members.get(member, (0, set()))
                at = {school for role, school in roles if role == "student"}
                if at and (self.rules.student_multi_school or school in at):
                    self.after.enrollments[classroom_id, user_id, "student"] = Enrollment(False, "clever", None)
            for member in teachers:
                user_id, roles = self.members.get(member, (0, set()))
                if any(role == "teacher" for role, _ in roles):
                    self.after.enrollments[classroom_id, user_id, "teacher"] = Enrollment(member == teachers[0], "clever", None)


# What was written ---------------------------------------------------------------------------------------------------------------


def actions(before: State, after: State, matches: Matches) -> dict[tuple[str, str], str]:
    """One action per row that differs, by (entity, entity id) as in `ops.changes` (SPEC 2)."""
    found: dict[tuple[str, str], str] = {}
    for entity in ("schools", "classrooms", "users"):
        old, new = getattr(before, entity), getattr(after, entity)
        found |= {(entity, str(each)): _act(old.get(each), row) for each, row in new.items() if row != old.get(each)}
    for action, matched in (("adopt", matches.adopted), ("relink", matches.relinked)):
        found |= {("users", str(user_id)): action for user_id in matched.values()}
    for keys, role in after.roles.items():
        if role != before.roles.get(keys):
            act = _act(before.roles.get(keys), role)
            found["user_roles", _joined(keys)] = {"create": "role_gain", "restore": "role_gain", "soft_delete": "role_loss"}.get(act, act)
    for member, enrollment in after.enrollments.items():
        if enrollment != before.enrollments.get(member):
            found["enrollments", _joined(member)] = _act(before.enrollments.get(member), enrollment)
    return found


def _joined(keys: Iterable[Id | None]) -> str:
    return ":".join("" if each is None else str(each) for each in keys)


def _act(old: Any, new: Any) -> str:
    if old is None:
        return "create"
    if (old.deleted_at is None) == (new.deleted_at is None):
        return "update"
    return "soft_delete" if old.deleted_at is None else "restore"
