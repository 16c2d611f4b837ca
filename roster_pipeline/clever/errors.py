"""How talking to Clever can fail, beyond permanent and transient: the cases that a caller inside this package tells apart.

Does not belong here: classes nobody catches by name; raise `PermanentError` or `TransientError` for those.
"""

from roster_pipeline.errors import PermanentError, TransientError


class RefusedError(PermanentError):
    """Clever answered with a status that another attempt will not change.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, reason: str, *, status: int, hint: str = "", district: str | None = None, path: str | None = None) -> None:
        self.status = status
        super().__init__(reason, hint=hint, district=district, path=path)


class DeadlineError(TransientError):
    """The pull's whole time (ROSTER_PULL_DEADLINE_S) is used up, or would be before the next attempt may start."""


class IncompletePullError(TransientError):
    """Clever's links do not lead to the end of a collection, so what was read must not be used (R3.2)."""
