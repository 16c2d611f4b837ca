"""What is true after every sync: one function per invariant.

Belongs here: invariants that need no model, and the comparison with the model. Does not belong here: making the steps (`driver.py`,
`hands.py`, `world.py`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from roster_pipeline.sync.run import SyncReport
from roster_pipeline_tests.reference.driver import ENTITY_ID, LiveDistrict, Row, Rows, differences, state_of
from roster_pipeline_tests.reference.outcome import Outcome
from roster_pipeline_tests.reference.records import key
from roster_pipeline_tests.reference.rows import Hold, Id, Rules, State

# Columns that every update writes, and that only the database uses.
BOOKKEEPING = {"xmin", "ctid", "created_at", "updated_at", "username_key"}


@dataclass(frozen=True)
class Step:
    """One sync: the district before and after it, what it reported, and what the model says."""

    district: LiveDistrict
    rules: Rules
    before: Rows
    after: Rows
    changes: Iterable[Row]
    report: SyncReport
    holds_before: Mapping[int, Hold]
    holds_after: Mapping[int, Hold]
    outcome: Outcome

    @property
    def old(self) -> State:
        """Before the sync, in the terms of the model."""
        return state_of(self.before)

    @property
    def new(self) -> State:
        """After the sync, with the ids of the database."""
        return state_of(self.after)


def check(step: Step) -> None:
    """Every invariant of one sync."""
    rows_agree_with_the_model(step)
    actions_agree_with_the_model(step)
    reasons_agree_with_the_model(step)
    holds_agree_with_the_model(step)
    agreement_agrees_with_the_model(step)
    changes_lead_from_before_to_after(step)
    nothing_is_physically_deleted(step)
    protected_rows_stay(step)
    held_people_stay(step)
    held_schools_stay(step)
    seats_are_within_the_licenses(step)
    a_window_is_counted(step)
    active_users_are_distinct(step)


def rows_agree_with_the_model(step: Step) -> None:
    """SPEC 3-9: every row of `app`."""
    lines = differences(step.outcome.after, state_of(step.after, step.before))
    assert not lines, "\n".join(lines)


def actions_agree_with_the_model(step: Step) -> None:
    """SPEC 2: one change per written row, with the right action."""
    reported = {(each["entity"], each["entity_id"]): each["action"] for each in step.changes}
    expected = _numbered(step.outcome.actions, step.before, step.after)
    assert reported == expected, _unequal(expected, reported)


def reasons_agree_with_the_model(step: Step) -> None:
    """R5, R6.4: what `roster explain` and the counts say about each person, and about each row that is soft-deleted or held."""
    reasons = step.district.reasons()
    assert reasons == step.outcome.reasons, _unequal(step.outcome.reasons, reasons)
    removed = step.district.removed()
    assert removed == step.outcome.removed, _unequal(step.outcome.removed, removed)
    nameless = {row[1] for row in step.district.quarantine(step.report.sync_id) if row[2] == "clever_id_taken_as_username"}
    assert nameless == step.outcome.nameless


def holds_agree_with_the_model(step: Step) -> None:
    """R7.3, R7.5: the status of every hold, the new holds, and the status of the sync."""
    old = {each: (hold.identity, hold.status) for each, hold in step.holds_after.items() if each in step.holds_before}
    expected = {each: (hold.identity, hold.status) for each, hold in step.outcome.holds.items() if each in step.holds_before}
    assert old == expected, _unequal(expected, old)
    new = Counter((hold.identity, hold.status) for each, hold in step.holds_after.items() if each not in step.holds_before)
    opened = Counter((hold.identity, hold.status) for each, hold in step.outcome.holds.items() if each not in step.holds_before)
    assert new == opened, _unequal(opened, new)
    assert step.report.status == step.outcome.status


def agreement_agrees_with_the_model(step: Step) -> None:
    """R6.4: the Clever ids that are kept."""
    found = {each.name: each.clever_id for each in step.district.rules().agreed_schools}
    assert found == {each.name: each.clever_id for each in step.outcome.agreed}


def changes_lead_from_before_to_after(step: Step) -> None:
    """SPEC 2: every written row has one change and other rows have none. The old row with the columns of the change is the new row."""
    reported = [(each["entity"], each["entity_id"]) for each in step.changes]
    written = [(table, each) for table, rows in step.after.items() for each, row in rows.items() if row != step.before[table].get(each)]
    assert sorted(reported) == sorted(written)
    for change in step.changes:
        old, new = (_plain(change["entity"], rows[change["entity"]].get(change["entity_id"])) for rows in (step.before, step.after))
        if change["action"] != "create" and old:
            assert change["before"] == {key: old[key] for key in change["before"]}
            assert {**old, **change["after"]} == new
        else:  # Columns that the change of a new row does not have are null or false.
            assert change["before"] is None
            assert change["after"] == {key: new[key] for key in change["after"]}
            assert not any(value for key, value in new.items() if key not in change["after"])


def nothing_is_physically_deleted(step: Step) -> None:
    """R7.1."""
    assert all(step.before[table].keys() <= step.after[table].keys() for table in step.after)


def protected_rows_stay(step: Step) -> None:
    """R8.1: no write to a protected row, to the roles of a protected user, or to the enrollments of a protected classroom."""
    for table in ("schools", "classrooms", "users"):
        _stay(step, table, lambda row: row["protected"])
    users, classrooms = (
        {row[f"{each}_id"] for row in step.before[f"{each}s"].values() if row["protected"]} for each in ("user", "classroom")
    )
    _stay(step, "user_roles", lambda row: row["user_id"] in users)
    _stay(step, "enrollments", lambda row: row["classroom_id"] in classrooms)


def held_people_stay(step: Step) -> None:
    """R7.4: no write to a held user, with seat and username, to the roles and to the enrollments."""
    held = step.outcome.held.users
    for table in ("users", "user_roles", "enrollments"):
        _stay(step, table, lambda row: row["user_id"] in held)


def held_schools_stay(step: Step) -> None:
    """R6.1, R7.4: no write to a school with a held brake, to the roles there, and to its active classrooms."""
    held = step.outcome.held.schools
    _stay(step, "schools", lambda row: row["school_id"] in held)
    _stay(step, "user_roles", lambda row: row["school_id"] in held)
    _stay(step, "classrooms", lambda row: row["school_id"] in held and row["deleted_at"] is None)


def seats_are_within_the_licenses(step: Step) -> None:
    """R9.2, under `wait` and `hold`: a licensed student who stays active keeps the seat. If a student gets a seat, other than by an
    approval, the number of licensed students is within the licenses.
    """
    if step.rules.over_license_policy == "warn":
        return
    students = _students(step.new)
    before, after = _licensed(step.old), _licensed(step.new) & students
    # While an empty collection is held, or a window keeps roles, a user that Clever no longer lists as a student keeps the role, but not
    # the seat.
    if not (any(kind == "empty_collection" for kind, *_ in step.outcome.holding) or step.outcome.held.defers):
        assert before & students <= after
    approved = {each for each, user in step.new.users.items() if user.clever_id in step.outcome.held.let_in}
    given = after - before - approved
    # If schools are agreed, a student who is held at another one is out of scope and does not count (R9.1).
    counted = after - approved if not step.rules.agreed_schools else given
    if given and step.rules.licenses is not None:
        assert len(counted) <= step.rules.licenses


def a_window_is_counted(step: Step) -> None:
    """R14.3, R14.4: how many rows a window keeps, and how many graduate. No school, classroom or user ends in one of additions only."""
    assert {each: step.report.counts[each] for each in ("deferred", "graduated") if each in step.report.counts} == step.outcome.in_window
    if "deferred" in step.outcome.in_window:
        assert not [each for each in step.changes if each["action"] == "soft_delete" and each["entity"] != "enrollments"]


def active_users_are_distinct(step: Step) -> None:
    """SPEC 5: one active user per Clever id and per username."""
    active = [user for user in step.new.users.values() if user.deleted_at is None]
    for values in ([user.clever_id for user in active], [key(user.username) for user in active]):
        assert max(Counter(value for value in values if value is not None).values(), default=0) <= 1


def a_repeat_writes_nothing(first: Step, second: Step) -> None:
    """R7.2: no write to `app` and no change, unless new people have raised the limit of a held brake (n of R7.3 is counted again)."""
    if second.outcome.holding == first.outcome.holding:
        assert second.after == second.before
        assert not list(second.changes)


def an_answer_is_repeated(first: Step, second: Step) -> None:
    """If two syncs have one snapshot and the plan of the first was empty, the second makes no plan and reports the same."""
    if first.report.counts.get("window") != second.report.counts.get("window"):
        return
    counts = {name: value for name, value in first.report.counts.items() if name != "touched"}
    was_empty = not list(first.changes) and not counts["held"] and all(each["status"] == "passes" for each in counts["passed"])
    is_pending = any(hold.status in ("open", "approved", "rejected") for hold in first.holds_after.values())
    assert ("settled_since" in second.report.counts) == (was_empty and not is_pending)
    if was_empty and not is_pending:
        of_this_pull = {"pull", "settled_since"}
        assert {**second.report.counts, **dict.fromkeys(of_this_pull)} == {**counts, **dict.fromkeys(of_this_pull)}
        assert second.district.quarantine(second.report.sync_id) == first.district.quarantine(first.report.sync_id)


def _students(state: State) -> set[Id]:
    """Active users with the active role student."""
    holders = {holder for (holder, role, _), row in state.roles.items() if role == "student" and row.deleted_at is None}
    return {each for each in holders if state.users[each].deleted_at is None}


def _licensed(state: State) -> set[Id]:
    """Active users with a seat, also if the role was ended by hand."""
    return {each for each, user in state.users.items() if user.deleted_at is None and user.license_status == "licensed"}


def _unequal(expected: Mapping[Any, Any], actual: Mapping[Any, Any]) -> str:
    """For people who read a failed test."""
    return "\n".join(
        f"{each}: should be {expected.get(each)}, is {actual.get(each)}"
        for each in sorted({*expected, *actual}, key=str)
        if expected.get(each) != actual.get(each)
    )


def _stay(step: Step, table: str, chosen: Any) -> None:
    for each, row in step.before[table].items():
        if chosen(row):
            assert step.after[table][each] == row, f"{table} {each} was written"


def _numbered(actions: Mapping[tuple[str, str], str], before: Rows, after: Rows) -> dict[tuple[str, str], str]:
    """The actions of the model, with the ids that the database gave to new rows."""
    numbers = {
        (table, f"new:{row['clever_id']}"): entity_id
        for table in ("schools", "classrooms", "users")
        for entity_id, row in after[table].items()
        if entity_id not in before[table]
    }
    places = {"user_roles": ("users", "", "schools"), "enrollments": ("classrooms", "users", "")}
    found = {}
    for (entity, entity_id), action in actions.items():
        parts = [part.replace("/", ":") for part in entity_id.replace("new:", "new/").split(":")]
        tables = places.get(entity, (entity,))
        found[entity, ":".join(numbers.get((table, part), part) for table, part in zip(tables, parts, strict=True))] = action
    return found


def _plain(table: str, row: Mapping[str, Any] | None) -> dict[str, Any]:
    """A row as JSON, without its key and the columns of BOOKKEEPING."""
    left_out = {*BOOKKEEPING, "district_id", *ENTITY_ID[table]}
    values = {key: value for key, value in (row or {}).items() if key not in left_out}
    values |= {key: value.astimezone(UTC) for key, value in values.items() if isinstance(value, datetime)}
    return {key: value.isoformat() if isinstance(value, date) else value for key, value in values.items()}
