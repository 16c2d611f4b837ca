"""Syncing one district in a child process. If it hangs, crashes or needs too much memory, the districts after it still sync (R11.2).

Belongs here: starting the process, its limits, its end, and the row of `ops.syncs` that a killed process leaves. Does not belong here:
the sync (`sync/run.py`), and which district is next and which is tried again (`defs/shards.py`).

The child is forked from a server process that has imported the pipeline and done nothing else. So it starts quickly, and inherits no
connection and no thread. It never outlives the process that started it.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy import Connection

from roster_pipeline.clever.tokens import TokenListing
from roster_pipeline.database.clock import Clock, database_time
from roster_pipeline.database.engine import Database, open_database, translate_database_errors
from roster_pipeline.database.lock import district_lock
from roster_pipeline.database.tables import APPLIED, districts, syncs
from roster_pipeline.districts.agreement import District, find_district
from roster_pipeline.errors import RosterError, SyncRunningError, TransientError, described
from roster_pipeline.settings import Settings
from roster_pipeline.sync import ledger
from roster_pipeline.sync.admission import SkippedError
from roster_pipeline.sync.ledger import RequestEndedError
from roster_pipeline.sync.run import SyncReport, SyncRequest, run_sync
from roster_pipeline.sync.sources import open_clever

log = logging.getLogger(__name__)

# A sync that is asked to stop rolls back and records that in ops.syncs. It may have to wait for the server to answer.
STOP_SECONDS = 20
# The server notices a killed client within 5 s (client_connection_check_interval), also in the middle of a statement.
LOCK_SECONDS = 15
TERMINATED = 143

_POLL_SECONDS = 0.1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Failure:
    """Why there is no report.

    Attributes:
        status: `running`: another sync of the district is running; `skipped`: the district is no longer active, a freeze is on, or the
            request has been answered.
        reason: ids and counts only.
        is_transient: another attempt can succeed without anybody changing anything.
    """

    status: Literal["failed", "running", "skipped"]
    reason: str
    is_transient: bool = False


@dataclass(frozen=True)
class Unreported:
    """A sync that was applied, although its process was stopped or died before it reported (R11.4). As in `ops.syncs`."""

    sync_id: int
    status: str
    message: str


class StoppedError(TransientError):
    """Nobody waits for the outcome of the child any more."""

    def __init__(self) -> None:
        super().__init__("The sync was stopped.", hint="Nothing of it was applied, and the next one is complete.")


Outcome = SyncReport | Failure | Unreported
Work = Callable[[Settings, SyncRequest], Outcome]


def sync_here(settings: Settings, request: SyncRequest, tokens: TokenListing | None = None) -> Outcome:
    """Sync in this process. Errors are returned as a Failure, because not every exception can be sent to another process.

    Args:
        tokens: of all districts, if they have been listed already (R3.1).
    """
    report = None
    try:
        with open_database(settings) as database:
            report = run_sync(database, settings, request, open_source=partial(open_clever, tokens=tokens))
    except SyncRunningError as error:
        return Failure("running", f"{error.reason} It is sync {error.running_sync_id}.", is_transient=True)
    except (SkippedError, RequestEndedError) as error:
        return Failure("skipped", error.reason)
    except Exception as error:  # noqa: BLE001 - its text may quote a value, so it is only described
        if report is None:
            text = str(error) if isinstance(error, RosterError) else described(error)
            return Failure("failed", text, is_transient=isinstance(error, RosterError) and error.retryable)
        log.warning("sync %s is applied. What follows a sync failed: %s", report.sync_id, described(error))
    return report


def sync_in_child(
    database: Database,
    settings: Settings,
    request: SyncRequest,
    *,
    work: Work = sync_here,
    clock: Clock = database_time,
    stop: threading.Event | None = None,
) -> Outcome:
    """Sync one district in a child process, and wait for it as long as the settings allow. Several threads may do this at once.

    Args:
        database: this process's; the child opens its own on the same server.
        stop: when it is set, the child is asked to roll back and to end.
        work: what the child runs; a function that can be imported by its name. Tests pass one that dies or needs too much memory.
        clock: how a session reads the time.

    Returns:
        The sync's report, or why there is none. In all cases the child has ended.

    Raises:
        StoppedError: `stop` was set.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["roster_pipeline.fleet.preload"])
    receiver, sender = context.Pipe(duplex=False)
    # An embedded server runs as long as this process has it open, so the child only needs its URL.
    theirs = settings.model_copy(update={"roster_database_url": SecretStr(database.url.render_as_string(hide_password=False))})
    child = context.Process(target=_child, args=(sender, work, theirs, request), daemon=True)
    child.start()
    sender.close()
    try:
        outcome = _await(child, receiver, settings, stop)
    except BaseException:
        child.terminate()  # This process is interrupted. The child rolls back and records that in ops.syncs.
        raise
    finally:
        _wait_for_exit(child)
        receiver.close()
    if isinstance(outcome, Outcome):
        return outcome
    message = outcome or ledger.CRASHED
    _mark(database, request.district, message, clock)
    return _applied(database, request) or Failure("failed", message, is_transient=outcome is None)


