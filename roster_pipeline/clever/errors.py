"""Errors of the Clever client that a caller inside this package has to distinguish.

Does not belong here: errors that nobody catches by name. Raise `PermanentError` or `TransientError` for those.
"""

from roster_pipeline.errors import PermanentError, TransientError


class RefusedError(PermanentError):
    """Clever answered with a final status: another attempt gets the same one.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, reason: str, *, status: int, hint: str = "", district: str | None = None, path: str | None = None) -> None:
        self.status = status
        super().__init__(reason, hint=hint, district=district, path=path)


class DeadlineError(TransientError):
    """The time of the pull (ROSTER_PULL_DEADLINE_S) is over, or would be over before the next attempt."""


class IncompletePullError(TransientError):
    """Clever's links do not lead to the end of a collection, so the pages that were read must not be used (R3.2)."""
