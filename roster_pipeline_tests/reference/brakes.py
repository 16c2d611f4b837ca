"""When a brake trips (R7.3, R7.6), what its hold covers (R7.4), and the new status of holds that exist already (R7.5).

Belongs here: the comparison of a district before a sync with the result of that sync if nothing is held. Does not belong here: the sync
itself (`model.py`).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

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
        schools: left unchanged, with their classrooms and every role there.
        relinks: no user gets a new Clever id.
        admins: nobody becomes a district admin.
        everything: nothing is soft-deleted (`empty_collection`).
        beyond: students beyond the licenses who are not rostered, by Clever id.
        let_in: students beyond the licenses who become licensed by an approval.
    """

    users: frozenset[Id] = frozenset()
    schools: frozenset[Id] = frozenset()
    relinks: bool = False
    admins: bool = False
    everything: bool = False
    beyond: frozenset[str] = frozenset()
    let_in: frozenset[str] = frozenset()


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


def tripped(
    before: State,
    after: State,
    relinked: Iterable[str],
    relinked_schools: Iterable[str],
    new_admins: Iterable[str],
    snapshot: Snapshot,
    rules: Rules,
    *,
    is_first: bool,
) -> dict[Identity, frozenset[str]]:
    """The acts of every brake that trips, if the sync would go from `before` to `after` without brakes."""
    deleted = deletions(before, after)
    if is_first:
        # A district has at least schools, sections, students and teachers: without one of them, Clever does not show everything yet.
        empty = [each for each in without_records(snapshot, rules) if each in {"schools", "sections", "students", "teachers"}]
        held: list[Identity] = [("empty_collection", None, None, each) for each in empty]
        held += [] if rules.auto_initial else [("initial", None, None, None)]
        return dict.fromkeys(held, deleted) if deleted else {}
    acts: dict[Identity, set[str]] = defaultdict(set)
    for user_id in leavers(before, after):
        for role, school in active_roles(before, user_id):
            act = f"delete users {before.users[user_id].clever_id or user_id}"
            acts["district_role", None, role, None].add(act)
            # An adopted user can keep a role at a deleted school: there is nothing to hold there.
            if school is not None and before.schools[school].deleted_at is None:
                acts["school_role", school, role, None].add(act)
    acts["relinks", None, None, None] = {
        *(f"relink users {each}" for each in relinked),
        *(f"relink schools {each}" for each in relinked_schools),
    }
    acts["new_admins", None, "district_admin", None] = {f"admit admin {each}" for each in new_admins}
    found = {identity: frozenset(each) for identity, each in acts.items() if len(each) > limit(before, identity, rules)}
    return found | {("empty_collection", None, None, collection): deleted for collection in empty_collections(before, snapshot, rules)}


def limit(before: State, identity: Identity, rules: Rules) -> Any:
    """The most acts that pass: the larger of the floor and the share of the active users with a Clever id that the brake is about."""
    kind, at, role, _ = identity
    floor, share = rules.limits[kind]
    linked = [each for each, user in before.users.items() if user.clever_id is not None and user.deleted_at is None]
    if kind != "relinks":
        linked = [each for each in linked if any(held == role and at in (None, school) for held, school in active_roles(before, each))]
    return max(floor, share * len(linked))


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


def held_by(before: State, after: State, holding: Iterable[Identity]) -> Held:
    """What these holds cover (R7.4)."""
    users: set[Id] = set()
    holding = set(holding)
    for user_id in leavers(before, after):
        for role, school in active_roles(before, user_id):
            if {("district_role", None, role, None), ("school_role", school, role, None)} & holding:
                users.add(user_id)
    kinds = {kind for kind, *_ in holding}
    everything = "empty_collection" in kinds
    return Held(
        users=frozenset(leavers(before, after) if everything else users),
        schools=frozenset(school for kind, school, _, _ in holding if kind == "school_role" and school is not None),
        relinks="relinks" in kinds,
        admins="new_admins" in kinds,
        everything=everything,
    )


def decide(
    found: Mapping[Identity, frozenset[str]], holds: dict[Any, Hold], now: datetime, *, about_licenses: bool
) -> tuple[set[Identity], set[Identity]]:
    """The tripped brakes that hold, and those that are released (R7.5). Updates `holds`; the key of a new hold is its identity."""
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
    still_held = {act for identity in holding for act in found[identity]}
    for identity in released:
        if not found[identity] or found[identity] - still_held:
            (used,) = (each for each, hold in holds.items() if hold.identity == identity and hold.status == "approved")
            holds[used] = replace(holds[used], status="used")
    return holding, released
