"""The rows that a sync writes, and the action of each in `ops.changes` (SPEC 2).

Does not belong here: the new values of the rows (`model.py`).
"""

from collections.abc import Iterable
from typing import Any

from roster_pipeline_tests.reference.matching import Matches
from roster_pipeline_tests.reference.rows import Id, State


def actions(before: State, after: State, matches: Matches) -> dict[tuple[str, str], str]:
    """One action per row that differs, by (entity, entity id) as in `ops.changes` (SPEC 2)."""
    found: dict[tuple[str, str], str] = {}
    for entity in ("schools", "classrooms", "users"):
        old, new = getattr(before, entity), getattr(after, entity)
        found |= {(entity, str(each)): _act(old.get(each), row) for each, row in new.items() if row != old.get(each)}
    relinked = [each for each, school in before.schools.items() if after.schools[each].clever_id != school.clever_id]
    found |= {("schools", str(each)): "relink" for each in relinked}
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
