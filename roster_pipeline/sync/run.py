"""One sync of one district, from request to end.

Belongs here: the order of things, the lock, the transaction, and the truth about how it ended. Does not belong here: any of the steps
themselves.

    lock -> ops.syncs row -> pull -> [ recall  -> plan -> apply -> ops.syncs end ] -> unlock         [ ] is one transaction
                                     [ touched -> plan -> apply -> ops.syncs end ]                   little has changed
                                     [ settled       ------->      ops.syncs end ]                   nothing has changed at either end

Everything happens on one session. If it dies, the lock, the pages and the transaction die with it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import psycopg
from sqlalchemy import Connection

from roster_pipeline import contracts
from roster_pipeline.alerts.causes import alert_plan, scopes_over_licenses
from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.clever.tokens import TokenListing
from roster_pipeline.database.engine import Database, psycopg_connection, translate_database_errors
from roster_pipeline.database.lock import district_lock
from roster_pipeline.database.migrate import foreign_keys, known_tables, require_current_schema
from roster_pipeline.database.models import Models, load_models
from roster_pipeline.database.runner import ModelRunner, Step, timed
from roster_pipeline.districts.agreement import District, UnknownDistrictError, UnusableSettingsError, find_district
from roster_pipeline.errors import PermanentError, RosterError, TransientError
from roster_pipeline.process_memory import give_back_large_blocks
from roster_pipeline.settings import Settings
from roster_pipeline.source.digests import Memory
from roster_pipeline.sync import ledger
from roster_pipeline.sync.apply import accept_district, apply_plan, record_plan
from roster_pipeline.sync.connections import reconcile_connections
from roster_pipeline.sync.incremental import plan_touched
from roster_pipeline.sync.landing import Landing
from roster_pipeline.sync.ledger import Origin
from roster_pipeline.sync.plan import DECIDED, Plan, make_plan, take_in
from roster_pipeline.sync.preview import PlanReport, describe_plan
from roster_pipeline.sync.pull import PullResult, pull_district
from roster_pipeline.sync.recall import memory_of, recall
from roster_pipeline.sync.session import one_state, sync_session
from roster_pipeline.sync.unchanged import find_settled, repeat, settle, state_after, state_of, unsettle

log = logging.getLogger(__name__)

# A row that somebody else changed while the plan was made: plan again on what is there now.
CONFLICT_ATTEMPTS = 3
# Where a sync inserted this much, the planner's idea of the table is wrong until it is told (PostgreSQL's own autovacuum comes minutes
# later).
ANALYZE_FROM_ROWS = 1_000

_NOTHING_CHANGED = "Nothing had changed."


@dataclass(frozen=True)
class SyncRequest:
    """What to sync, and where that comes from. Its texts are stored in `ops.syncs` as given.

    Attributes:
        district: its Clever id, or its id in the application.
    """

    district: str
    origin: Origin = field(default_factory=Origin)


@dataclass
class SyncReport:
    """How a sync ended.

    Attributes:
        status: as in `ops.syncs`.
        counts: as in `ops.syncs.counts`.
        steps: every step in order, with its rows, seconds and memory.
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
    return load_models(known_tables(), foreign_keys(), [*contracts.RESOURCES, "districts", "findings"], DECIDED)


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
    with sync_session(database, settings) as connection:
        district = _admit(connection, request, clock)
        with district_lock(connection, district.district_id, district.clever_id):
            if crashed := ledger.mark_crashed(connection, district.district_id, now=clock()):
                log.warning("district %s: %d crashed sync(s) marked as failed", district.clever_id, crashed)
            sync_id = ledger.begin(connection, district.district_id, request.origin, now=clock())
            try:
                with translate_database_errors():
                    return _sync(connection, settings, district, sync_id, request.origin, on_step, clock)
            except BaseException as error:
                _record_failure(database, sync_id, error, clock)
                raise


def _sync(
    connection: Connection,
    settings: Settings,
    district: District,
    sync_id: int,
    origin: Origin,
    on_step: Callable[[Step], None],
    clock: Callable[[], datetime],
) -> SyncReport:
    steps: list[Step] = []

    def note(step: Step) -> None:
        steps.append(step)
        on_step(step)

    snapshot_at = clock()
    ledger.pull_began(connection, sync_id, snapshot_at)
    landing = Landing(psycopg_connection(connection))

    def take_listing(listing: TokenListing) -> None:
        reconcile_connections(connection, listing, began_at=listing.began_at, now=clock())

    pulled = pull_into(connection, landing, settings, district, snapshot_at, note, take_listing)
    for attempt in range(1, CONFLICT_ATTEMPTS + 1):
        before = len(steps)
        try:
            plan, report = _plan_and_apply(connection, district, sync_id, origin, snapshot_at, pulled, landing, note, clock)
        except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
            if attempt == CONFLICT_ATTEMPTS:
                raise
            del steps[before:]
            log.info("district %s, sync %s: rows changed while planning, planning again", district.clever_id, sync_id)
        else:
            break
    report.steps = steps
    # A part is too little to change what the planner knows of the whole.
    if plan is not None and "touched" not in report.counts:
        _analyze(connection, plan)
    return report


