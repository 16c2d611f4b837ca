"""The one session that a sync or a dry run works on, and the context that its steps share.

Belongs here: the session's settings, its transaction, what a conflict inside looks like, and what every step has at hand. Does not belong
here: the steps.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from roster_pipeline.database.engine import Database, psycopg_connection, translate_database_errors
from roster_pipeline.database.models import Models
from roster_pipeline.database.runner import ModelRunner, Step
from roster_pipeline.districts.agreement import District
from roster_pipeline.profiles import Profile
from roster_pipeline.settings import Settings


@dataclass(frozen=True)
class SyncContext:
    """What every step of one sync, or of one dry run, has at hand.

    Attributes:
        connection: the sync's session.
        on_step: called after every step, for progress.
        clock: the time, aware UTC.
    """

    connection: Connection
    district: District
    on_step: Callable[[Step], None]
    clock: Callable[[], datetime]


@dataclass(frozen=True)
class PlanningContext(SyncContext):
    """The same inside the transaction that plans and writes.

    Attributes:
        district: with the agreement as it is in this transaction.
        rules: the district's effective profile.
        runner: runs the models. Its parameter `sync_id` is None in a dry run, which writes nothing at all.
        models: the models that are run.
    """

    rules: Profile
    runner: ModelRunner
    models: Models


@contextmanager
def sync_session(database: Database, settings: Settings) -> Iterator[Connection]:
    """A session in autocommit outside its transaction; closed for good afterwards, which drops the lock and everything temporary."""
    with translate_database_errors(), database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql(f"set work_mem = '{settings.roster_work_mem}'")
        connection.exec_driver_sql("set temp_buffers = '64MB'")
        connection.exec_driver_sql("set jit = off")
        # Temporary tables have no order, so that a merge join sorts a million members first: a hash join takes half the time.
        connection.exec_driver_sql("set enable_mergejoin = off")
        connection.exec_driver_sql("set lock_timeout = '60s'")
        try:
            yield connection
        finally:
            connection.invalidate()


@contextmanager
def one_state(connection: Connection, *, rollback: bool = False) -> Iterator[None]:
    """One transaction that sees one state of the database: what the plan was made from is what is written, or the commit fails.

    Args:
        rollback: undo everything at the end (a dry run).

    Raises:
        psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected: somebody else changed a row in the meantime, noticed in a
        statement or at
            commit; trying again on the new state can succeed.
    """
    driver = psycopg_connection(connection)
    driver.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    try:
        with driver.transaction(force_rollback=rollback):
            yield
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise error.orig from None
        raise
