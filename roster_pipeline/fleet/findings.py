"""What a check of `roster health` returns.

Does not belong here: the checks: `health.py` and `surroundings.py` beside this module, and `defs/health.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "warning", "problem"]
_NAMED = 10


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        what: the name of the check. It never changes, so that monitoring can rely on it.
        verdict: one problem makes the overall verdict unhealthy; a warning does not.
        says: the state in one sentence, with ids and counts only.
        do: what to do about it; empty if the verdict is ok.
        numbers: the same facts for programs.
    """

    what: str
    verdict: Verdict
    says: str
    do: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)


def named(ids: Iterable[object]) -> str:
    """The first ten, and how many more there are."""
    listed = [str(each) for each in ids]
    return ", ".join(listed[:_NAMED]) + (f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else "")
