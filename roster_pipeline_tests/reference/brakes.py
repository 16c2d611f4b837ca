"""When a brake trips (R7.3, R7.6), what its hold covers (R7.4), and the new status of holds that exist already (R7.5).

Belongs here: the comparison of a district before a sync with the result of that sync if nothing is held. Does not belong here: the sync
itself (`model.py`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from roster_pipeline.contracts import GRADES
from roster_pipeline_tests.reference.records import Person, key
from roster_pipeline_tests.reference.rows import Hold, Id, Identity, Record, Rules, Snapshot, State

PENDING = ("open", "approved", "rejected")
# The collections of users: name, role in Clever, role in the application.
WALKS = (
    ("students", "student", "student"),
    ("teachers", "teacher", "teacher"),
    ("staff", "staff", "school_admin"),
    ("district_admins", "district_admin", "district_admin"),
)
LICENSES: Identity = ("licenses", None, None, None)


@dataclass(frozen=True)
class Held:
    """What a sync may not do.

    Attributes:
        users: left unchanged.
        present: users whose only schools are held, though Clever still shares them: account, roles and classes stay.
        schools: left unchanged, with their classrooms and every role there.
        classrooms: left unchanged, with their members.
        enrollments: roles of which no enrollment ends if person and classroom stay.
        leaving: users and classrooms that do not stay, as (table, id of the row), if nothing is held.
        identities: users who keep their names, username and ways to sign in.
        relinks: no user gets a new Clever id.
        admins: the roles of admins that nobody gets.
        everything: nothing is soft-deleted (`empty_collection`).
        beyond: students beyond the licenses who are not rostered, by Clever id.
        let_in: students beyond the licenses who become licensed by an approval.
        defers: a window keeps every row that would be soft-deleted, but for what a move to another school replaces (R14.3).
        deferred: users who stay only because of that.
    """

    users: frozenset[Id] = frozenset()
    present: frozenset[Id] = frozenset()
    schools: frozenset[Id] = frozenset()
    classrooms: frozenset[Id] = frozenset()
    enrollments: frozenset[str] = frozenset()
    leaving: frozenset[tuple[str, Id]] = frozenset()
    identities: frozenset[Id] = frozenset()
    relinks: bool = False
    admins: frozenset[str] = frozenset()
    everything: bool = False
    beyond: frozenset[str] = frozenset()
    let_in: frozenset[str] = frozenset()
    defers: bool = False
    deferred: frozenset[Id] = frozenset()


NOTHING = Held()


def leavers(before: State, after: State) -> set[Id]:
    """The deactivations: users who would be soft-deleted."""
    return {each for each, user in before.users.items() if user.deleted_at is None and after.users[each].deleted_at is not None}


def deletions(before: State, after: State) -> frozenset[str]:
    """Every soft delete of a school, classroom or user, as an act: by Clever id, or by number if there is none."""
    return frozenset(
        f"delete {entity} {row.clever_id or row_id}"
        for entity in ("schools", "classrooms", "users")
        for row_id, row in getattr(before, entity).items()
        if row.deleted_at is None and getattr(after, entity)[row_id].deleted_at is not None
    )


def ended_rows(before: State, after: State) -> set[tuple[str, Id]]:
    """Users and classrooms that would be soft-deleted, as (table, id of the row)."""
    classrooms = before.classrooms.items()
    ended = {each for each, row in classrooms if row.deleted_at is None and after.classrooms[each].deleted_at is not None}
    return {("users", each) for each in leavers(before, after)} | {("classrooms", each) for each in ended}


def lost_classrooms(before: State, after: State, now: datetime) -> set[Id]:
    """Rostered classrooms with active members that would be soft-deleted."""
    ended = {each for table, each in ended_rows(before, after) if table == "classrooms"}
    return ended & classrooms_in_use(before, now)


def classrooms_in_use(state: State, now: datetime) -> set[Id]:
    """Active rostered classrooms with active members, whose term has not ended."""
    today = now.astimezone(ZoneInfo("America/Los_Angeles")).date()
    with_members = {at for (at, _, _), row in state.enrollments.items() if row.deleted_at is None}
    rostered = {each: row for each, row in state.classrooms.items() if row.source == "clever" and row.deleted_at is None}
    return {each for each, row in rostered.items() if each in with_members and (row.ends_on is None or row.ends_on >= today)}


def lost_enrollments(before: State, after: State) -> set[tuple[Id, Id, str]]:
    """Enrollments that would end though person and classroom stay."""
    leaving = ended_rows(before, after)
    return {
        (at, user_id, role)
        for (at, user_id, role), row in before.enrollments.items()
        if row.deleted_at is None and after.enrollments[at, user_id, role].deleted_at is not None and stays(before, leaving, at, user_id)
    }


def stays(before: State, leaving: Collection[tuple[str, Id]], classroom_id: Id, user_id: Id) -> bool:
    """Whether a person and a classroom are active and stay so."""
    are_active = before.users[user_id].deleted_at is None and before.classrooms[classroom_id].deleted_at is None
    return are_active and not {("users", user_id), ("classrooms", classroom_id)} & set(leaving)


def lost_identities(before: State, after: State, withheld: Collection[str]) -> dict[Id, str]:
    """Linked users who stay under their Clever id, but lose the username, a way to sign in or both names; and which of these.

    Args:
        withheld: people who were refused their username only because of a hold, by Clever id.
    """

    def differ(one: str | None, other: str | None) -> bool:
        return one is not None and other is not None and key(one) != key(other)

    found = {}
    for user_id, old in before.users.items():
        new = after.users[user_id]
        if old.clever_id is None or old.clever_id != new.clever_id or old.deleted_at or new.deleted_at:
            continue
        losses = [
            "username" if old.clever_id not in withheld and differ(old.username, new.username) else "",
            "sign-in" if set(old.login_methods) - set(new.login_methods) else "",
            "name" if differ(old.first_name, new.first_name) and differ(old.last_name, new.last_name) else "",
        ]
        if any(losses):
            found[user_id] = f"change {' '.join(losses)} of {old.clever_id}"
    return found


def graduates(before: State, after: State, rules: Rules) -> frozenset[Id]:
    """R14.4: in a rollover, the students of the highest grade who leave, if at least four of five of them do.

    Args:
        after: the district if nothing is held.
    """
    if rules.window != "rollover":
        return frozenset()
    linked = {each: user for each, user in before.users.items() if user.clever_id is not None and user.deleted_at is None}
    students = {each: user for each, user in linked.items() if any(role == "student" for role, _ in active_roles(before, each))}
    grades = {user.grade for user in students.values()}
    highest = next((grade for grade in reversed(GRADES) if grade in grades and grade not in ("Ungraded", "Other")), None)
    top = {each for each, user in students.items() if highest is not None and user.grade == highest}
    leaving = top & leavers(before, after)
    return frozenset(leaving if len(leaving) >= Fraction(4, 5) * len(top) else ())


def acts(
    before: State,
    after: State,
    relinks: Iterable[str],
    new_admins: Iterable[tuple[str, str]],
    snapshot: Snapshot,
    rules: Rules,
    withheld: Collection[str],
    now: datetime,
    graduating: Collection[Id] = (),
) -> dict[Identity, frozenset[str]]:
    """Everything that a brake counts if the sync goes from `before` to `after`."""
    deleted = deletions(before, after)
    found: dict[Identity, set[str]] = defaultdict(set)
    for user_id in leavers(before, after) - set(graduating):
        for role, school in active_roles(before, user_id):
            act = f"delete users {before.users[user_id].clever_id or user_id}"
            found["district_role", None, role, None].add(act)
            # An adopted user can keep a role at a deleted school: there is nothing to hold there.
            if school is not None and before.schools[school].deleted_at is None:
                found["school_role", school, role, None].add(act)
    found["classrooms", None, None, None] = {f"delete classrooms {each}" for each in lost_classrooms(before, after, now)}
    for at, user_id, role in lost_enrollments(before, after):
        found["enrollments", None, role, None].add(f"end {at} {user_id}")
    found["identities", None, None, None] = set(lost_identities(before, after, withheld).values())
    found["relinks", None, None, None] = set(relinks)
    for clever_id, role in new_admins:
        found["new_admins", None, role, None].add(f"admit {clever_id}")
    # Where nothing is soft-deleted, there is nothing to hold.
    collections = [] if rules.window == "additions_only" else empty_collections(before, snapshot, rules)
    return {each: frozenset(some) for each, some in found.items() if some} | {
        ("empty_collection", None, None, collection): deleted for collection in collections
    }


def tripped(before: State, found: Mapping[Identity, frozenset[str]], rules: Rules, now: datetime) -> dict[Identity, frozenset[str]]:
    """The acts of every brake that trips."""
    return {
        identity: some
        for identity, some in found.items()
        if identity[0] == "empty_collection" or len(some) > limit(before, identity, rules, now)
    }


def initial(before: State, after: State, snapshot: Snapshot, rules: Rules) -> dict[Identity, frozenset[str]]:
    """The brakes of a first sync (R7.6)."""
    deleted = deletions(before, after)
    # A district has at least schools, sections, students and teachers: without one of them, Clever does not show everything yet.
    empty = [each for each in without_records(snapshot, rules) if each in {"schools", "sections", "students", "teachers"}]
    held: list[Identity] = [("empty_collection", None, None, each) for each in empty]
    held += [] if rules.auto_initial else [("initial", None, None, None)]
    return dict.fromkeys(held, deleted) if deleted else {}


def limit(before: State, identity: Identity, rules: Rules, now: datetime) -> Any:
    """The most acts that pass: the larger of the floor and the share of what is active and the brake is about."""
    kind, at, role, _ = identity
    floor, share = rules.limits.get((kind, role), rules.limits[kind, None])
    return max(floor, share * _active(before, kind, at, role, now))


def _active(before: State, kind: str, at: Id | None, role: str | None, now: datetime) -> int:
    if kind == "classrooms":
        return len(classrooms_in_use(before, now))
    if kind == "enrollments":
        rows = before.enrollments.items()
        return sum(held == role and row.source == "clever" and row.deleted_at is None for (_, _, held), row in rows)
    linked = [each for each, user in before.users.items() if user.clever_id is not None and user.deleted_at is None]
    if kind not in ("relinks", "identities"):
        linked = [each for each in linked if any(held == role and at in (None, school) for held, school in active_roles(before, each))]
    return len(linked)


def empty_collections(before: State, snapshot: Snapshot, rules: Rules) -> list[str]:
    """Collections that Clever returns empty, although active rows of them could be soft-deleted."""

    def any_active(rows: Mapping[Id, Any]) -> bool:
        return any(row.clever_id is not None and row.deleted_at is None and not row.protected for row in rows.values())

    def any_active_role(role: str) -> bool:
        rows = [(holder, held) for (holder, held, _), row in before.roles.items() if row.source == "clever" and row.deleted_at is None]
        holders = {holder for holder, held in rows if held == role}
        return any_active({each: before.users[each] for each in holders})

    is_active = {"schools": any_active(before.schools), "sections": any_active(before.classrooms)}
    is_active |= {collection: any_active_role(role) for collection, _, role in WALKS}
    return [each for each in without_records(snapshot, rules) if is_active[each]]


def without_records(snapshot: Snapshot, rules: Rules) -> list[str]:
    """Collections that Clever returns empty."""

    def ours(records: Sequence[Record]) -> list[Record]:
        return [each for each in records if (each.get("district") or rules.clever_id) == rules.clever_id]

    shared = {"schools": ours(snapshot.schools), "sections": ours(snapshot.sections)}
    shared |= {collection: [each for each in ours(snapshot.users) if walked in each["roles"]] for collection, walked, _ in WALKS}
    # An element that cannot be read, or a person whose roles cannot, is not nothing (R4.7, R4.8).
    odd = {where for where, _ in snapshot.odd}
    return [each for each, records in shared.items() if not records and each not in odd]


def active_roles(state: State, user_id: Id) -> set[tuple[str, Id | None]]:
    """Roles and schools of one user."""
    return {(role, school) for (holder, role, school), row in state.roles.items() if holder == user_id and row.deleted_at is None}


def held_by(
    before: State,
    after: State,
    holding: Iterable[Identity],
    people: Mapping[str, Person],
    withheld: Collection[str],
    now: datetime,
    graduating: Collection[Id] = (),
) -> Held:
    """What these holds cover (R7.4).

    Args:
        after: the district if nothing is held.
        people: those that Clever shares, by Clever id.
        withheld: as in `lost_identities`.
    """
    holding = set(holding)
    kinds = {kind for kind, *_ in holding}
    schools = frozenset(school for kind, school, _, _ in holding if kind == "school_role" and school is not None)
    leaving = leavers(before, after)
    users, present = set[Id](), set[Id]()
    for user_id in leaving - set(graduating):
        roles, clever_id = active_roles(before, user_id), before.users[user_id].clever_id
        shared = people.get(clever_id or "")
        at = {school for _, school in roles if school is not None and before.schools[school].deleted_at is None}
        is_listed_there = shared is not None and shared.schools & {before.schools[each].clever_id for each in schools}
        counted = {("district_role", None, role, None) for role, _ in roles} | {
            ("school_role", school, role, None) for role, school in roles
        }
        if counted & holding:
            users.add(user_id)
        elif (at and at <= schools) or is_listed_there:
            (users if shared is None else present).add(user_id)
    everything = "empty_collection" in kinds
    return Held(
        users=frozenset(leaving if everything else users),
        present=frozenset() if everything else frozenset(present),
        schools=schools,
        classrooms=frozenset(lost_classrooms(before, after, now) if "classrooms" in kinds else ()),
        enrollments=frozenset(role for kind, _, role, _ in holding if kind == "enrollments" and role is not None),
        leaving=frozenset(ended_rows(before, after)),
        identities=frozenset(lost_identities(before, after, withheld) if "identities" in kinds else ()),
        relinks="relinks" in kinds,
        admins=frozenset(role for kind, _, role, _ in holding if kind == "new_admins" and role is not None),
        everything=everything,
    )


def decide(
    found: Mapping[Identity, frozenset[str]], holds: dict[Any, Hold], now: datetime, *, about_licenses: bool
) -> tuple[set[Identity], set[Identity]]:
    """The tripped brakes that hold, and those that are approved (R7.5). Updates `holds`; the key of a new hold is its identity."""
    waiting = {
        hold.identity: each for each, hold in holds.items() if hold.status in PENDING and (hold.identity == LICENSES) == about_licenses
    }
    holding, released = set(), set()
    for identity, acts in found.items():
        known = waiting.pop(identity, None)
        hold = holds.get(known)
        if hold is not None and hold.acts == acts and hold.status == "approved" and hold.expires_at and hold.expires_at > now:
            released.add(identity)
            continue
        holding.add(identity)
        if hold is not None and hold.acts == acts and hold.status != "approved":
            continue
        if hold is not None:
            holds[known] = replace(hold, status="superseded" if hold.acts != acts else "expired")
        holds[identity] = Hold(identity, acts)
    for each in waiting.values():
        holds[each] = replace(holds[each], status="superseded")
    return holding, released


def use(
    released: Iterable[Identity], found: Mapping[Identity, frozenset[str]], done: Mapping[Identity, frozenset[str]], holds: dict[Any, Hold]
) -> None:
    """Mark the approvals that have released an act: one that the sync carries out (R7.5). Updates `holds`.

    Args:
        found: the acts of the approved brakes.
        done: the acts that the sync carries out.
    """
    for identity in released:
        if not found[identity] or done.get(identity):
            (used,) = (each for each, hold in holds.items() if hold.identity == identity and hold.status == "approved")
            holds[used] = replace(holds[used], status="used")
