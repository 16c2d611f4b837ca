"""Small random districts, and what happens to them between two syncs.

Belongs here: Hypothesis strategies for what Clever sends and for what support and the application do by hand. Alphabets are tiny, so that
people collide in names, ids and schools all the time. Does not belong here: what is right afterwards (`model.py`).

A few anchors never go away: without one person per role Clever would seem to send an empty collection, which is a brake's business (R7.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.reference.model import Record, Snapshot

SCHOOLS = ("s1", "s2", "s3")
SECTIONS = ("c1", "c2", "c3", "c4")
PEOPLE = ("p1", "p2", "p3", "p4", "p5", "p6", "p7")
FIRST_NAMES = ("Ana", "Ben", " Ana\t", "Zo\u0065\u0301", "Zo\u00e9")
LAST_NAMES = ("Li", "Ng", "Li\nNg")
# Spellings of few names: in case, width and surrounding space; and Clever ids, one's own or another's.
USERNAMES = ("ann", "ANN", "ben", " Ben ", "\uff42\uff45\uff4e", "cy", "CY", "dot", "p1", "P2", "p3")
BLANKS = (None, "", " \t")
MODIFIED = (None, "2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z")

_some_schools = st.lists(st.sampled_from(("s0", *SCHOOLS, "elsewhere")), max_size=3, unique=True)
_school = st.sampled_from(("s0", "s1", "s1", "s2", "s2", "s3", "elsewhere"))
_username = st.sampled_from((*USERNAMES, *USERNAMES, *BLANKS))
_number = st.sampled_from((None, "1", "2", "3"))


def _mostly(usual: st.SearchStrategy[Any], rare: st.SearchStrategy[Any], one_in: int = 10) -> st.SearchStrategy[Any]:
    """`usual`, and once in a while `rare`."""
    return st.integers(0, one_in - 1).flatmap(lambda roll: rare if roll == one_in - 1 else usual)


_name_of_thing = _mostly(st.sampled_from(("North", "NORTH ", "South")), st.sampled_from(BLANKS), 5)
_foreign = _mostly(st.just(None), st.just("another-district"), 15)


@st.composite
def _school_record(draw: st.DrawFn, clever_id: str) -> Record:
    return {"id": clever_id, "name": draw(_name_of_thing), "district": draw(_foreign), "last_modified": draw(st.sampled_from(MODIFIED))}


@st.composite
def _section_record(draw: st.DrawFn, clever_id: str) -> Record:
    members = st.lists(st.sampled_from(("a0", "a1", *PEOPLE, "ghost")), max_size=5)
    teachers = draw(members)
    return {
        "id": clever_id,
        "name": draw(_name_of_thing),
        "school": draw(st.one_of(_school, st.none())),
        "students": draw(members),
        "teachers": teachers,
        "teacher": draw(st.sampled_from(("p1", "p2"))) if not teachers else teachers[0],
        "district": draw(_foreign),
        "last_modified": draw(st.sampled_from(MODIFIED)),
    }


@st.composite
def _user_record(draw: st.DrawFn, clever_id: str) -> Record:
    kind = draw(
        st.sampled_from(("student",) * 6 + ("teacher",) * 3 + ("staff", "district_admin", "teacher staff", "teacher district_admin"))
    )
    school, schools = draw(_school), draw(_some_schools)
    credentials = {"credentials": {"district_username": draw(_username)}, "sis_id": draw(_number), "state_id": draw(_number)}
    roles: dict[str, Any] = {}
    if "student" in kind:
        schools = list(dict.fromkeys([school, *schools]))
        grade = draw(st.sampled_from(("1", "1", "2", "Kindergarten", "", None, "not a grade")))
        roles["student"] = {"school": school, "schools": schools, "grade": grade, "student_number": draw(_number), **credentials}
    if "teacher" in kind:
        roles["teacher"] = {"school": school if school in schools else None, "schools": schools, **credentials}
    if "staff" in kind:
        roles["staff"] = {"schools": draw(_some_schools)}
    if "district_admin" in kind:
        roles["district_admin"] = {}
    return {
        "id": clever_id,
        "name": {
            "first": draw(_mostly(st.sampled_from(FIRST_NAMES), st.sampled_from(BLANKS), 12)),
            "middle": draw(st.sampled_from((None, "M"))),
            "last": draw(st.sampled_from(LAST_NAMES)),
        },
        "email": draw(st.sampled_from((None, "a@x.example", "not an address"))),
        "roles": roles,
        "district": draw(_foreign),
        "last_modified": draw(st.sampled_from(MODIFIED)),
    }


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
    """What Clever has of one district: each slot holds the versions of one object, usually one, none when it is gone."""

    slots: dict[tuple[str, str], list[Record]] = field(default_factory=dict)

    def change(self, draw: st.DrawFn, calm: int) -> None:
        """Some objects come, go or change. About one in `calm` slots is touched."""
        makers = [("schools", SCHOOLS, _school_record), ("sections", SECTIONS, _section_record), ("users", PEOPLE, _user_record)]
        for resource, ids, make in makers:
            for clever_id in ids:
                if draw(st.integers(1, calm)) == calm:
                    versions = draw(st.sampled_from((0, 0) + (1,) * 8 + (2,)))
                    self.slots[resource, clever_id] = [draw(make(clever_id)) for _ in range(versions)]
                elif resource == "users" and self.slots.get((resource, clever_id)) and draw(st.integers(0, 5)) == 5:
                    self._small_change(draw, clever_id)

    def _small_change(self, draw: st.DrawFn, clever_id: str) -> None:
        """A person changes in one way only: a new username, or a new Clever id for the same person (R5.3)."""
        record = self.slots["users", clever_id][-1]
        if draw(st.booleans()):
            roles = {name: {**role, "credentials": {"district_username": draw(_username)}} for name, role in record["roles"].items()}
            self.slots["users", clever_id] = [{**record, "roles": roles}]
        else:
            other = draw(st.sampled_from(PEOPLE))
            self.slots["users", clever_id] = []
            self.slots["users", other] = [{**record, "id": other}]

    def snapshot(self) -> Snapshot:
        """Everything, in order of Clever's ids."""
        schools, sections, users = _anchors()
        found: Mapping[str, list[Record]] = {"schools": schools, "sections": sections, "users": users}
        for (resource, _), versions in sorted(self.slots.items()):
            found[resource].extend(versions)
        return Snapshot(schools, sections, users)


