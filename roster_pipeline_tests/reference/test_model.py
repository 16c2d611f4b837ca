"""The pipeline against the naive model: random districts, random edits, several syncs in a row.

Short and the same every time by default; `ROSTER_TEST_EXAMPLES=2000` makes it long and random.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from roster_pipeline.database.engine import Database
from roster_pipeline_tests.reference import model
from roster_pipeline_tests.reference.driver import ENTITY_ID, LiveDistrict, Rows, differences, state_of, untouched
from roster_pipeline_tests.reference.world import CleverSide, arrivals, change_agreement, edit_by_hand

LONG = os.environ.get("ROSTER_TEST_EXAMPLES")
profile = settings(
    max_examples=int(LONG or 25),
    derandomize=not LONG,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
# Written by every update, and of no meaning to anybody but the database.
BOOKKEEPING = {"xmin", "ctid", "created_at", "updated_at", "username_key"}


@profile
@given(data=st.data())
def test_the_pipeline_agrees_with_the_model(database: Database, data: st.DataObject) -> None:
    """SPEC 3-8: after every sync of a random history the database holds what the model says, and `ops.changes` tells how it came to be."""
    draw: Any = data.draw
    vendor = draw(st.sampled_from(("typing_agent", "twig_science")))
    district, neighbour = LiveDistrict.sign_up(database, vendor), LiveDistrict.sign_up(database, "typing_agent")
    clever = CleverSide()
    calm = 1
    for step in range(draw(st.integers(1, 4))):
        for _ in range(draw(st.integers(0, 4))):
            edit_by_hand(draw, district)
        if draw(st.integers(0, 2)) == 0:
            change_agreement(draw, district)
        clever.change(draw, calm)
        calm = 3
        snapshot = clever.snapshot()
        if step == 0:
            neighbour.sync(snapshot)  # The same ids and names next door.
        sync_and_compare(draw, district, neighbour, snapshot)


def sync_and_compare(draw: Any, district: LiveDistrict, neighbour: LiveDistrict, snapshot: model.Snapshot) -> None:
    before = district.rows()
    rules = district.rules()
    arriving = arrivals(draw, snapshot)
    with untouched(neighbour):
        report = district.sync(arriving, page_size=draw(st.sampled_from((1, 3, 100))))
        with untouched(district):
            again = district.sync(snapshot)
    after = district.rows()
    (now,) = district.execute("select snapshot_at from ops.syncs where sync_id = :sync", sync=report.sync_id)
    expected, actions = model.sync(state_of(before), snapshot, rules, now["snapshot_at"])
    assert differences(expected, state_of(after, before)) == []
    assert district.changes(again.sync_id) == [], "a repeated sync has nothing to tell (R7.2)"
    check_changes(before, after, district.changes(report.sync_id))
    assert numbered_actions(actions, before, after) == {
        (each["entity"], each["entity_id"]): each["action"] for each in district.changes(report.sync_id)
    }


def numbered_actions(actions: Mapping[tuple[str, str], str], before: Rows, after: Rows) -> dict[tuple[str, str], str]:
    """The model's actions with the numbers that the database gave to new rows."""
    numbers = {
        (table, f"new:{row['clever_id']}"): entity_id
        for table in ("schools", "classrooms", "users")
        for entity_id, row in after[table].items()
        if entity_id not in before[table]
    }
    places = {"user_roles": ("users", "", "schools"), "enrollments": ("classrooms", "users", "")}
    found = {}
    for (entity, entity_id), action in actions.items():
        parts = entity_id.replace("new:", "new/").split(":")
        tables = places.get(entity, (entity,))
        found[entity, ":".join(numbers.get((table, part.replace("/", ":")), part) for table, part in zip(tables, parts, strict=True))] = (
            action
        )
    return found


def check_changes(before: Rows, after: Rows, changes: Any) -> None:
    """One change for every written row and none else; its columns lead from the old row to the new one (SPEC 2)."""
    told = [(each["entity"], each["entity_id"]) for each in changes]
    written = [(table, key) for table, rows in after.items() for key, row in rows.items() if row != before[table].get(key)]
    assert sorted(told) == sorted(written)
    assert all(before[table].keys() <= after[table].keys() for table in after), "nothing is physically deleted (R7.1)"
    for change in changes:
        old, new = (_plain(change["entity"], rows[change["entity"]].get(change["entity_id"])) for rows in (before, after))
        if change["action"] != "create" and old:
            assert change["before"] == {key: old[key] for key in change["before"]}
            assert {**old, **change["after"]} == new
        else:  # What a new row's change leaves out has the column's default.
            assert change["before"] is None
            assert change["after"] == {key: new[key] for key in change["after"]}
            assert not any(value for key, value in new.items() if key not in change["after"])


def _plain(table: str, row: Mapping[str, Any] | None) -> dict[str, Any]:
    """A row as JSON has it, without its key and bookkeeping."""
    left_out = {*BOOKKEEPING, "district_id", *ENTITY_ID[table]}
    values = {key: value for key, value in (row or {}).items() if key not in left_out}
    return {key: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value for key, value in values.items()}
