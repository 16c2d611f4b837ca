"""Who holds the lock that a statement of ours waited for in vain (R11.9).

Belongs here: finding out, right after the server gave up, which sessions were in the way. Does not belong here: how long a session waits
(`session.py`), and the message (`refusals.py`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from sqlalchemy.engine import Engine, ExceptionContext

from roster_pipeline.database.session import LOCK_SECONDS

_ATTRIBUTE = "roster_blockers"
_SHOWN = 3
# A session that was in the way has been in its transaction for as long as we waited. Without the right to see that, it may be one.
_HOLDERS = """
    select activity.pid, coalesce(nullif(activity.application_name, ''), activity.backend_type, 'unknown')
    from pg_catalog.pg_stat_activity as activity
    where activity.datname = current_database()
        and activity.pid <> pg_backend_pid()
        -- Not the one that gave up: it waits for nothing any more, and its transaction has failed.
        and activity.state is distinct from 'idle in transaction (aborted)'
        and coalesce(activity.xact_start, '-infinity') < clock_timestamp() - make_interval(secs => %s)
        and exists (
            select from pg_catalog.pg_locks as lock
            left join pg_catalog.pg_class as relation on lock.relation = relation.oid
            where lock.pid = activity.pid and lock.granted
                and (
                    lock.locktype = 'advisory'
                    or relation.relnamespace = any (array(
                        select oid from pg_catalog.pg_namespace where nspname in ('app', 'staging', 'reconcile', 'ops')
                    ))
                )
        )
    order by activity.xact_start nulls last
"""


class Blocker(NamedTuple):
    """A session that may hold the lock: its server process, and what it calls itself."""

    pid: int
    application: str


def listen_for_blockers(context: ExceptionContext) -> None:
    """Listens to SQLAlchemy's `handle_error`: see `note_blockers`."""
    if context.engine is not None:
        note_blockers(context.original_exception, context.engine)


def note_blockers(error: BaseException, engine: Engine) -> None:
    """Adds to a lock time-out which other sessions may be in the way. Any other error, and a failure to find out, change nothing."""
    if not isinstance(error, psycopg.errors.LockNotAvailable):
        return
    arguments, options = engine.dialect.create_connect_args(engine.url)
    try:
        with psycopg.connect(*arguments, **options, application_name="roster", connect_timeout=LOCK_SECONDS, autocommit=True) as other:
            rows = other.execute(_HOLDERS, (LOCK_SECONDS * 0.9,)).fetchall()
    except psycopg.Error:
        return
    setattr(error, _ATTRIBUTE, tuple(Blocker(int(row[0]), str(row[1])) for row in rows))


def blockers_of(error: psycopg.Error) -> Sequence[Blocker]:
    """Who may have been in the way of the statement that failed with this error; empty if nobody was seen."""
    blockers: Sequence[Any] = getattr(error, _ATTRIBUTE, ())
    return blockers


def blockers_in_words(blockers: Sequence[Blocker]) -> str:
    """A sentence, such as: In the way: process 4711 (psql). Empty if there are none."""
    if not blockers:
        return ""
    shown = ", ".join(f"process {each.pid} ({each.application})" for each in blockers[:_SHOWN])
    more = f" and {len(blockers) - _SHOWN} more" if len(blockers) > _SHOWN else ""
    return f"In the way: {shown}{more}. `select pg_terminate_backend(pid)` ends one."