def plan_sync(
    database: Database,
    settings: Settings,
    reference: str,
    *,
    on_step: Callable[[Step], None] = lambda _step: None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> PlanReport:
    """Exactly what a sync would do now, written nowhere: the same pull and the same models, in a transaction that is rolled back.

    Raises:
        RosterError: Clever or the database could not be read, or the district is unknown or has no agreement yet.
    """
    require_current_schema(database)
    with sync_session(database, settings) as connection:
        district = find_district(connection, reference)
        snapshot_at = clock()
        landing = Landing(psycopg_connection(connection))
        pulled = pull_into(connection, landing, settings, district, snapshot_at, on_step)
        with one_state(connection, rollback=True):
            _refuse_older(connection, district, snapshot_at)
            runner = ModelRunner(connection, _parameters(connection, district, None, snapshot_at), known_tables())
            plan = _plan_all(runner, project_models(), district, landing, pulled.memory, on_step)
            return describe_plan(runner, district, plan)


def pull_into(
    connection: Connection,
    landing: Landing,
    settings: Settings,
    district: District,
    snapshot_at: datetime,
    on_step: Callable[[Step], None],
    on_listing: Callable[[TokenListing], None] = lambda _listing: None,
) -> PullResult:
    """Pull what is new of one district into a landing, or raise.

    Args:
        on_listing: called with every full listing of tokens that the pull makes, sometimes twice, in the caller's thread (R11.7); also
            where the pull fails, because the listing may say why: the district's token is gone.
    """
    give_back_large_blocks()
    keep_student_email = district.require_rules().student_email
    memory = memory_of(connection, district, keep_student_email=keep_student_email)
    pull = DistrictPull(settings, district.clever_id, keep_student_email=keep_student_email, memory=memory)

    def take_listing() -> None:
        if isinstance(pull.tokens, TokenListing):
            on_listing(pull.tokens)

    try:
        with pull:
            take_listing()
            pulled = pull_district(pull, landing, started_at=snapshot_at, on_step=on_step)
    except RosterError:
        take_listing()
        raise
    take_listing()
    return pulled


def _plan_and_apply(
    connection: Connection,
    district: District,
    sync_id: int,
    origin: Origin,
    snapshot_at: datetime,
    pulled: PullResult,
    landing: Landing,
    on_step: Callable[[Step], None],
    clock: Callable[[], datetime],
) -> tuple[Plan | None, SyncReport]:
    """The plan is None where none had to be made."""
    models = project_models()
    with one_state(connection):
        # The agreement may have changed during the pull. What settles a district is a plan by the rules that are there now.
        district = find_district(connection, district.clever_id)
        _refuse_older(connection, district, snapshot_at)
        now = clock()
        runner = ModelRunner(connection, _parameters(connection, district, sync_id, now), known_tables())
        previous, were_over = ledger.last_applied(connection, district.district_id), scopes_over_licenses(connection, district.district_id)
        pull_counts = {"moved_during_pull": pulled.moved, "last_sync": pulled.last_sync, "pull": pulled.cost}
        settled = timed("settled", on_step, lambda: find_settled(connection, district.district_id))
        plan = None
        if settled is not None and settled.answers(pulled.memory.fingerprint):
            status, message = "successful", _NOTHING_CHANGED
            accept_district(runner, models, on_step)
            repeat(connection, district.district_id, settled, sync_id)
            found = {name: value for name, value in settled.counts.items() if name != "touched"}
            counts = {**found, **pull_counts, "settled_since": settled.since_sync_id}
        else:
            touched = None
            if settled is not None:
                touched = plan_touched(runner, models, district.require_rules(), district, landing, pulled.memory, settled, on_step)
            if touched is None:
                plan = _plan_all(runner, models, district, landing, pulled.memory, on_step)
            else:
                plan, runner, models = touched.plan, touched.runner, touched.models
            status, message = "held" if plan.holding else "successful", _message(plan)
            record_plan(runner, models, on_step)
            unsettle(connection, district.district_id)
            if not (plan.decisions or runner.parameters["is_first"]):
                before = settled.state if settled else state_of(connection, district.district_id)
                state = state_after(connection, district.district_id, before, plan.changes)
                since = touched.counts["since"] if touched else sync_id
                settle(connection, district.district_id, pulled.memory.fingerprint, state, sync_id, since)
            if not plan.writes_nothing:
                apply_plan(runner, models, on_step)
            findings = {f"{resource}.{rule}": rows for (resource, rule, _), rows in sorted(landing.findings.items())}
            counts = {**plan.as_counts(), **pull_counts, "findings": findings, **({"touched": touched.counts} if touched else {})}
        alert_plan(
            connection,
            models,
            district_id=district.district_id,
            sync_id=sync_id,
            counts=counts,
            previous=previous,
            were_over=were_over,
            is_urgent=origin.is_urgent,
            now=now,
        )
        ledger.end(connection, sync_id, now=clock(), status=status, counts=counts, message=message)
    return plan, SyncReport(sync_id, district, status, message, counts)


def _plan_all(
    runner: ModelRunner, models: Models, district: District, landing: Landing, memory: Memory, on_step: Callable[[Step], None]
) -> Plan:
    timed("recall", on_step, lambda: recall(runner.connection, landing, memory, district))
    take_in(runner, models, on_step)
    return make_plan(runner, models, district.require_rules(), on_step)


def _parameters(connection: Connection, district: District, sync_id: int | None, now: datetime) -> dict[str, Any]:
    rules = district.require_rules()
    return {
        "district_id": district.district_id,
        "sync_id": sync_id,
        "synced_at": now,
        "student_multi_school": rules.student_multi_school,
        "student_email": rules.student_email,
        "login_methods": list(rules.login_methods),
        "is_first": not ledger.has_accepted_snapshot(connection, district.district_id),
    }


def _message(plan: Plan) -> str:
    held = ", ".join(sorted({each.brake.kind for each in plan.holding}))
    if plan.writes_nothing:
        return "Nothing was written: the first sync would soft-delete existing data and waits for approval (initial)."
    done = _changes(plan)
    if not held:
        return done
    return f"Held for approval: {held}. " + (f"Applied: {done}" if plan.rows else "Nothing else had changed.")


def _changes(plan: Plan) -> str:
    if not plan.rows:
        return _NOTHING_CHANGED
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
        ledger.refused(connection, None, request.origin, now=clock(), status="failed", message=error.reason)
        raise
    except UnusableSettingsError as error:
        ledger.refused(connection, error.district_id, request.origin, now=clock(), status="failed", message=error.reason)
        raise
    if district.status != "active":
        reason = f"The district is {district.status}; only active districts sync."
        ledger.refused(connection, district.district_id, request.origin, now=clock(), status="skipped", message=reason)
        hint = (
            "`roster district resume` makes it active." if district.status == "paused" else "`roster district add` records its agreement."
        )
        raise SkippedError(reason, hint=hint, district=district.clever_id)
    return district


def _refuse_older(connection: Connection, district: District, snapshot_at: datetime) -> None:
    newest = ledger.newest_applied(connection, district.district_id)
    if newest is not None and newest >= snapshot_at:
        raise TransientError(
            "A newer snapshot of the district has been applied already (R11.6).",
            hint="Check this machine's clock.",
            district=district.clever_id,
        )


def _record_failure(database: Database, sync_id: int, error: BaseException, clock: Callable[[], datetime]) -> None:
    """Write the reason on a session of its own: the sync's may be the one that broke. Where that fails too, the row reads as crashed."""
    if isinstance(error, RosterError):
        kind = "worth retrying" if error.retryable else "permanent"
        message = f"{error.reason} ({kind}{': ' + error.path if error.path else ''})"
    else:
        # What is no Exception is somebody's wish that this ends: Ctrl-C, SIGTERM, Dagster's own interrupt.
        message = f"Internal error: {type(error).__name__}." if isinstance(error, Exception) else "Interrupted."
    try:
        with translate_database_errors(), database.engine.begin() as connection:
            ledger.end(connection, sync_id, now=clock(), status="failed", counts={}, message=message)
    except RosterError:
        log.warning("sync %s failed, and that could not be written to ops.syncs", sync_id)


def _analyze(connection: Connection, plan: Plan) -> None:
    for table, actions in plan.changes.items():
        if sum(actions.values()) >= ANALYZE_FROM_ROWS:
            connection.exec_driver_sql(f"analyze app.{table}")
