"""What the model says a sync leaves.

Belongs here: plain data. Does not belong here: how it comes about (`model.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from roster_pipeline_tests.reference.brakes import NOTHING, Held
from roster_pipeline_tests.reference.reasons import Reason
from roster_pipeline_tests.reference.rows import Hold, Id, Identity, State


@dataclass(frozen=True)
class Outcome:
    """What a sync leaves.

    Attributes:
        actions: of every written row by (entity, entity id), as in `ops.changes`.
        holds: those that were there by their number, new ones by their identity.
        reasons: what is decided about each person of the snapshot and why, by Clever id.
        removed: why each active row is removed or held back, by (table, row's id). Before any brake.
        nameless: people who are quarantined because their own Clever id is the username of somebody else (R5.5).
        holding: the brakes that hold something.
        held: what they hold.
    """

    after: State
    actions: Mapping[tuple[str, str], str]
    holds: Mapping[Any, Hold]
    reasons: Mapping[str, Reason]
    removed: Mapping[tuple[str, Id], str]
    nameless: frozenset[str]
    holding: frozenset[Identity] = frozenset()
    held: Held = NOTHING

    @property
    def status(self) -> str:
        """As in `ops.syncs`."""
        return "held" if self.holding else "successful"
