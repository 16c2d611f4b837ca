"""A second implementation of one sync of one district: plain Python, person by person, slow and simple.

Belongs here: SPEC 3-9 as a function from the rows of `app` and a snapshot to the rows of `app` and `ops.holds`. It shares no code with the
pipeline, so a mistake stays unnoticed only if both make it. Its parts are `one_pass.py`, `records.py`, `matching.py`, `brakes.py`,
`seats.py`, `reasons.py`, `written.py` and `outcome.py`. Does not belong here: the database, Hypothesis, and how records are pulled
(`driver.py`).
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from roster_pipeline_tests.reference.brakes import LICENSES, NOTHING, Held, acts, decide, graduates, held_by, initial, leavers, tripped, use
from roster_pipeline_tests.reference.one_pass import Pass
from roster_pipeline_tests.reference.outcome import Outcome
from roster_pipeline_tests.reference.reasons import reasons, removed
from roster_pipeline_tests.reference.rows import (
    Hold,
    Identity,
    Record,
    Rules,
    Snapshot,
    State,
)
from roster_pipeline_tests.reference.written import actions

__all__ = ["Hold", "Outcome", "Record", "Rules", "Snapshot", "State", "sync"]


def sync(
    state: State,
    snapshot: Snapshot,
    rules: Rules,
    now: datetime,
    holds: Mapping[Any, Hold] | None = None,
    *,
    is_first: bool = False,
    withheld: frozenset[str] = frozenset(),
) -> Outcome:
    """The district after the sync.

    Args:
        holds: every existing hold, by its number.
        is_first: no sync of the district has been applied yet (R7.6).
        withheld: people who were refused their username only because of a hold, by the last sync.
    """

    def acts_of(done: Pass) -> Mapping[Identity, frozenset[str]]:
        return acts(state, done.after, done.relinks, done.admitted, snapshot, rules, withheld, now, graduating)

    is_first = is_first and not any(user.source == "clever" for user in state.users.values())
    rules = replace(rules, window=None) if is_first else rules
    ordinary, free, deferring = _without_holds(state, snapshot, rules, now)
    graduating = graduates(state, free.after, rules)
    holds = dict(holds or {})
    found = initial(state, free.after, snapshot, rules) if is_first else tripped(state, acts_of(free), rules, now)
    holding, released = decide(found, holds, now, about_licenses=False)
    if is_first and holding:
        # The plan is still recorded: everything that an approval would release, except students beyond the licenses.
        waits = replace(NOTHING, beyond=frozenset(free.beyond)) if rules.over_license_policy == "hold" else NOTHING
        waiting = Pass(state, snapshot, rules, now, waits)
        waiting.run()
        held = Held(users=frozenset(leavers(state, free.after)))
        why = reasons(waiting, free, withheld)
        return Outcome(state, {}, holds, why, removed(free), free.nameless, rules.agreed_schools, frozenset(holding), held)
    held = held_by(state, free.after, holding, free.people, withheld, now, graduating)
    held = replace(held, defers=deferring.defers, deferred=deferring.deferred)

    end = Pass(state, snapshot, rules, now, held)
    end.run()
    if rules.over_license_policy == "hold":
        beyond = frozenset(end.beyond)
        too_many = {LICENSES: frozenset(f"seat {each}" for each in beyond)} if beyond else {}
        licenses, seated = decide(too_many, holds, now, about_licenses=True)
        use(seated, too_many, too_many, holds)
        holding |= licenses
        held = replace(held, beyond=beyond) if licenses else replace(held, let_in=beyond)
        end = Pass(state, snapshot, rules, now, held)
        end.run()
    else:
        decide({}, holds, now, about_licenses=True)
    use(released, found, found if is_first else acts_of(end), holds)
    written = actions(state, end.after, end.taken_over)
    why, agreed = reasons(end, free, withheld), end.agreement_after()
    why_removed = removed(ordinary)
    counted = {"rollover": ("graduated", len(graduating & leavers(state, end.after)))}
    counted["additions_only"] = ("deferred", len(why_removed) + end.deferred)
    in_window = dict([counted[rules.window]]) if rules.window is not None else {}
    return Outcome(end.after, written, holds, why, why_removed, free.nameless, agreed, frozenset(holding), held, in_window)


def _without_holds(state: State, snapshot: Snapshot, rules: Rules, now: datetime) -> tuple[Pass, Pass, Held]:
    """What would end, and the plan that brakes count: the same, but in a window of additions only nothing ends (R14.3)."""
    ordinary = Pass(state, snapshot, rules, now, NOTHING)
    ordinary.run()
    if rules.window != "additions_only":
        return ordinary, ordinary, NOTHING
    deferring = Held(defers=True, deferred=frozenset(leavers(state, ordinary.after)))
    free = Pass(state, snapshot, rules, now, deferring)
    free.run()
    return ordinary, free, deferring
