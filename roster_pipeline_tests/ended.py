"""How a `roster` command ended, in this process or in another one.

Does not belong here: running a command (`commands/conftest.py`, `faults/processes.py`).
"""

import json
from typing import Any, NamedTuple


class Ended(NamedTuple):
    """The exit status (for a killed process, minus the signal's number), and the output."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on standard output."""
        loaded = json.loads(self.out)
        assert isinstance(loaded, dict)
        return loaded
