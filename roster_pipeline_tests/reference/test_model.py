"""The pipeline compared with the reference model: random districts, random edits, several syncs in a row.

By default the tests are short and always the same; `ROSTER_TEST_EXAMPLES=2000` makes them long and random.
"""

import os
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from roster_pipeline.database.engine import Database
from roster_pipeline.sync import incremental
from roster_pipeline.sync.admission import FreezeError
from roster_pipeline_tests.reference import hands
from roster_pipeline_tests.reference.driver import LiveDistrict, leaves_unchanged, state_of
from roster_pipeline_tests.reference.invariants import Step, a_repeat_writes_nothing, an_answer_is_repeated, check
from roster_pipeline_tests.reference.model import sync
from roster_pipeline_tests.reference.rows import Record, Snapshot
from roster_pipeline_tests.reference.windows import on_at
from roster_pipeline_tests.reference.world import NEWCOMERS, PEOPLE, CleverSide, shuffled_snapshot
from roster_pipeline_tests.sync.clever import clever, district_admin, school, student, teacher

MEMBERS = ("students", "teachers")
LONG = os.environ.get("ROSTER_TEST_EXAMPLES")
profile = settings(
    max_examples=int(LONG or 15),
    derandomize=not LONG,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)


@profile
@given(data=st.data())
def test_the_pipeline_agrees_with_the_model(database: Database, data: st.DataObject) -> None:
    """SPEC 3-9, R14.1-R14.4: after every sync of a random history the database has the rows of the model, and every invariant is true."""
    live(database, data.draw, one_in=1)


