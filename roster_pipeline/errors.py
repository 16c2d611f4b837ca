"""The errors that every layer raises: what went wrong, and whether another attempt can help.

Belongs here: the error classes and their attributes. Does not belong here: retry loops (each edge has its own), and texts that are not
about an error. No message may contain a name, username, e-mail, number or token: ids and counts only (SPEC 12).
"""

import traceback
from typing import ClassVar


class RosterError(Exception):
    """A failure with a clear message for the person who reads it.

    Attributes:
        retryable: whether the same call can succeed later although nobody changes anything.
        exit_status: the exit status of the `roster` command.
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
    """A person has to change something first: credentials, configuration, the data or the code."""


class TransientError(RosterError):
    """A later attempt can succeed without any change (network, rate limit, a server error, a lock conflict)."""

    retryable = True


class UsageError(PermanentError):
    """The command or its arguments are wrong."""

    exit_status = 2


class SyncRunningError(TransientError):
    """Another sync of the same district is running (R11.2).

    Attributes:
        running_sync_id: the sync that has the district's lock; None if that sync has not written its row yet.
    """

    exit_status = 4

    def __init__(self, reason: str, *, running_sync_id: int | None, district: str | None = None) -> None:
        self.running_sync_id = running_sync_id
        super().__init__(reason, hint="Wait until it ends; `roster status` shows it.", district=district)


def described(error: BaseException) -> str:
    """An error in one sentence that may be stored and shown. The reason of a RosterError is ours. Any other error is a defect, and its text
    may quote a value, so that only its class and the lines that it passed are given."""
    if isinstance(error, RosterError):
        return error.reason
    passed = " > ".join(
        f"{frame.name} {frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)
    )
    return f"Internal error: {type(error).__name__} ({passed})."
