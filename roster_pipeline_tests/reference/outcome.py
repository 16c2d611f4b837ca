"""The result of a sync according to the model.

Belongs here: plain data. Does not belong here: computing it (`model.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from roster_pipeline_tests.reference.brakes import NOTHING, Held
from roster_pipeline_tests.reference.reasons import Reason
from roster_pipeline_tests.reference.rows import Agreed, Hold, Id, Identity, State


@dataclass(frozen=True)
class Outcome:
    """The result of a sync.

    Attributes:
        actions: the action of every written row, by (entity, entity id) as in `ops.changes`.
        holds: existing ones by number, new ones by identity.
        reasons: the decision about each person of the snapshot and the reason, by Clever id.
        removed: why each active row would be soft-deleted before brakes are applied, by (table, id of the row).
        nameless: people who are quarantined because their Clever id is the username of another user (R5.5).
        agreed: the schools of the agreement, with the Clever ids that are kept (R6.4).
        holding: the brakes that hold something.
        held: what they hold.
        in_window: `deferred` or `graduated` of `ops.syncs.counts`.
    """

    after: State
    actions: Mapping[tuple[str, str], str]
    holds: Mapping[Any, Hold]
    reasons: Mapping[str, Reason]
    removed: Mapping[tuple[str, Id], str]
    nameless: frozenset[str]
    agreed: Sequence[Agreed] = ()
    holding: frozenset[Identity] = frozenset()
    held: Held = NOTHING
    in_window: Mapping[str, int] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """As in `ops.syncs`."""
        return "held" if self.holding else "successful"
