"""How a `roster` command ended, in this process or in one of its own.

Does not belong here: running one (`commands/conftest.py`, `faults/processes.py`).
"""

import json
from typing import Any, NamedTuple


class Ended(NamedTuple):
    """Its exit status (of a killed process, minus the signal's number), and what it printed."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on standard output."""
        loaded = json.loads(self.out)
        assert isinstance(loaded, dict)
        return loaded
