"""The one session that a sync or a dry run works on, and the objects that its steps share.

Belongs here: the session's settings, its transaction, what a conflict in it looks like, and what every step needs. Does not belong here:
the steps.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from roster_pipeline.database.clock import Clock
from roster_pipeline.database.engine import Database, psycopg_connection, translate_database_errors
from roster_pipeline.database.lock import held_lock
from roster_pipeline.database.models import Models
from roster_pipeline.database.runner import ModelRunner, Step
from roster_pipeline.database.session import begin_own_session, own_session, require_own_session
from roster_pipeline.districts.agreement import District
from roster_pipeline.districts.windows import Window
from roster_pipeline.profiles import Profile
from roster_pipeline.settings import Settings
from roster_pipeline.source.digests import SnapshotIndex
from roster_pipeline.sync.landing import Landing


@dataclass(frozen=True)
class SyncContext:
    """What every step of one sync, or of one dry run, needs.

    Attributes:
        connection: the sync's session.
        on_step: called after every step, for progress.
        clock: how this session reads the time.
    """

    connection: Connection
    district: District
    on_step: Callable[[Step], None]
    clock: Clock

    @property
    def district_id(self) -> int:
        """The district's id in the application."""
        return self.district.district_id

    def time(self) -> datetime:
        """The time now, aware UTC."""
        return self.clock(self.connection)


@dataclass(frozen=True)
class PlanningContext(SyncContext):
    """What the steps need inside the transaction that plans and writes.

    Attributes:
        district: with the agreement that this transaction sees.
        rules: the district's effective profile, with the limits of the window that is on.
        window: the window that is on.
        runner: runs the models.
        models: the models to run.
    """

    rules: Profile
    window: Window | None
    runner: ModelRunner
    models: Models

    @property
    def sync_id(self) -> int | None:
        """The sync's id; None in a dry run, which writes nothing at all."""
        sync_id: int | None = self.runner.parameters["sync_id"]
        return sync_id

    @property
    def is_first(self) -> bool:
        """Whether this is the district's first sync (R7.6)."""
        is_first: bool = self.runner.parameters["is_first"]
        return is_first

    @property
    def is_additions_only(self) -> bool:
        """Whether a window defers every loss (R14.3)."""
        is_additions_only: bool = self.runner.parameters["is_additions_only"]
        return is_additions_only

    @property
    def is_rollover(self) -> bool:
        """Whether a rollover window is on (R14.4)."""
        is_rollover: bool = self.runner.parameters["is_rollover"]
        return is_rollover

    @property
    def now(self) -> datetime:
        """The time of everything that this transaction writes, aware UTC."""
        now: datetime = self.runner.parameters["synced_at"]
        return now


@dataclass(frozen=True)
class PullResult:
    """A complete pull.

    Attributes:
        started_at: when the pull began.
        landing: the unseen records.
        moved: whether the district's mark differs between the pull's start and its end (R3.7).
        state: Clever's own word for the district when the pull began, such as `running` or `error`.
        last_sync: the district's last_sync when the pull began, as Clever writes it. Newer data at Clever has a later one.
        mark: the district's mark when the pull began (R17.1).
        index: the seen records. They are not in the landing yet.
        cost: requests, retries, bytes, pages and seen records, for people who watch.
    """

    started_at: datetime
    landing: Landing
    moved: bool
    last_sync: str | None
    mark: str | None
    state: str | None
    index: SnapshotIndex
    cost: dict[str, Any]

    @property
    def counts(self) -> dict[str, Any]:
        """What `ops.syncs.counts` has about the pull."""
        about = {"last_sync": self.last_sync, "mark": self.mark, "clever_state": self.state}
        return {"moved_during_pull": self.moved, **about, "pull": self.cost}


@contextmanager
def sync_session(database: Database, settings: Settings) -> Iterator[Connection]:
    """A session, in autocommit outside the transaction. It is closed at the end, which releases the lock and drops temporary tables."""
    with translate_database_errors(), database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        begin_own_session(connection)
        connection.exec_driver_sql(f"set work_mem = '{settings.roster_work_mem}'")
        connection.exec_driver_sql("set temp_buffers = '64MB'")
        connection.exec_driver_sql("set jit = off")
        # Temporary tables are not sorted, so a merge join would sort a million members first. A hash join takes half the time.
        connection.exec_driver_sql("set enable_mergejoin = off")
        connection.exec_driver_sql("set lock_timeout = '60s'")
        try:
            yield connection
        finally:
            connection.invalidate()


@contextmanager
def one_state(connection: Connection, *, rollback: bool = False) -> Iterator[None]:
    """One transaction that sees one state of the database. If the data of the plan has changed before the commit, the commit fails.

    It runs in the session that `sync_session` opened, and under the district's lock if this session took it. Both are proved before the
    first statement, and again before the commit (R11.9).

    Args:
        rollback: roll back at the end (a dry run).

    Raises:
        psycopg.Error: a statement or the commit failed. If `is_conflict`, a new attempt on the new data can succeed.
    """
    driver = psycopg_connection(connection)
    driver.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    try:
        with driver.transaction(force_rollback=rollback):
            require_own_session(driver, own_session(connection), locks=held_lock(connection))
            yield
            require_own_session(driver, own_session(connection), locks=held_lock(connection))
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise error.orig from None
        raise


def id_sequences(connection: Connection, *, is_dry_run: bool) -> dict[str, str]:
    """The sequences that new ids come from, by parameter. A rollback gives no id back, so a dry run has a sequence of its own: it changes
    nothing, and needs no more rights than to read. Its ids are beyond those of real rows."""
    if not is_dry_run:
        return dict(_SEQUENCES)
    connection.exec_driver_sql(f"create temporary sequence {_DRY_RUN_IDS} minvalue {1 << 62}")
    return dict.fromkeys(_SEQUENCES, f"pg_temp.{_DRY_RUN_IDS}")


_DRY_RUN_IDS = "dry_run_ids"
_SEQUENCES = {
    "school_ids": "app.schools_school_id_seq",
    "classroom_ids": "app.classrooms_classroom_id_seq",
    "user_ids": "app.users_user_id_seq",
}


def is_conflict(error: psycopg.Error) -> bool:
    """Whether somebody else wrote in the meantime (R11.4). A row that the transaction's snapshot does not see, because it was inserted or
    deleted since, shows as a violated constraint of a table in `app`."""
    if isinstance(error, psycopg.errors.SerializationFailure | psycopg.errors.DeadlockDetected):
        return True
    return isinstance(error, _VIOLATIONS) and error.diag.schema_name == "app"


_VIOLATIONS = (psycopg.errors.UniqueViolation, psycopg.errors.ExclusionViolation, psycopg.errors.ForeignKeyViolation)
