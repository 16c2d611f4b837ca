"""How a sync ends: its message, the record of a failure, a commit whose answer was lost, and what follows the commit.

Belongs here: everything that says how a sync has ended, or must not change it (R11.4). Does not belong here: writing the end of a sync that
goes well, which is in its own transaction (`run.py`).
"""

import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from roster_pipeline.brake_kinds import loosened
from roster_pipeline.database.clock import Clock
from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.database.tables import APPLIED
from roster_pipeline.districts.agreement import District
from roster_pipeline.errors import RosterError, TransientError
from roster_pipeline.profiles import PROFILES
from roster_pipeline.sync import ledger
from roster_pipeline.sync.brakes import held_kinds
from roster_pipeline.sync.plan import Plan

log = logging.getLogger(__name__)

# After this many written rows of a table, its statistics are wrong, so ANALYZE is run. The autovacuum of PostgreSQL comes minutes later.
ANALYZE_FROM_ROWS = 1_000

NO_CHANGES = "No changes."
_IN_WINDOW = {"deferred": "Deferred until the window is over: {:,} rows.", "graduated": "Graduated: {:,} students."}


def message_of(plan: Plan, district: District) -> str:
    """What a plan did, in a sentence: `ops.syncs.message`."""
    held = held_kinds(plan.holding)
    if plan.writes_nothing:
        why = "is under a new Clever id" if district.is_rekeyed else "would soft-delete existing data"
        return f"Nothing was written: the first sync {why} and waits for approval ({held})."
    done = " ".join([_changes(plan), *in_window(plan.in_window)])
    if not held:
        return done
    return f"Held for approval: {held}. " + (f"Applied: {done}" if plan.rows else "No other changes.")


def brakes_in_words(district: District) -> str:
    """A sentence with a space before it about brakes that are switched off or far above their defaults (R13.2); empty if none is."""
    loose = loosened(district.require_rules(), PROFILES[district.profile or ""])
    return f" Switched off, or far above the default: the brakes {', '.join(loose)}." if loose else ""


def in_window(counts: Mapping[str, Any]) -> list[str]:
    """What a window has deferred, or who graduated in it, as sentences; `counts` as in `ops.syncs`."""
    return [text.format(counts[name]) for name, text in _IN_WINDOW.items() if counts.get(name)]


def _changes(plan: Plan) -> str:
    if not plan.rows:
        return NO_CHANGES
    parts = [
        f"{table}: " + ", ".join(f"{rows:,} {action.replace('_', ' ')}" for action, rows in actions.items())
        for table, actions in plan.changes.items()
    ]
    return "; ".join(parts) + "."


def record_failure(database: Database, sync_id: int, error: BaseException, clock: Clock) -> None:
    """Record the reason on a new session, because the sync's may be broken. If this fails too, the next sync marks the row as crashed.

    A sync whose commit has reached the server stays as it is.
    """
    if isinstance(error, RosterError):
        kind = "worth retrying" if error.retryable else "permanent"
        message = f"{error.reason} ({kind}{': ' + error.path if error.path else ''})"
    else:
        # BaseException: Ctrl-C, SIGTERM or Dagster's interrupt.
        message = f"Internal error: {type(error).__name__}." if isinstance(error, Exception) else "Interrupted."
    try:
        with translate_database_errors(), database.engine.begin() as connection:
            ledger.end(
                connection, sync_id, now=clock(connection), status="failed", counts={}, message=message, hint=getattr(error, "hint", "")
            )
    except RosterError:
        log.warning("sync %s failed, and that could not be written to ops.syncs", sync_id)


def is_applied(database: Database, sync_id: int, district: str) -> bool:
    """Whether a sync was applied whose session was lost at the commit.

    Raises:
        TransientError: the database does not answer, so nobody knows.
    """
    try:
        with translate_database_errors(), database.engine.connect() as connection:
            return ledger.status_of(connection, sync_id) in APPLIED
    except RosterError:
        raise TransientError(
            f"The connection to the database was lost while sync {sync_id} was committed.",
            hint="`roster status` says whether it was applied. Another sync does no harm.",
            district=district,
        ) from None


def analyze(connection: Connection, plan: Plan) -> None:
    """Update the statistics of the tables that the sync has written much of. A table that somebody has locked is skipped: autovacuum
    analyzes it later."""
    for table, actions in plan.changes.items():
        if sum(actions.values()) >= ANALYZE_FROM_ROWS:
            connection.exec_driver_sql(f"analyze (skip_locked) app.{table}")
