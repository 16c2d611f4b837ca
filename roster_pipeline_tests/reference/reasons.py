"""The reasons that the plan records for each person of the snapshot and each row to soft-delete, as codes of `reconcile`.

Belongs here: `decision`, `rule` and `username_rule` of `reconcile.user_matches`, and `reason` of `reconcile.soft_deletes`. Support reads
them (`roster explain`), so a correct roster with a wrong reason is an error. Does not belong here: what is written (`model.py`).
"""

from collections.abc import Collection
from typing import NamedTuple

from roster_pipeline_tests.reference.brakes import leavers
from roster_pipeline_tests.reference.matching import add_those_without_a_name
from roster_pipeline_tests.reference.one_pass import Pass
from roster_pipeline_tests.reference.rows import Id


class Reason(NamedTuple):
    """One row of `reconcile.user_matches`. Only people who are written have a `username_rule`."""

    decision: str
    rule: str
    username_rule: str | None = None


def reasons(done: Pass, free: Pass, withheld: Collection[str]) -> dict[str, Reason]:
    """The decision about each person of the snapshot, by Clever id.

    Args:
        done: a pass that has run, after brakes are applied.
        free: one that has run without brakes.
        withheld: people who were refused their username only because of a hold, by the last sync.
    """
    found = {each: Reason("frozen" if _is_linked(done, each) else "none", "quarantined") for each in done.quarantined_people}
    found |= {each: Reason("frozen", "unreadable") for each in done.unshown_people}
    unnamed = _without_a_name(done)
    for clever_id in done.people:
        reason = Reason("link", "held_school") if clever_id in done.held_school else _when_recognised(done, clever_id)
        if done.held.relinks and reason.decision in ("relink", "relink_deactivated"):
            reason = Reason("held", "relinks")
        elif clever_id in done.candidates and clever_id in unnamed:
            reason = Reason(_held_or_none(done, clever_id), "username_taken")
        elif clever_id in done.candidates and clever_id not in done.with_role:
            reason = Reason(_held_or_none(done, clever_id), "held_role")
        elif clever_id in done.held.beyond:
            reason = Reason("none", "licenses")
        elif clever_id in done.names:
            reason = reason._replace(username_rule=_username_rule(done, free, clever_id))
        found[clever_id] = reason
    # What was said last is still so while nothing is decided about the name.
    return {
        each: reason._replace(username_rule="withheld")
        if each in withheld and reason.username_rule is None and reason.decision in ("frozen", "held")
        else reason
        for each, reason in found.items()
    }


def _username_rule(done: Pass, free: Pass, clever_id: str) -> str:
    rule = done.names[clever_id].rule
    if done.user_ids[clever_id] in done.held.identities:
        return "held"
    is_refused = rule in ("taken", "contested") and clever_id in free.names and free.names[clever_id].rule in ("given", "kept")
    return "withheld" if is_refused else rule


def removed(free: Pass) -> dict[tuple[str, Id], str]:
    """Why each active row is soft-deleted, by (table, id of the row).

    Args:
        free: a pass that has run without brakes: a brake holds the soft delete, and the reason stays the same.
    """
    why = reasons(free, free, ())
    found: dict[tuple[str, Id], str] = {}
    for user_id in leavers(free.before, free.after):
        clever_id = free.before.users[user_id].clever_id
        found["users", user_id] = why[clever_id].rule if clever_id in why else "absent"
    for school_id, school in free.before.schools.items():
        if school.deleted_at is None and free.after.schools[school_id].deleted_at is not None:
            found["schools", school_id] = "outside" if school.clever_id in free.outside_schools else "absent"
    for classroom_id, classroom in free.before.classrooms.items():
        if classroom.deleted_at is None and free.after.classrooms[classroom_id].deleted_at is not None:
            if classroom.clever_id not in free.section_records:
                found["classrooms", classroom_id] = "absent"
            else:
                at = free.section_records[classroom.clever_id].get("school")
                found["classrooms", classroom_id] = "outside" if at in free.outside_schools else "unknown_school"
    return found


def _when_recognised(done: Pass, clever_id: str) -> Reason:
    """Before brakes are applied: why a person is not rostered, or how the person was matched (R5.1-R5.4)."""
    why_not = _why_not(done, clever_id)
    is_linked = _is_linked(done, clever_id)
    if why_not in ("quarantined", "username_taken"):
        return Reason("frozen" if is_linked else "none", why_not)
    user_id = next((each for each, user in done.before.users.items() if user.clever_id == clever_id), None)
    if user_id in done.protected:
        return Reason("protected", why_not or "clever_id")
    if user_id is not None and done.before.users[user_id].barred:
        return Reason("deactivated", why_not or "clever_id")
    if why_not:
        return Reason("none", why_not)
    if is_linked:
        return Reason("link", "clever_id")
    if clever_id in done.duplicates:
        return Reason("none", "duplicate_record")
    if clever_id in done.matches.adopted:
        return Reason("adopt", "username")
    if clever_id in done.matches.waiting:
        return Reason("none", "relink_waits")
    if clever_id in done.matches.relinked:
        return Reason("relink_deactivated" if clever_id in done.barred else "relink", "two_of_three")
    return Reason("create", "new")


def _why_not(done: Pass, clever_id: str) -> str | None:
    """The first reason why a person cannot be rostered; None if the person can."""
    person = done.people[clever_id]
    if clever_id in done.nameless:
        return "username_taken"
    if clever_id in done.waiting:
        return "quarantined"
    if clever_id in done.known or clever_id in done.duplicates:
        return None
    if not done.is_grade_agreed(person):
        return "outside_grade"
    return "outside_school" if person.schools & done.outside_schools else "no_role"


def _without_a_name(done: Pass) -> set[str]:
    """People who could be rostered, but whose Clever id is the username of a user that is left unchanged (R5.5)."""
    return add_those_without_a_name(done.before, {each: done.matches.user_of(each) for each in done.candidates}, set(done.reserved))


def _is_linked(done: Pass, clever_id: str) -> bool:
    return any(user.clever_id == clever_id for user in done.before.users.values())


def _held_or_none(done: Pass, clever_id: str) -> str:
    user_id = done.matches.user_of(clever_id)
    return "held" if user_id is not None and done.before.users[user_id].deleted_at is None else "none"