def arrivals(draw: st.DrawFn, snapshot: Snapshot) -> Snapshot:
    """The same snapshot in another order. Versions of one object keep theirs, because of two of one age the later one wins (R3.8)."""

    def shuffled(records: Sequence[Record]) -> list[Record]:
        order = draw(st.permutations(range(len(records))))
        mixed = [records[each] for each in order]
        return [_in_turn(mixed, records, position) for position in range(len(mixed))]

    return Snapshot(shuffled(snapshot.schools), shuffled(snapshot.sections), shuffled(snapshot.users))


def _in_turn(mixed: Sequence[Record], records: Sequence[Record], position: int) -> Record:
    clever_id = mixed[position]["id"]
    turn: int = sum(each["id"] == clever_id for each in mixed[:position])
    versions = [each for each in records if each["id"] == clever_id]
    return versions[turn]


def change_agreement(draw: st.DrawFn, district: LiveDistrict) -> None:
    """The agreement's schools and grades change, and Clever ids are recorded for some schools (R6.4)."""
    names = draw(st.lists(st.sampled_from(("North", "South", "Nowhere")), max_size=2, unique=True))
    district.agree(
        schools=[(name, None) for name in ("anchor", *names)] if draw(st.booleans()) else [],
        grades=draw(st.sampled_from(([], ["1"], ["1", "2"], ["1", "Kindergarten"]))),
    )
    if draw(st.integers(0, 3)) == 0:
        district.execute(
            "update app.agreed_schools set clever_id = :clever_id where district_id = :district and name <> 'anchor'"
            " and name = (select min(name) from app.agreed_schools where district_id = :district and name <> 'anchor')",
            clever_id=draw(st.sampled_from(SCHOOLS)),
        )


# By hand, between two syncs -----------------------------------------------------------------------------------------------------


def _pick(draw: st.DrawFn, district: LiveDistrict, table: str, order: str) -> dict[str, Any]:
    """One row of a table; nulls where there is none."""
    found = district.execute(f"select * from app.{table} where district_id = :district order by {order}")
    return dict(found[draw(st.integers(0, len(found) - 1))]) if found else {}


def edit_by_hand(draw: st.DrawFn, district: LiveDistrict) -> None:
    """Something that support or the application does. What the database refuses did not happen."""
    draw(st.sampled_from(EDITS))(draw, district)


def _new_user(draw: st.DrawFn, district: LiveDistrict) -> None:
    """An account of the time before Clever, for adoption, or one that is protected."""
    school = _pick(draw, district, "schools", "school_id")
    role = draw(st.sampled_from(("student", "student", "student", "teacher", "district_admin", None)))
    district.execute(
        """
        with made as (
            insert into app.users (district_id, username, first_name, last_name, sis_id, protected, do_not_restore, deleted_at)
            select
                :district, :username, 'Ana', 'Li', '1', :protected, :barred,
                case when :deleted or :barred then timestamptz '2025-01-01' end
            where :deleted or :barred or not exists (
                select from app.users
                where district_id = :district and deleted_at is null and username_key = app.normalize_username(:username))
            returning user_id, deleted_at
        )
        insert into app.user_roles (district_id, user_id, role, school_id, source, deleted_at)
        select :district, user_id, :role, case when :role <> 'district_admin' then cast(:school as bigint) end, :source,
            case when :ended then deleted_at end
        from made where cast(:role as text) is not null and (:role = 'district_admin' or cast(:school as bigint) is not null)
        """,
        username=draw(st.sampled_from(USERNAMES)),
        protected=draw(_mostly(st.just(False), st.just(True), 5)),
        barred=draw(_mostly(st.just(False), st.just(True), 8)),
        deleted=draw(st.booleans()),
        ended=draw(st.booleans()),
        role=role,
        source=draw(st.sampled_from(("app", "app", "csv", "clever"))),
        school=school.get("school_id"),
    )


