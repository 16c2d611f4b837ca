"""One sync of one district, from request to end.

Belongs here: the order of the steps, the lock, the transaction, and how the sync ended. Does not belong here: the steps.

    lock -> ops.syncs row -> pull -> [ restore -> full plan -> apply -> ops.syncs end ] -> unlock      [ ] is one transaction
                                     [ incremental plan     -> apply -> ops.syncs end ]                if little has changed
                                     [ unchanged                     -> ops.syncs end ]                if nothing has changed

Everything happens on one session. If it ends, the lock, the temporary tables and the transaction end with it.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from typing import Any

import psycopg

from roster_pipeline import contracts
from roster_pipeline.alerts.causes import alert_plan, scopes_over_licenses
from roster_pipeline.connections.listings import doubt_about, reconcile_connections, refuse_doubtful
from roster_pipeline.database.clock import Clock, database_time
from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.database.lock import district_lock
from roster_pipeline.database.migrate import foreign_keys, known_tables, require_current_schema
from roster_pipeline.database.models import Models, load_models
from roster_pipeline.database.runner import ModelRunner, Step, T, timed
from roster_pipeline.districts.agreement import District, find_district, withdraw_auto_initial
from roster_pipeline.districts.unmatched import name_unmatched
from roster_pipeline.districts.windows import record_exception, window_at
from roster_pipeline.errors import RosterError, TransientError, described
from roster_pipeline.settings import Settings
from roster_pipeline.source.protocol import Listing
from roster_pipeline.sync import ledger
from roster_pipeline.sync.admission import admit
from roster_pipeline.sync.apply import accept_district, apply_plan, record_plan, write_agreement
from roster_pipeline.sync.brakes import DECIDED
from roster_pipeline.sync.ending import NO_CHANGES, analyze, brakes_in_words, is_applied, message_of, record_failure
from roster_pipeline.sync.findings import compare_all, record_findings
from roster_pipeline.sync.incremental import plan_incremental
from roster_pipeline.sync.ledger import Origin
from roster_pipeline.sync.plan import IN_WINDOW, Plan, build_staging, make_plan
from roster_pipeline.sync.pull import pull_into
from roster_pipeline.sync.restore import restore_seen
from roster_pipeline.sync.session import PlanningContext, PullResult, SyncContext, id_sequences, is_conflict, one_state, sync_session
from roster_pipeline.sync.sources import OpenSource, open_clever
from roster_pipeline.sync.unchanged import LastState, delete_state, find_last_state, record_state, repeat, state_after, state_of

log = logging.getLogger(__name__)

# How often to plan if somebody else changes a row while the plan is made.
CONFLICT_ATTEMPTS = 3


@dataclass(frozen=True)
class SyncRequest:
    """What to sync, and who or what started it.

    Attributes:
        district: its Clever id, or its id in the application.
        origin: what `ops.syncs` says about it.
        during_freeze: sync it although a freeze may be on (R14.2).
    """

    district: str
    origin: Origin = field(default_factory=Origin)
    during_freeze: bool = False


@dataclass
class SyncReport:
    """How a sync ended.

    Attributes:
        status: the status in `ops.syncs`.
        counts: `ops.syncs.counts`.
        steps: every step in order, with its rows, seconds and memory.
    """

    sync_id: int
    district: District
    status: str
    message: str
    counts: dict[str, Any]
    steps: list[Step] = field(default_factory=list)


@cache
def project_models() -> Models:
    """The models of `dbt_like_sql/`, checked against the tables that the migrations make. Needs no database."""
    return load_models(known_tables(), foreign_keys(), [*contracts.RESOURCES, "districts", "findings"], DECIDED)


def run_sync(
    database: Database,
    settings: Settings,
    request: SyncRequest,
    *,
    open_source: OpenSource = open_clever,
    on_step: Callable[[Step], None] = lambda _step: None,
    clock: Clock = database_time,
) -> SyncReport:
    """Sync one district now.

    Args:
        open_source: opens the source of the district.
        on_step: called after every step, for progress.
        clock: how a session reads the time.

    Raises:
        RequestEndedError: the request has ended meanwhile, so no sync was needed.
        RosterError: the sync failed. It is recorded in `ops.syncs`, unless the database failed or another sync is running (R11.2).
    """
    require_current_schema(database)
    applied: list[SyncReport] = []
    try:
        with sync_session(database, settings) as connection:
            district = admit(connection, request.district, request.origin, clock, during_freeze=request.during_freeze)
            with district_lock(connection, district.district_id, district.clever_id):
                if request.during_freeze:
                    by = {"given_name": request.origin.requested_by, "reason": request.origin.reason, "principal": request.origin.principal}
                    record_exception(connection, district.district_id, now=clock(connection), **by)
                context = SyncContext(connection, district, on_step, clock)
                outcome, report = _sync(context, database, settings, open_source, request.origin)
                applied.append(report)
                # An incremental plan writes too few rows to need it.
                if outcome.plan is not None and "touched" not in outcome.counts:
                    analyze(connection, outcome.plan)
    except Exception as error:
        if not applied:
            raise
        # R11.4: what follows the commit changes nothing of how the sync has ended.
        log.warning("sync %s is applied. What follows a sync failed: %s", applied[0].sync_id, described(error))
    return applied[0]


def plan_sync(
    database: Database,
    settings: Settings,
    reference: str,
    describe: Callable[[PlanningContext, Plan], T],
    *,
    open_source: OpenSource = open_clever,
    on_step: Callable[[Step], None] = lambda _step: None,
    clock: Clock = database_time,
) -> T:
    """Exactly what a sync would do now: the same pull and the same models, in a transaction that is rolled back.

    Args:
        describe: reads the tables of the plan while they exist. What it returns is the result.

    Raises:
        RosterError: the source or the database could not be read, or the district is unknown or has no agreement yet.
    """
    require_current_schema(database)
    with sync_session(database, settings) as connection:
        context = SyncContext(connection, find_district(connection, reference), on_step, clock)

        def check_listing(listing: Listing) -> None:
            refuse_doubtful(doubt_about(connection, listing), context.district.clever_id)

        last_pull = ledger.last_pull(connection, context.district_id)
        pulled = pull_into(context, settings, open_source, context.time(), check_listing)
        with one_state(connection, rollback=True):
            planning = _start_planning(context, sync_id=None, now=pulled.started_at)
            _refuse_outdated(planning, last_pull)
            return describe(planning, _plan_full(planning, pulled))


@dataclass(frozen=True)
class _Outcome:
    """What a sync decided and did.

    Attributes:
        district: with the agreement that the plan used.
        plan: None if no plan was needed.
        counts: for `ops.syncs.counts`, without those of the pull.
    """

    district: District
    plan: Plan | None
    status: str
    message: str
    counts: Mapping[str, Any]


def _sync(
    context: SyncContext, database: Database, settings: Settings, open_source: OpenSource, origin: Origin
) -> tuple[_Outcome, SyncReport]:
    """From the row in `ops.syncs` to the commit."""
    connection, district = context.connection, context.district
    if crashed := ledger.mark_crashed(connection, district.district_id, now=context.time()):
        log.warning("district %s: %d crashed sync(s) marked as failed", district.clever_id, crashed)
    sync_id = ledger.begin(connection, district.district_id, origin, now=context.time())
    steps: list[Step] = []
    ended: list[_Outcome] = []
    try:
        with translate_database_errors():
            _pull_and_apply(context, settings, open_source, sync_id, origin, steps, ended)
    except BaseException as error:
        record_failure(database, sync_id, error, context.clock)
        # The session was lost at the commit, so only the row says whether the server has committed.
        if not (isinstance(error, RosterError) and ended and is_applied(database, sync_id, district.clever_id)):
            raise
    outcome = ended[-1]
    return outcome, SyncReport(sync_id, outcome.district, outcome.status, outcome.message, dict(outcome.counts), steps)


def _pull_and_apply(
    context: SyncContext,
    settings: Settings,
    open_source: OpenSource,
    sync_id: int,
    origin: Origin,
    steps: list[Step],
    ended: list[_Outcome],
) -> None:
    """The pull, then the transaction; again if somebody else wrote in the meantime (R11.4).

    Args:
        steps: every step is appended.
        ended: what the transaction decided is appended when only its commit is missing.
    """

    def record(step: Step) -> None:
        steps.append(step)
        context.on_step(step)

    def ingest_listing(listing: Listing) -> None:
        found = reconcile_connections(context.connection, listing, now=context.time())
        refuse_doubtful(found.doubt, context.district.clever_id)

    recording = replace(context, on_step=record)
    started_at = context.time()
    pull_no = ledger.pull_began(context.connection, sync_id, started_at)
    pulled = pull_into(recording, settings, open_source, started_at, ingest_listing)
    before, conflicts = len(steps), set()
    for attempt in range(1, CONFLICT_ATTEMPTS + 1):
        ended.clear()
        try:
            with one_state(context.connection):
                ended.append(_plan_and_apply(recording, pulled, pull_no, sync_id, origin))
        except psycopg.Error as error:
            if not is_conflict(error):
                raise
            conflicts.add((error.sqlstate, error.diag.constraint_name))
            if attempt == CONFLICT_ATTEMPTS and len(conflicts) == 1:
                raise
            del steps[before:]
            log.info("district %s, sync %s: rows changed while planning, planning again", context.district.clever_id, sync_id)
        else:
            return
    ended.clear()
    raise TransientError(
        f"The application wrote the same rows while they were planned, in {CONFLICT_ATTEMPTS} attempts.",
        hint="Sync again when it writes less.",
        district=context.district.clever_id,
    )


def _plan_and_apply(context: SyncContext, pulled: PullResult, pull_no: int, sync_id: int, origin: Origin) -> _Outcome:
    """What the one transaction of a sync contains (R11.5): the plan, the writes, and the end of its row in `ops.syncs`."""
    planning = _start_planning(context, sync_id=sync_id, now=context.time())
    connection, district_id = planning.connection, planning.district_id
    _refuse_outdated(planning, pull_no)
    previous, were_over = ledger.last_applied(connection, district_id), scopes_over_licenses(connection, district_id)
    outcome = _plan_and_write(planning, pulled)
    unmatched = name_unmatched(connection, outcome.district, outcome.counts, is_applied=not (outcome.plan and outcome.plan.writes_nothing))
    message = outcome.message + unmatched + brakes_in_words(outcome.district)
    on = {"window": planning.window.facts} if planning.window is not None else {}
    outcome = replace(outcome, counts={**outcome.counts, **pulled.counts, **on}, message=message)
    alert_plan(
        connection,
        planning.models,
        district_id=district_id,
        sync_id=sync_id,
        counts=outcome.counts,
        previous=previous,
        were_over=were_over,
        is_urgent=origin.is_urgent,
        now=planning.now,
    )
    ledger.end(connection, sync_id, now=context.time(), status=outcome.status, counts=outcome.counts, message=outcome.message)
    return outcome


def _start_planning(context: SyncContext, *, sync_id: int | None, now: datetime) -> PlanningContext:
    """The context of this transaction. The agreement is read again, because it may have changed during the pull."""
    district = find_district(context.connection, context.district.clever_id)
    rules, window = district.require_rules(), window_at(context.connection, district.district_id, now)
    is_first = ledger.is_first_sync(context.connection, district.district_id)
    # A first sync has rules of its own (R7.6), in a window too.
    kind = window.kind if window is not None and not is_first else None
    if window is not None:
        rules = rules.model_copy(update={"brakes": window.brakes(rules.brakes)})
    parameters = {
        "district_id": district.district_id,
        "sync_id": sync_id,
        "synced_at": now,
        "student_multi_school": rules.student_multi_school,
        "student_email": rules.student_email,
        "keep_classroom_names": rules.keep_classroom_names,
        "login_methods": list(rules.login_methods),
        **id_sequences(context.connection, is_dry_run=sync_id is None),
        "is_first": is_first,
        "is_additions_only": kind == "additions_only",
        "is_rollover": kind == "rollover",
        "is_rekeyed": district.is_rekeyed,
    }
    runner = ModelRunner(context.connection, parameters, known_tables())
    return PlanningContext(context.connection, district, context.on_step, context.clock, rules, window, runner, project_models())


def _plan_and_write(context: PlanningContext, pulled: PullResult) -> _Outcome:
    """The cheapest way that is safe: no plan, an incremental plan or a full plan."""
    ours = (context.connection, context.district_id, context.is_additions_only)
    last = timed("unchanged", context.on_step, lambda: find_last_state(*ours))
    if last is not None and last.is_repeated_by(pulled.index.fingerprint):
        return _repeat_last(context, last)
    if last is not None and (incremental := plan_incremental(context, pulled, last)) is not None:
        return _write(incremental.context, pulled, incremental.plan, last, incremental.counts)
    return _write(context, pulled, _plan_full(context, pulled), last)


def _repeat_last(context: PlanningContext, last: LastState) -> _Outcome:
    """Nothing has changed, neither at Clever nor in the application: this sync has the same result as the last one."""
    accept_district(context)
    repeat(context, last)
    repeated = {name: value for name, value in last.counts.items() if name not in ("touched", "window", *IN_WINDOW)}
    repeated |= {"deferred": last.deferred} if context.is_additions_only else {"graduated": 0} if context.is_rollover else {}
    return _Outcome(context.district, None, "successful", NO_CHANGES, {**repeated, "settled_since": last.since_sync_id})


def _plan_full(context: PlanningContext, pulled: PullResult) -> Plan:
    """A plan of everybody in the district."""
    timed("restore", context.on_step, lambda: restore_seen(context, pulled))
    build_staging(context)
    return make_plan(context)


def _write(
    context: PlanningContext,
    pulled: PullResult,
    plan: Plan,
    last: LastState | None,
    incremental: Mapping[str, int] | None = None,
) -> _Outcome:
    """Apply a plan, except for what is held.

    Args:
        last: the state that the last sync left, if nobody has written anything since.
        incremental: the size of the affected subset, if the plan is an incremental one.
    """
    connection, district_id = context.connection, context.district_id
    record_plan(context)
    if incremental is None:
        compare_all(context)
    timed("keep ops.findings", context.on_step, lambda: record_findings(context))
    delete_state(connection, district_id)
    is_agreement_written = not plan.writes_nothing and write_agreement(context)
    if not (plan.decisions or context.is_first):
        before = last.state if last and not is_agreement_written else state_of(connection, district_id)
        state = state_after(connection, district_id, before, plan.changes)
        assert context.sync_id is not None  # noqa: S101  (a dry run writes nothing)
        since, deferred = incremental["since"] if incremental else context.sync_id, plan.in_window.get("deferred", 0)
        record_state(context, pulled.index.fingerprint, state, since, deferred)
    if not plan.writes_nothing:
        apply_plan(context)
        if context.rules.auto_initial:
            withdraw_auto_initial(connection, context.district, f"sync:{context.sync_id}")
    findings = {f"{resource}.{rule}": rows for (resource, rule, _), rows in sorted(pulled.landing.findings.items())}
    counts = {**plan.as_counts(), "findings": findings, **({"touched": incremental} if incremental else {})}
    return _Outcome(context.district, plan, "held" if plan.holding else "successful", message_of(plan, context.district), counts)


def _refuse_outdated(context: PlanningContext, pull_no: int) -> None:
    if ledger.is_outdated(context.connection, context.district_id, pull_no):
        raise TransientError(
            "A newer snapshot of the district has been applied already (R11.6).",
            hint="Nothing needs to be done: a sync that began after this one has ended before it.",
            district=context.district.clever_id,
        )
