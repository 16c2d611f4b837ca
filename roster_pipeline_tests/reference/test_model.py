"""The pipeline against the naive model: random districts, random edits, several syncs in a row.

Short and the same every time by default; `ROSTER_TEST_EXAMPLES=2000` makes it long and random.
"""

import os
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from roster_pipeline.database.engine import Database
from roster_pipeline_tests.reference import hands
from roster_pipeline_tests.reference.driver import LiveDistrict, state_of, untouched
from roster_pipeline_tests.reference.invariants import Step, a_repeat_writes_nothing, an_answer_is_repeated, check
from roster_pipeline_tests.reference.model import sync
from roster_pipeline_tests.reference.rows import Snapshot
from roster_pipeline_tests.reference.world import CleverSide, arrivals

LONG = os.environ.get("ROSTER_TEST_EXAMPLES")
profile = settings(
    max_examples=int(LONG or 15),
    derandomize=not LONG,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)


@profile
@given(data=st.data())
def test_the_pipeline_agrees_with_the_model(database: Database, data: st.DataObject) -> None:
    """SPEC 3-9: after every sync of a random history the database holds what the model says, and keeps every promise of `invariants.py`."""
    draw: Any = data.draw
    vendor = draw(st.sampled_from(("typing_agent", "twig_science")))
    district = LiveDistrict.sign_up(database, vendor, settings={"auto_initial": draw(st.integers(0, 3)) > 0, "brakes": draw(hands.BRAKES)})
    neighbour = LiveDistrict.sign_up(database)
    clever = CleverSide()
    for night in range(draw(st.integers(2, 6))):
        if not (hands.decide_holds(draw, district) and draw(st.booleans())):  # Otherwise nothing happens but the approval.
            for _ in range(draw(st.integers(0, 3))):
                hands.edit_by_hand(draw, district)
            for change, one_in in hands.CHANGES.items():
                if draw(st.integers(1, one_in)) == one_in:
                    change(draw, district)
            clever.change(draw, calm=4 if night else 1)
        snapshot = clever.snapshot()
        if night == 0:
            neighbour.sync(snapshot)  # The same ids and names next door.
        if draw(st.integers(1, 4)) == 4:
            district.forget()
        with untouched(neighbour):
            if draw(st.booleans()):  # As last time, when nothing has changed at Clever.
                first = sync_and_check(district, snapshot, snapshot)
            else:
                first = sync_and_check(district, snapshot, arrivals(draw, snapshot), page_size=draw(st.sampled_from((1, 3, 100))))
            second = sync_and_check(district, snapshot, snapshot)
            third = sync_and_check(district, snapshot, snapshot)
        a_repeat_writes_nothing(first, second)
        an_answer_is_repeated(second, third)


def sync_and_check(district: LiveDistrict, snapshot: Snapshot, arriving: Snapshot, *, page_size: int = 100) -> Step:
    """Sync what arrives, in whatever order and pages (R5.7); the model takes it as Clever has it."""
    before, holds_before, rules = district.rows(), district.holds(), district.rules()
    report = district.sync(arriving, page_size=page_size)
    outcome = sync(state_of(before), snapshot, rules, district.clock.now, holds_before, is_first=district.is_first)
    holds_after = district.holds()
    new = {each: hold.identity for each, hold in holds_after.items() if each not in holds_before}
    district.hold_acts |= {each: outcome.holds[identity].acts for each, identity in new.items() if identity in outcome.holds}
    district.is_first &= any(kind == "initial" for kind, *_ in outcome.holding)
    step = Step(district, rules, before, district.rows(), district.changes(report.sync_id), report, holds_before, holds_after, outcome)
    check(step)
    return step