def _change_user(draw: st.DrawFn, district: LiveDistrict) -> None:
    change = draw(
        st.sampled_from(
            (
                "first_name = 'Hand'",
                "email = 'hand@x.example', grade = '12', login_methods = '{password}'",
                "school_id = null, sis_id = '3'",
                "protected = true",
                "protected = true",
                "protected = false",
                "deleted_at = '2025-02-02'",
                "deleted_at = '2025-02-02', do_not_restore = true",
                "do_not_restore = false",
                "do_not_restore = true",
                "source = 'app'",
                "clever_id = null, source = 'app'",
            )
        )
    )
    user = _pick(draw, district, "users", "user_id").get("user_id")
    district.execute(f"update app.users set {change} where user_id = :user", user=user)


def _rename_user(draw: st.DrawFn, district: LiveDistrict) -> None:
    district.execute(
        """
        update app.users as this set username = :username
        where user_id = :user and (deleted_at is not null or not exists (
            select from app.users as other
            where other.district_id = :district and other.deleted_at is null and other.user_id <> this.user_id
                and other.username_key = app.normalize_username(:username)))
        """,
        user=_pick(draw, district, "users", "user_id").get("user_id"),
        username=draw(st.sampled_from(USERNAMES)),
    )


def _bring_back(draw: st.DrawFn, district: LiveDistrict) -> None:
    district.execute(
        """
        update app.users as this set deleted_at = null
        where user_id = :user and deleted_at is not null and not exists (
            select from app.users as other
            where other.district_id = :district and other.deleted_at is null and other.username_key = this.username_key)
        """,
        user=_pick(draw, district, "users", "user_id").get("user_id"),
    )


def _give_role(draw: st.DrawFn, district: LiveDistrict) -> None:
    user, school = _pick(draw, district, "users", "user_id"), _pick(draw, district, "schools", "school_id")
    if user and school:
        district.execute(
            "insert into app.user_roles (user_id, role, school_id, source) values (:user, :role, :school, :source)"
            " on conflict on constraint user_roles_key do update set deleted_at = null, source = excluded.source",
            user=user["user_id"],
            school=school["school_id"],
            role=draw(st.sampled_from(("student", "teacher", "school_admin"))),
            source=draw(st.sampled_from(("app", "csv"))),
        )


def _change_role(draw: st.DrawFn, district: LiveDistrict) -> None:
    role = _pick(draw, district, "user_roles", "user_id, role, school_id")
    change = draw(st.sampled_from(("deleted_at = '2025-03-03'", "deleted_at = null", "source = 'app'", "source = 'clever'")))
    district.execute(
        f"update app.user_roles set {change} where user_id = :user and role = :role and school_id is not distinct from :school",
        user=role.get("user_id"),
        role=role.get("role"),
        school=role.get("school_id"),
    )


def _enroll(draw: st.DrawFn, district: LiveDistrict) -> None:
    classroom, user = _pick(draw, district, "classrooms", "classroom_id"), _pick(draw, district, "users", "user_id")
    if classroom and user:
        district.execute(
            "insert into app.enrollments (classroom_id, user_id, role) values (:classroom, :user, :role)"
            " on conflict (classroom_id, user_id, role) do update set deleted_at = :deleted, source = 'app', is_primary = false",
            classroom=classroom["classroom_id"],
            user=user["user_id"],
            role=draw(st.sampled_from(("student", "teacher"))),
            deleted=draw(st.sampled_from((None, "2025-04-04"))),
        )


def _new_classroom(draw: st.DrawFn, district: LiveDistrict) -> None:
    district.execute(
        "insert into app.classrooms (district_id, school_id, name, protected) values (:district, :school, 'By hand', :protected)",
        school=_pick(draw, district, "schools", "school_id").get("school_id"),
        protected=draw(st.booleans()),
    )


def _new_school(draw: st.DrawFn, district: LiveDistrict) -> None:
    district.execute(
        "insert into app.schools (district_id, name, protected) values (:district, 'North', :protected)", protected=draw(st.booleans())
    )


def _change_place(draw: st.DrawFn, district: LiveDistrict) -> None:
    table, key = draw(st.sampled_from((("schools", "school_id"), ("classrooms", "classroom_id"), ("classrooms", "classroom_id"))))
    change = draw(st.sampled_from(("name = 'By hand'", "protected = not protected", "deleted_at = '2025-05-05'", "deleted_at = null")))
    place = _pick(draw, district, table, key).get(key)
    district.execute(f"update app.{table} set {change} where {key} = :place", place=place)


EDITS = (
    *(_new_user,) * 5,
    *(_change_user,) * 4,
    *(_rename_user,) * 2,
    _bring_back,
    _give_role,
    _change_role,
    *(_enroll,) * 2,
    _new_classroom,
    _new_school,
    *(_change_place,) * 2,
)