@profile
@given(data=st.data())
def test_so_does_the_incremental_plan(database: Database, data: st.DataObject) -> None:
    """The same with incremental plans for every district, however small; and a full plan would have the same result."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incremental, "FROM_PEOPLE", 0)
        patch.setattr(incremental, "UP_TO_SHARE", 100)
        live(database, data.draw, one_in=4)


def test_reasons_are_compared_too(database: Database) -> None:
    """R5.8, R6.4: people who are not rostered have equal rows, but support reads a different sentence for each reason."""
    district = LiveDistrict.sign_up(database)
    district.agree(grades=["3"], schools=[("S1", None)])
    snapshot = clever(
        school("s2"),
        student("in", "ann"),
        student("unknown", "bea", grade=None),
        student("grade", "cy", grade="4"),
        student("both", "dot", grade="4", at="s2"),
        student("away", "eve", at="s2"),
        student("nowhere", "fay", at="elsewhere"),
        teacher("broken", name=" "),
        district_admin("admin"),
    )
    reasons = sync_and_check(district, snapshot, snapshot).district.reasons()
    assert reasons == {
        "in": ("create", "new", "given"),
        "unknown": ("create", "new", "given"),
        "grade": ("none", "outside_grade", None),
        "both": ("none", "outside_grade", None),
        "away": ("none", "outside_school", None),
        "nowhere": ("none", "no_role", None),
        "broken": ("none", "quarantined", None),
        "admin": ("create", "new", "own_id"),
    }


def live(database: Database, draw: Any, *, one_in: int) -> None:
    """A random history of one district, with another one beside it.

    Args:
        one_in: people change something in about one of so many nights. If it is more than 1, in some nights Clever only has one new object.
    """
    vendor = draw(st.sampled_from(("typing_agent", "twig_science")))
    district = LiveDistrict.sign_up(database, vendor, settings={"auto_initial": draw(st.integers(0, 3)) > 0, "brakes": draw(hands.BRAKES)})
    neighbour = LiveDistrict.sign_up(database)
    clever = CleverSide()
    for night in range(draw(st.integers(2, 6))):
        if not (hands.decide_holds(draw, district) and draw(st.booleans())):  # Otherwise the approval is the only change.
            for _ in range(draw(st.integers(0, 3)) if draw(st.integers(1, one_in)) == one_in else 0):
                hands.edit_by_hand(draw, district)
            for change, rarity in hands.CHANGES.items():
                if draw(st.integers(1, one_in * rarity)) == one_in * rarity:
                    change(draw, district)
            if not (night and one_in > 1 and draw(st.booleans()) and clever.welcome(draw)):
                clever.change(draw, calm=4 + one_in if night else 1)
        snapshot = clever.snapshot()
        district.clock.now += timedelta(days=draw(st.integers(0, 1)))
        if night == 0:
            neighbour.sync(snapshot)  # The same ids and names in another district.
        if draw(st.integers(1, 3 + one_in)) == 1:
            district.forget()
        if (window := on_at(district.windows, district.clock.now + timedelta(minutes=1))) is not None and window.kind == "freeze":
            with leaves_unchanged(neighbour, district), pytest.raises(FreezeError):  # R14.2
                district.sync(snapshot)
            continue
        with leaves_unchanged(neighbour):
            if draw(st.booleans()):  # In the same order as last time.
                first = sync_and_check(district, snapshot, snapshot)
            else:
                first = sync_and_check(district, snapshot, shuffled_snapshot(draw, snapshot), page_size=draw(st.sampled_from((1, 3, 100))))
            second = sync_and_check(district, snapshot, snapshot)
            third = sync_and_check(district, snapshot, snapshot)
        a_repeat_writes_nothing(first, second)
        an_answer_is_repeated(second, third)


def without_erased(district: LiveDistrict, snapshot: Snapshot) -> Snapshot:
    """The snapshot as if Clever did not send the people who were erased, also in the lists of sections (R18.2)."""
    erased = {
        row["clever_id"]
        for row in district.execute(
            "select ids.clever_id from unnest(cast(:ids as text[])) as ids (clever_id) inner join ops.erased as erased"
            " on erased.clever_id_hash = ops.hash_clever_id(erased.salt, ids.clever_id) where erased.district_id = :district",
            ids=sorted({each["id"] for each in snapshot.users} | {*PEOPLE, *NEWCOMERS["users"]}),
        )
    }

    def shortened(section: Record) -> Record:
        lists = {
            name: [each for each in members if each not in erased] for name in MEMBERS if isinstance(members := section.get(name), list)
        }
        if section.get("teachers") is None and section.get("teacher") in erased:
            lists["teachers"] = []
        return {**section, **lists}

    users = [each for each in snapshot.users if each["id"] not in erased]
    return replace(snapshot, users=users, sections=[shortened(each) for each in snapshot.sections])


def sync_and_check(district: LiveDistrict, snapshot: Snapshot, arriving: Snapshot, *, page_size: int = 100) -> Step:
    """Sync `arriving`, which is the snapshot in another order and in pages (R5.7); the model takes the snapshot itself."""
    before, holds_before, rules = district.rows(), district.holds(), district.rules()
    withheld = frozenset(each for each, reason in district.reasons().items() if reason.username_rule == "withheld")
    full = district.plan(arriving, page_size=page_size) if incremental.FROM_PEOPLE == 0 else None
    report = district.sync(arriving, page_size=page_size)
    if full is not None and "touched" in report.counts:
        assert {each: report.counts[each] for each in full.counts} == full.counts
        assert district.kept(full.kept) == full.kept
        assert district.findings() == full.findings
    if report.status != "failed":
        assert Counter(rule for rule, *_ in district.findings()) == Counter(report.counts["audits"])  # R4.3: each count is a list.
    now, is_first = district.clock.now, district.is_first
    outcome = sync(state_of(before), without_erased(district, snapshot), rules, now, holds_before, is_first=is_first, withheld=withheld)
    holds_after = district.holds()
    new = {each: hold.identity for each, hold in holds_after.items() if each not in holds_before}
    district.hold_acts |= {each: outcome.holds[identity].acts for each, identity in new.items() if identity in outcome.holds}
    district.is_first &= report.counts.get("writes_nothing", False)
    step = Step(district, rules, before, district.rows(), district.changes(report.sync_id), report, holds_before, holds_after, outcome)
    check(step)
    return step
