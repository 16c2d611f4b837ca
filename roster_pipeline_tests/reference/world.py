"""Small random districts: what Clever sends, and how it changes.

Belongs here: Hypothesis strategies for Clever's objects. Alphabets are tiny, so that people collide in names, ids and schools all the time.
Does not belong here: what people do between two syncs (`hands.py`), and what is right afterwards (`model.py`).

A few objects, the anchors, are always there: without one person per role Clever would often send an empty collection (R7.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from roster_pipeline_tests.reference.rows import Record, Snapshot

SCHOOLS = ("s1", "s2", "s3")
SECTIONS = ("c1", "c2", "c3", "c4")
TERMS = ("t1", "t2")
ROLES = ("student", "teacher", "staff", "district_admin")
PEOPLE = ("p1", "p2", "p3", "p4", "p5", "p6", "p7")
FIRST_NAMES = ("Ana", "Ben", " Ana\t", "Zo\u0065\u0301", "Zo\u00e9")
LAST_NAMES = ("Li", "Ng", "Li\nNg")
# A few names in several spellings (case, width, surrounding space), and Clever ids: the person's own or another.
USERNAMES = ("ann", "ANN", "ben", " Ben ", "\uff42\uff45\uff4e", "cy", "CY", "dot", "p1", "P2", "p3")
BLANKS = (None, "", " \t")
# Clever ids of objects that are added later. Some of them are also ids of another resource.
NEWCOMERS = {"users": ("n1", "n2", "n3", "c1", "s1"), "sections": ("n1", "p1", "c5")}
MODIFIED = (None, "2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z")

_some_schools = st.lists(st.sampled_from(("s0", *SCHOOLS, "elsewhere")), max_size=3, unique=True)
_school = st.sampled_from(("s0", "s1", "s1", "s2", "s2", "s3", "elsewhere"))
_username = st.sampled_from((*USERNAMES, *USERNAMES, *BLANKS))
_number = st.sampled_from((None, "1", "2", "3"))


def mostly(usual: st.SearchStrategy[Any], rare: st.SearchStrategy[Any], one_in: int = 10) -> st.SearchStrategy[Any]:
    """`usual`, and once in `one_in` times `rare`."""
    return st.integers(0, one_in - 1).flatmap(lambda roll: rare if roll == one_in - 1 else usual)


_missing = st.sampled_from((None, ...))  # `...` is a field that Clever does not send.


def _sent(fields: Record) -> Record:
    return {name: value for name, value in fields.items() if value is not ...}


_name_of_thing = mostly(st.sampled_from(("North", "NORTH ", "South")), st.sampled_from(BLANKS), 5)
_foreign = mostly(st.just(None), st.just("another-district"), 15)


@st.composite
def _school_record(draw: st.DrawFn, clever_id: str) -> Record:
    return {"id": clever_id, "name": draw(_name_of_thing), "district": draw(_foreign), "last_modified": draw(st.sampled_from(MODIFIED))}


@st.composite
def _term_record(draw: st.DrawFn, clever_id: str) -> Record:
    return {
        "id": clever_id,
        "name": draw(st.sampled_from(("Fall", "Spring", None))),
        "start_date": draw(st.sampled_from(("2025-09-01", "2026-01-10T00:00:00.000Z", "someday", None))),
        "end_date": draw(st.sampled_from(("2026-06-01", "2025-12-20", None))),
        "district": draw(_foreign),
    }


@st.composite
def _section_record(draw: st.DrawFn, clever_id: str) -> Record:
    members = st.lists(st.sampled_from(("a0", "a1", *PEOPLE, "ghost")), max_size=5)
    teachers = draw(mostly(members, _missing, 5))
    first = st.sampled_from(("p1", "p2", None)) if teachers in (None, ...) else st.sampled_from(("p1", "p2"))
    record = {
        "id": clever_id,
        "name": draw(_name_of_thing),
        "school": draw(mostly(_school, _missing, 12)),
        "term_id": draw(st.sampled_from((*TERMS, "elsewhere", None))),
        "students": draw(mostly(members, st.one_of(_missing, st.just(["p1", ""]), st.just(5)), 12)),
        "teachers": teachers,
        "teacher": teachers[0] if isinstance(teachers, list) and teachers else draw(first),
        "district": draw(_foreign),
        "last_modified": draw(st.sampled_from(MODIFIED)),
    }
    return _sent(record)


@st.composite
def _user_record(draw: st.DrawFn, clever_id: str) -> Record:
    kind = draw(
        st.sampled_from(
            ("student",) * 6
            + ("teacher",) * 3
            + ("staff", "district_admin", "teacher staff", "teacher district_admin", "student teacher", "student district_admin")
        )
    )
    school, schools = draw(_school), draw(_some_schools)
    credentials = {"credentials": {"district_username": draw(_username)}, "sis_id": draw(_number), "state_id": draw(_number)}
    roles: dict[str, Any] = {}
    if "student" in kind:
        primary = draw(mostly(st.just(school), st.sampled_from((None, "")), 5))
        schools = draw(st.permutations(list(dict.fromkeys([school, *schools])))) if draw(st.booleans()) else schools
        grade = draw(st.sampled_from(("1", "1", "2", "Kindergarten", "", None, "not a grade")))
        at = draw(mostly(st.just((primary, schools)), st.sampled_from(((school, None), (None, None), (..., ...))), 12))
        roles["student"] = _sent({"school": at[0], "schools": at[1], "grade": grade, "student_number": draw(_number), **credentials})
    if "teacher" in kind:
        school, schools = draw(st.one_of(st.just((school, schools)), st.tuples(_school, _some_schools)))  # Some teach elsewhere.
        listed = draw(mostly(st.just(schools), _missing, 12))
        roles["teacher"] = _sent({"school": school if school in schools else None, "schools": listed, **credentials})
    if "staff" in kind:
        listed = draw(mostly(_some_schools, _missing, 12))
        roles["staff"] = _sent({"schools": listed, "credentials": {"district_username": draw(_username)}})
    if "district_admin" in kind:
        roles["district_admin"] = {}
    return {
        "id": clever_id,
        "name": {
            "first": draw(mostly(st.sampled_from(FIRST_NAMES), st.sampled_from(BLANKS), 12)),
            "middle": draw(st.sampled_from((None, "M"))),
            "last": draw(st.sampled_from(LAST_NAMES)),
        },
        "email": draw(st.sampled_from((None, "a@x.example", "not an address"))),
        "roles": roles,
        "district": draw(_foreign),
        "last_modified": draw(st.sampled_from(MODIFIED)),
    }


NO_ID: tuple[Any, ...] = (None, 7, "row", {}, {"data": {}}, {"data": {"id": None, "name": "A"}})
COLLECTIONS = {"students": "student", "teachers": "teacher", "staff": "staff", "district_admins": "district_admin"}


@st.composite
def _odd_element(draw: st.DrawFn) -> tuple[str, Any]:
    """An element that has no id (R4.8), or a person whose roles cannot be read (R4.7)."""
    if draw(st.booleans()):
        return draw(st.sampled_from(("schools", "terms", "courses", "sections", *COLLECTIONS, *COLLECTIONS))), draw(st.sampled_from(NO_ID))
    collection = draw(st.sampled_from(tuple(COLLECTIONS)))
    asked = COLLECTIONS[collection]
    # A district admin has no schools.
    roles = [None, {}, {asked: None}] + [{asked: {"schools": None}}] * (asked != "district_admin")
    person = draw(_user_record(draw(st.sampled_from((*PEOPLE, "p9")))))
    return collection, {"data": {**person, "roles": draw(st.sampled_from(roles))}}


def _anchors() -> tuple[list[Record], list[Record], list[Record]]:
    at = {"school": "s0", "schools": ["s0"]}
    everywhere = {"district": None, "last_modified": None}
    people = [
        ("a0", {"student": {**at, "grade": "1", "credentials": {"district_username": "dot"}}}),
        ("a1", {"teacher": {**at, "credentials": {"district_username": "anchor"}}}),
        ("a2", {"staff": {"schools": ["s0"]}}),
        ("a3", {"district_admin": {}}),
    ]
    return (
        [{"id": "s0", "name": "Anchor", **everywhere}],
        [{"id": "c0", "name": "Anchor", "school": "s0", "students": ["a0"], "teachers": ["a1"], **everywhere}],
        [{"id": each, "name": {"first": "An", "last": "Chor"}, "roles": roles, **everywhere} for each, roles in people],
    )


@dataclass
class CleverSide:
    """The data of one district at Clever. Each slot has the versions of one object: usually one, none if it is removed."""

    slots: dict[tuple[str, str], list[Record]] = field(default_factory=dict)
    vanished: str | None = None
    odd: list[tuple[str, Any]] = field(default_factory=list)

    def change(self, draw: st.DrawFn, calm: int) -> None:
        """Add, remove or change objects: about one in `calm` slots. Seldom a whole collection is empty (R7.3), or something is odd."""
        self.odd = draw(mostly(st.just([]), st.lists(_odd_element(), min_size=1, max_size=2), 4))
        self.vanished = draw(mostly(st.just(None), st.sampled_from(("schools", "sections", *ROLES)), 8))
        makers = [
            ("schools", SCHOOLS, _school_record),
            ("terms", TERMS, _term_record),
            ("sections", SECTIONS, _section_record),
            ("users", PEOPLE, _user_record),
        ]
        for resource, ids, make in makers:
            for clever_id in ids:
                if draw(st.integers(1, calm)) == calm:
                    versions = draw(st.sampled_from((0, 0) + (1,) * 8 + (2,)))
                    self.slots[resource, clever_id] = [draw(make(clever_id)) for _ in range(versions)]
                elif resource == "users" and self.slots.get((resource, clever_id)) and draw(st.integers(0, 5)) == 5:
                    self._small_change(draw, clever_id)

    def welcome(self, draw: st.DrawFn) -> bool:
        """Add one new person or section, which has every value of an existing one, except the Clever id. A person usually has another
        username and sis_id too, so that only the other columns are equal. Returns False if all newcomers exist already.
        """
        resource = draw(st.sampled_from(("users", "users", "users", "sections")))
        new = [each for each in NEWCOMERS[resource] if (resource, each) not in self.slots]
        snapshot = self.snapshot()
        there = {"users": snapshot.users, "sections": snapshot.sections}[resource]
        if not new or not there:
            return False
        clever_id, like = draw(st.sampled_from(new)), draw(st.sampled_from(there))
        if resource == "users":
            username = draw(mostly(st.just(f"{clever_id} new"), _username, 4))
            other = {"credentials": {"district_username": username}, "sis_id": draw(mostly(st.just(f"{clever_id} new"), _number, 4))}
            self.slots[resource, clever_id] = [{**like, "id": clever_id, "roles": _in_roles(like, other)}]
        else:
            members: dict[str, Any] = {} if draw(st.booleans()) else {"students": [], "teachers": [], "teacher": None}
            self.slots[resource, clever_id] = [{**like, "id": clever_id, **members}]
        return True

    def _small_change(self, draw: st.DrawFn, clever_id: str) -> None:
        """A person changes in one way only: a new username, a new Clever id for the same person (R5.3), or a second record (R5.10).

        Under the new id one thing may have changed too; a teacher may have become a school admin.
        """
        record = self.slots["users", clever_id][-1]
        what = draw(st.sampled_from(("username", "new id", "new id", "second record")))
        if what == "username":
            username = {"credentials": {"district_username": draw(_username)}}
            self.slots["users", clever_id] = [{**record, "roles": _in_roles(record, username)}]
            return
        other = draw(st.sampled_from(PEOPLE))
        changes: dict[str, Record] = {
            "nothing": {},
            "names": {"name": {**record["name"], "first": draw(st.sampled_from(FIRST_NAMES))}},
            "username": {"roles": _in_roles(record, {"credentials": {"district_username": draw(_username)}})},
            "sis_id": {"roles": _in_roles(record, {"sis_id": draw(_number)})},
        }
        if "teacher" in record["roles"]:
            teacher = record["roles"]["teacher"]
            admin = {each: teacher[each] for each in ("schools", "credentials") if each in teacher}
            changes["admin"] = {"roles": {**record["roles"], "staff": admin}}
        if what == "new id":
            self.slots["users", clever_id] = []
        self.slots["users", other] = [{**record, "id": other, **changes[draw(st.sampled_from(sorted(changes)))]}]

    def snapshot(self) -> Snapshot:
        """All objects, in the order of their Clever ids."""
        schools, sections, users = _anchors()
        terms: list[Record] = []
        found: Mapping[str, list[Record]] = {"schools": schools, "terms": terms, "sections": sections, "users": users}
        for (resource, _), versions in sorted(self.slots.items()):
            found[resource].extend(versions)
        if self.vanished in ROLES:
            users = [each for each in users if self.vanished not in each["roles"]]
        # If more than half of a collection has a wrong type, its shape has changed, and nothing is synced (R4.2).
        wrong = [each for each in sections if isinstance(each.get("students"), int)]
        sections = [{**each, "students": None} if any(each is one for one in wrong[1:]) else each for each in sections]
        return Snapshot(
            [] if self.vanished == "schools" else schools, [] if self.vanished == "sections" else sections, users, terms, self._odd()
        )

    def _odd(self) -> list[tuple[str, Any]]:
        """The odd elements: no two of a collection without an id, for the same reason."""
        once = {where: element for where, element in self.odd if not _is_of_person(element)}
        return [*once.items(), *(each for each in self.odd if _is_of_person(each[1]))]


def _is_of_person(element: Any) -> bool:
    return isinstance(element, dict) and "roles" in element.get("data", {})


def _in_roles(record: Record, values: Mapping[str, Any]) -> dict[str, Any]:
    """The roles of a person, with other values where a role has such a value."""
    return {name: {**role, **{each: value for each, value in values.items() if each in role}} for name, role in record["roles"].items()}


def shuffled_snapshot(draw: st.DrawFn, snapshot: Snapshot) -> Snapshot:
    """The same snapshot in another order. Versions of one object keep their order, because the later of two equal ones wins (R3.8)."""

    def shuffled(records: Sequence[Record]) -> list[Record]:
        order = draw(st.permutations(range(len(records))))
        mixed = [records[each] for each in order]
        return [_in_turn(mixed, records, position) for position in range(len(mixed))]

    schools, sections, users, terms = (shuffled(each) for each in (snapshot.schools, snapshot.sections, snapshot.users, snapshot.terms))
    return Snapshot(schools, sections, users, terms, snapshot.odd)


def _in_turn(mixed: Sequence[Record], records: Sequence[Record], position: int) -> Record:
    clever_id = mixed[position]["id"]
    turn: int = sum(each["id"] == clever_id for each in mixed[:position])
    versions = [each for each in records if each["id"] == clever_id]
    return versions[turn]