def _await(child: BaseProcess, receiver: Pipe, settings: Settings, stop: threading.Event | None) -> Outcome | str | None:
    """The outcome that the child sent; or why it was killed; or None if it died."""
    deadline = time.monotonic() + settings.roster_district_timeout_s
    while not receiver.poll(_POLL_SECONDS):
        reason = None
        if stop is not None and stop.is_set():
            raise StoppedError
        if time.monotonic() > deadline:
            reason = f"took longer than {settings.roster_district_timeout_s:,.0f} s (ROSTER_DISTRICT_TIMEOUT_S)"
        elif _megabytes(child) > settings.roster_district_memory_mb:
            reason = f"needed more than {settings.roster_district_memory_mb:,} MB of memory (ROSTER_DISTRICT_MEMORY_MB)"
        if reason is not None:
            # Kill it, because a child that is asked to stop would only record that it was interrupted. PostgreSQL rolls back the
            # transaction of a dead client.
            child.kill()
            return f"The sync {reason} and was stopped. Nothing of it was applied."
    try:
        outcome: Outcome = receiver.recv()
    except EOFError:
        return None
    return outcome


def _wait_for_exit(child: BaseProcess) -> None:
    """Returns when the child has ended; it is killed if it takes too long."""
    child.join(STOP_SECONDS)
    if child.is_alive():
        child.kill()
        child.join()


def _megabytes(child: BaseProcess) -> int:
    """The child's resident memory; 0 if the system does not say (the child has ended, or this is not Linux)."""
    try:
        pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * _PAGE_BYTES // 2**20


def _mark(database: Database, reference: str, message: str, clock: Clock) -> None:
    """Mark the sync of a dead process as failed, as soon as its lock is free. A newer sync that has the lock has marked it already."""
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        with translate_database_errors(), database.engine.connect() as opened:
            connection = opened.execution_options(isolation_level="AUTOCOMMIT")
            district = find_district(connection, reference)
            while not _mark_if_free(connection, district, message, clock(connection)) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
    except RosterError as error:
        log.warning("a killed sync is not marked in ops.syncs yet: %s", error)


def _applied(database: Database, request: SyncRequest) -> Unreported | None:
    """The sync of a dead process, if its commit was before its end."""
    query = (
        sa.select(syncs.c.sync_id, syncs.c.status, syncs.c.message)
        .join(districts, districts.c.district_id == syncs.c.district_id)
        .where(districts.c.clever_id == request.district, syncs.c.dagster_run_id == request.origin.dagster_run_id)
        .order_by(syncs.c.sync_id.desc())
        .limit(1)
    )
    try:
        with translate_database_errors(), database.engine.connect() as connection:
            row = connection.execute(query).one_or_none()
    except RosterError as error:
        log.warning("the database does not say yet how the sync of a dead process ended: %s", error)
        return None
    return Unreported(*row) if row is not None and row.status in APPLIED else None


def _mark_if_free(connection: Connection, district: District, message: str, now: datetime) -> bool:
    try:
        with district_lock(connection, district.district_id, district.clever_id):
            ledger.mark_crashed(connection, district.district_id, now=now, message=message)
    except SyncRunningError:
        return False
    return True


def _child(sender: Pipe, work: Work, settings: Settings, request: SyncRequest) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(TERMINATED))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sender.send(work(settings, request))


def _end_with_parent() -> None:
    """Kill this process when its parent dies, because nothing would then enforce its limits or report its outcome.

    PostgreSQL rolls back the open transaction, and the row reads as failed as soon as the lock is free (R11.4).
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
