"""One sync of one district, from request to end.

Belongs here: the order of things, the lock, the transaction, and the truth about how it ended. Does not belong here: any of the steps themselves.

    lock -> ops.syncs row -> pull -> [ plan -> apply -> ops.syncs end ] -> unlock          [ ] is one transaction

Everything happens on one session. If it dies, the lock, the pages and the transaction die with it.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import psycopg
from sqlalchemy import Connection

from roster_pipeline import contracts
from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.database.engine import Database, psycopg_connection, translate_database_errors
from roster_pipeline.database.lock import district_lock
from roster_pipeline.database.migrate import foreign_keys, known_tables, require_current_schema
from roster_pipeline.database.models import Models, load_models
from roster_pipeline.database.runner import ModelRunner, Step
from roster_pipeline.errors import PermanentError, RosterError, TransientError
from roster_pipeline.profiles import Profile
from roster_pipeline.settings import Settings
from roster_pipeline.sync import ledger
from roster_pipeline.sync.apply import apply_plan
from roster_pipeline.sync.districts import District, UnknownDistrictError, find_district
from roster_pipeline.sync.landing import Landing
from roster_pipeline.sync.plan import Plan, make_plan
from roster_pipeline.sync.pull import PullResult, pull_district

log = logging.getLogger(__name__)

# A row that somebody else changed while the plan was made: plan again on what is there now.
CONFLICT_ATTEMPTS = 3
# Where a sync inserted this much, the planner's idea of the table is wrong until it is told (PostgreSQL's own autovacuum comes minutes later).
ANALYZE_FROM_ROWS = 1_000


@dataclass(frozen=True)
class SyncRequest:
    """Who wants what synced, and why. The texts are stored in `ops.syncs` as given."""

    district: str
    requested_by: str | None = None
    reason: str | None = None
    dagster_run_id: str | None = None


@dataclass
class SyncReport:
    """How a sync ended.

    Attributes:
        status: as in `ops.syncs`.
        counts: as in `ops.syncs.counts`.
        steps: every step in order, with its rows and seconds.
        snapshot: rows of the accepted snapshot, by staging table.
    """

    sync_id: int
    district: District
    status: str
    message: str
    counts: dict[str, Any]
    steps: list[Step] = field(default_factory=list)


class SkippedError(PermanentError):
    """The district is not active, so it is not synced."""


@cache
def project_models() -> Models:
    """The models of `dbt_like_sql/`, checked against the tables that the migrations make. Needs no database."""
    return load_models(known_tables(), foreign_keys(), [*contracts.RESOURCES, "districts", "findings"])


def run_sync(
    database: Database,
    settings: Settings,
    request: SyncRequest,
    *,
    on_step: Callable[[Step], None] = lambda _step: None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> SyncReport:
    """Sync one district now.

    Args:
        on_step: called after every step, for progress.
        clock: the time, aware UTC.

    Raises:
        RosterError: it did not succeed; `ops.syncs` says so, unless the database itself is the trouble or another sync is running (R11.2).
    """
    require_current_schema(database)
    with _session(database, settings) as connection:
        district = _admit(connection, request, clock)
        with district_lock(connection, district.district_id, district.clever_id):
            if crashed := ledger.mark_crashed(connection, district.district_id, now=clock()):
                log.warning("district %s: %d crashed sync(s) marked as failed", district.clever_id, crashed)
            sync_id = ledger.begin(connection, district.district_id, now=clock(), **_who(request))
            try:
                with translate_database_errors():
                    return _sync(connection, settings, district, sync_id, on_step, clock)
            except BaseException as error:
                _record_failure(database, sync_id, error, clock)
                raise


def _sync(
    connection: Connection,
    settings: Settings,
    district: District,
    sync_id: int,
    on_step: Callable[[Step], None],
    clock: Callable[[], datetime],
) -> SyncReport:
    if district.rules is None:
        raise PermanentError("The district has no profile.", hint="Record its agreement with `roster district add`.", district=district.clever_id)
    steps: list[Step] = []

    def note(step: Step) -> None:
        steps.append(step)
        on_step(step)

    snapshot_at = clock()
    ledger.pull_began(connection, sync_id, snapshot_at)
    landing = Landing(psycopg_connection(connection))
    with DistrictPull(settings, district.clever_id, keep_student_email=district.rules.student_email) as pull:
        pulled = pull_district(pull, landing, started_at=snapshot_at, on_step=note)
    for attempt in range(1, CONFLICT_ATTEMPTS + 1):
        before = len(steps)
        try:
            plan, report = _plan_and_apply(connection, settings, district, sync_id, snapshot_at, pulled, landing, note, clock)
        except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
            if attempt == CONFLICT_ATTEMPTS:
                raise
            del steps[before:]
            log.info("district %s, sync %s: rows changed while planning, planning again", district.clever_id, sync_id)
        else:
            break
    report.steps = steps
    _analyze(connection, plan)
    return report


def _plan_and_apply(
    connection: Connection,
    settings: Settings,
    district: District,
    sync_id: int,
    snapshot_at: datetime,
    pulled: PullResult,
    landing: Landing,
    on_step: Callable[[Step], None],
    clock: Callable[[], datetime],
) -> tuple[Plan, SyncReport]:
    models = project_models()
    with _driver_errors(), _transaction(connection):
        _refuse_older(connection, district, snapshot_at)
        runner = ModelRunner(connection, _parameters(district, sync_id, clock()), known_tables())
        plan = make_plan(runner, models, on_step)
        apply_plan(runner, models, on_step)
        counts = {
            **plan.as_counts(),
            "moved_during_pull": pulled.moved,
            "pull": pulled.cost,
            "findings": {f"{resource}.{rule}": rows for (resource, rule, _), rows in sorted(landing.findings.items())},
        }
        message = _message(plan)
        ledger.end(connection, sync_id, now=clock(), status="successful", counts=counts, message=message)
    return plan, SyncReport(sync_id, district, "successful", message, counts)


def _parameters(district: District, sync_id: int, now: datetime) -> dict[str, Any]:
    rules: Profile | None = district.rules
    assert rules is not None  # noqa: S101  (checked when the sync began)
    return {
        "district_id": district.district_id,
        "sync_id": sync_id,
        "synced_at": now,
        "student_multi_school": rules.student_multi_school,
        "student_email": rules.student_email,
        "login_methods": list(rules.login_methods),
    }


def _message(plan: Plan) -> str:
    if not plan.rows:
        return "Nothing had changed."
    parts = [
        f"{table}: " + ", ".join(f"{rows:,} {action.replace('_', ' ')}" for action, rows in actions.items())
        for table, actions in plan.changes.items()
    ]
    return "; ".join(parts) + "."


def _admit(connection: Connection, request: SyncRequest, clock: Callable[[], datetime]) -> District:
    """The district, if it may be synced; else a row that says why not, and the error."""
    try:
        district = find_district(connection, request.district)
    except UnknownDistrictError as error:
        ledger.refused(connection, None, now=clock(), status="failed", message=error.reason, **_who(request))
        raise
    if district.status != "active":
        reason = f"The district is {district.status}; only active districts sync."
        ledger.refused(connection, district.district_id, now=clock(), status="skipped", message=reason, **_who(request))
        hint = "`roster district resume` makes it active." if district.status == "paused" else "`roster district add` records its agreement."
        raise SkippedError(reason, hint=hint, district=district.clever_id)
    return district


def _who(request: SyncRequest) -> dict[str, Any]:
    return {"requested_by": request.requested_by, "reason": request.reason, "dagster_run_id": request.dagster_run_id}


def _refuse_older(connection: Connection, district: District, snapshot_at: datetime) -> None:
    newest = ledger.newest_applied(connection, district.district_id)
    if newest is not None and newest >= snapshot_at:
        raise TransientError(
            "A newer snapshot of the district has been applied already (R11.6).", hint="Check this machine's clock.", district=district.clever_id
        )


def _record_failure(database: Database, sync_id: int, error: BaseException, clock: Callable[[], datetime]) -> None:
    """Write the reason on a session of its own: the sync's may be the one that broke. Where that fails too, the row reads as crashed."""
    if isinstance(error, RosterError):
        kind = "worth retrying" if error.retryable else "permanent"
        message = f"{error.reason} ({kind}{': ' + error.path if error.path else ''})"
    else:
        message = "Interrupted." if isinstance(error, KeyboardInterrupt | SystemExit) else f"Internal error: {type(error).__name__}."
    try:
        with translate_database_errors(), database.engine.begin() as connection:
            ledger.end(connection, sync_id, now=clock(), status="failed", counts={}, message=message)
    except RosterError:
        log.warning("sync %s failed, and that could not be written to ops.syncs", sync_id)


@contextmanager
def _session(database: Database, settings: Settings) -> Iterator[Connection]:
    """The sync's one session, in autocommit outside its transaction; closed for good afterwards, which drops the lock and the landing."""
    with translate_database_errors(), database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql(f"set work_mem = '{settings.roster_work_mem}'")
        connection.exec_driver_sql("set temp_buffers = '64MB'")
        connection.exec_driver_sql("set jit = off")
        connection.exec_driver_sql("set lock_timeout = '60s'")
        try:
            yield connection
        finally:
            connection.invalidate()


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """One transaction that sees one state of the database: what the plan was made from is what is written, or the commit fails."""
    driver = psycopg_connection(connection)
    driver.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with driver.transaction():
        yield


@contextmanager
def _driver_errors() -> Iterator[None]:
    """SQLAlchemy's wrapping undone, so that a conflict is one class wherever it was noticed, in a statement or at commit."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise error.orig from None
        raise


def _analyze(connection: Connection, plan: Plan) -> None:
    for table, actions in plan.changes.items():
        if sum(actions.values()) >= ANALYZE_FROM_ROWS:
            connection.exec_driver_sql(f"analyze app.{table}")
