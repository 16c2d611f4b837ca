"""What any layer can tell its caller went wrong, and whether trying again can help.

Belongs here: the error classes every layer raises and their attributes. Does not belong here: retry loops (each edge has its own) and
text shown for anything that is not an error. No message may hold a name, username, e-mail, number or token: ids and counts only (SPEC 12).
"""

from typing import ClassVar


class RosterError(Exception):
    """A failure with a clear message for the person who reads it.

    Attributes:
        retryable: whether the same call can succeed later without anybody changing anything.
        exit_status: what the `roster` command exits with.
        reason: what happened, in one sentence.
        hint: what to do about it, in one sentence; empty when there is nothing to do.
        district: the Clever id of the district concerned, when there is one.
        path: the Clever API path concerned, when there is one.
    """

    retryable: ClassVar[bool] = False
    exit_status: ClassVar[int] = 1

    def __init__(self, reason: str, *, hint: str = "", district: str | None = None, path: str | None = None) -> None:
        self.reason = reason
        self.hint = hint
        self.district = district
        self.path = path
        super().__init__(str(self))

    def __str__(self) -> str:
        where = [f"district {self.district}" if self.district else "", self.path or ""]
        place = ", ".join(part for part in where if part)
        text = f"{self.reason} ({place})" if place else self.reason
        return f"{text}\n{self.hint}" if self.hint else text


class PermanentError(RosterError):
    """Somebody has to change something first: credentials, configuration, the data or the code."""


class TransientError(RosterError):
    """Nothing has to change; a later attempt can succeed (network, rate limit, a server error, a lock conflict)."""

    retryable = True


class UsageError(PermanentError):
    """The command or its arguments are wrong."""

    exit_status = 2


class SyncRunningError(TransientError):
    """Another sync of the same district is running (R11.2).

    Attributes:
        running_sync_id: the sync that holds the district's lock, None in the moment before it has written its row.
    """

    exit_status = 4

    def __init__(self, reason: str, *, running_sync_id: int | None, district: str | None = None) -> None:
        self.running_sync_id = running_sync_id
        super().__init__(reason, hint="Wait for it to end; `roster status` shows it.", district=district)
