"""One list of tokens for all districts of a shard, instead of one for each (R3.1).

Belongs here: how long a list is used. Does not belong here: reading it (`clever/tokens.py`), and what it says about connections (R11.7):
each sync compares it with the connections, as if it had read it itself.
"""

import logging
import threading
import time

from roster_pipeline.clever.tokens import TokenListing, list_tokens
from roster_pipeline.errors import RosterError
from roster_pipeline.settings import Settings

log = logging.getLogger(__name__)

# A token that was replaced meanwhile is refused, and that sync lists the tokens again itself. A district that has connected meanwhile is
# not in the shard. So this only limits how old the list of connections can be.
MAX_AGE_S = 600.0


class SharedTokens:
    """The tokens of all connected districts, in memory. Any number of threads may ask."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._listed_at: float | None = None
        self._listing: TokenListing | None = None

    def get(self) -> TokenListing | None:
        """A list that is at most MAX_AGE_S old. None if it could not be read: then each sync reads it itself, and says why it failed."""
        with self._lock:
            now = time.monotonic()
            if self._listed_at is None or now - self._listed_at > MAX_AGE_S:
                self._listed_at, self._listing = now, None
                try:
                    self._listing = list_tokens(self._settings)
                except RosterError as error:
                    log.warning("the tokens of the shard could not be listed: %s", error)
            return self._listing
