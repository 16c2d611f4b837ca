"""How Dagster shows a failed sync: what happened and what to do, never a traceback with row data (SPEC 12).

Does not belong here: what can fail, and whether it can be retried (`errors.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from roster_pipeline.errors import RosterError, SyncRunningError, described
from roster_pipeline.sync.admission import FreezeError
from roster_pipeline.sync.ledger import RequestEndedError

# Why there is no sync, though nothing has failed.
NO_SYNC = (RequestEndedError, FreezeError)


@contextmanager
def as_dagster_failures() -> Iterator[None]:
    """Turns every exception of the block into a `Failure`, which Dagster retries only if trying again can help; except NO_SYNC.

    Dagster stores an exception's text in its event log and shows it to everybody. The text of a RosterError is ours. Any other error is a
    bug, and its text may quote a value. So only its class and the lines of its traceback are reported.
    """
    try:
        yield
    except NO_SYNC:
        raise
    except RosterError as error:
        raise _failure(error) from None
    except dg.Failure:
        raise
    except Exception as error:  # noqa: BLE001 - every text but our own has to be kept out of the event log
        raise dg.Failure(described(error), allow_retries=False) from None


def _failure(error: RosterError) -> dg.Failure:
    running = error.running_sync_id if isinstance(error, SyncRunningError) else None
    metadata = {"reason": error.reason, "hint": error.hint, "district": error.district, "path": error.path, "running_sync_id": running}
    return dg.Failure(
        f"{error} The running sync is {running}." if running else str(error),
        metadata={name: value for name, value in metadata.items() if value},
        # The running sync of the district replaces this one, so it is not queued again.
        allow_retries=error.retryable and not isinstance(error, SyncRunningError),
    )
