"""The incremental plan: in a large district in which little has changed, only the affected subset is planned, not the full district.

Belongs here: when an incremental plan may replace the full plan, the affected subset (`incremental.sql`), and the counts of the district.
Does not belong here: any rule. The models of `dbt_like_sql/` plan the subset as if it were the whole district. They do it twice: on the
last snapshot (the baseline plan) and on the new one (the new plan).

Three things make the result right:

- The subset is closed. It has all people who share a name or a SIS id with somebody in it, and all who joined or left a section.
- Every model says in its header how far it looks (`decides by`). One that looks further than the subset makes this module refuse.
- It is checked every time. After the last sync nothing was left to do, so the baseline plan must be empty.

Where any of this is in doubt, the caller makes a full plan. If Clever has sent the same snapshot again, both plans are the same, and one is
made.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow
import sqlalchemy as sa
from psycopg import sql

from roster_pipeline.database.clock import is_future
from roster_pipeline.database.copying import copy_rows
from roster_pipeline.database.engine import psycopg_connection
from roster_pipeline.database.models import Model, Models
from roster_pipeline.database.runner import Subset, local_name, localize, timed
from roster_pipeline.database.tables import syncs
from roster_pipeline.source.digests import SnapshotIndex
from roster_pipeline.source.vocabulary import Collection
from roster_pipeline.sync.findings import compare_subset, copied
from roster_pipeline.sync.plan import Plan, build_staging, make_plan
from roster_pipeline.sync.restore import restore_seen
from roster_pipeline.sync.session import PlanningContext, PullResult
from roster_pipeline.sync.unchanged import LastState

# In a district with fewer people a full plan takes about as long.
FROM_PEOPLE = 5_000
# If a larger share of the people is affected, a full plan is not slower.
UP_TO_SHARE = 0.1
# A full plan is made this often, whatever happens.
FULL_PLAN_EVERY = timedelta(days=7)

_READINESS = tuple(f"reconcile.readiness{each}" for each in ("", "_existing", "_licenses", "_people", "_places"))
_LICENSES = "reconcile.license_reconciliation"
_SEATS = ("used", "without_seat", "held")

# The subset answers a model that decides by one of these: it has all people of one name or SIS id, and all sections of its people.
FOLLOWED = frozenset({"itself", "name", "section"})
# Models that look further, and why an incremental plan is right nevertheless. Any other such model makes every plan a full plan.
LOOK_FURTHER: Mapping[str, str] = {
    "reconcile.agreed_schools": "Compares schools with the agreement. All schools are in every plan, and the agreement has not changed.",
    "audits.agreed_school_missing": "Reads the schools of the agreement only, and all of them are in every plan.",
    "reconcile.schools": "Compares schools with each other. All schools are in every plan; a school that has changed means a full plan.",
    "reconcile.brake_acts": "Only what is in the subset is written, so all acts are in it; and one person of each collection is.",
    "reconcile.graduates": "Is empty outside of a rollover window (R14.4), and in one every plan is a full plan.",
    "reconcile.window_counts": "Its numbers are sums. They are added up here (`in_window`).",
    "reconcile.brakes": "A brake is a share of all that is active (R7.3): reads the full tables. A tripped brake means a full plan.",
    "reconcile.lost_classrooms": "Everybody who has left a section is in the subset: the members of a classroom that is soft-deleted.",
    "reconcile.unchanged_classrooms": "Only a brake keeps a classroom, and a tripped brake means a full plan.",
    "reconcile.seats": "Who gets a seat is decided over the district only where seats run short (R9.2), and that means a full plan.",
    _LICENSES: "Its numbers are sums. They are added up here (`_count_seats`).",
    **dict.fromkeys(_READINESS, "Is not run. The report stays as the last full plan made it; `roster readiness` makes a new one."),
}
# Audits that read the pages of the pull. In an incremental plan the pages hold only the unseen records and the subset. So such an
# audit is right only if every record that it counts is unseen in each pull. Two records with one Clever id are: they have no digest.
OF_PAGES = frozenset({"audits.duplicate_ids"})

# A quarantined school or term has no values.
_PLACES = """
    select 'schools' as resource, clever_id, name, null as start_date, null as end_date
    from staging.schools where district_id = :district_id
    union all
    select 'terms', clever_id, name, start_date, end_date from staging.terms where district_id = :district_id
    union all
    select resource, clever_id, null, null, null
    from staging.quarantined where district_id = :district_id and resource in ('schools', 'terms')
"""
_SCRIPT = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
_SUBSET = Subset(
    tables=("app.users", "app.user_roles", "app.classrooms", "app.enrollments"),
    # The audits look for people of other districts.
    read_in_full=frozenset({"reconcile.brakes", "audits.shared_login", "audits.clever_id_in_two_districts"}),
    kept={"staging.users": "subset.people", "staging.sections": "subset.sections", "reconcile.user_matches": "subset.people"},
)


@dataclass(frozen=True)
class IncrementalPlan:
    """A plan of the affected subset that replaces a full plan.

    Attributes:
        plan: what to write, and the counts of the whole district.
        context: the caller's, with the runner of the subset and the models that were run. Applying the plan needs it.
        counts: how large the subset is, for `ops.syncs.counts`.
    """

    plan: Plan
    context: PlanningContext
    counts: dict[str, int]


class _FullPlanError(Exception):
    """A full plan is needed."""


@dataclass(frozen=True)
class _PartialPlan:
    """The baseline plan or the new plan, of the subset alone.

    Attributes:
        findings: what the audits returned.
        seats: the subset's rows of the license reconciliation, by scope.
    """

    plan: Plan
    findings: bytes
    seats: Mapping[str, Mapping[str, int]]


def plan_incremental(context: PlanningContext, pulled: PullResult, last: LastState) -> IncrementalPlan | None:
    """Plan what has changed since the last sync, in the caller's transaction; None if a full plan is needed.

    Args:
        context: of the whole district.
        last: the state that the last sync left. Nobody has written anything since.
    """
    index, on_step = pulled.index, context.on_step
    with suppress(_FullPlanError), psycopg_connection(context.connection).transaction():
        _require(not looking_too_far(context.models) and not context.is_rollover)
        _check_change(context, pulled, last)
        models = replace(context.models, ordered=tuple(each for each in context.models if each.name not in _READINESS))
        subset = replace(context, runner=replace(context.runner, subset=_SUBSET), models=models)
        counts = timed("affected subset", on_step, lambda: _find_subset(subset, index, last))
        _require(counts["people"] <= UP_TO_SHARE * _people_seen(index))
        among = {each: sql.Identifier("pg_temp", f"subset.staging.{each}") for each in ("sections", "users")}
        timed("restore", on_step, lambda: restore_seen(subset, pulled, among))
        is_same = index.fingerprint == last.snapshot
        baseline = None if is_same else timed("baseline plan", on_step, lambda: _plan_baseline(subset))
        build_staging(subset)
        _require(_are_places_the_same(subset) and _can_all_be_read(subset))
        new = _plan(subset)
        if baseline is None:
            # The snapshot is unchanged, so the baseline plan and the new plan are the same.
            _require(not new.plan.rows)
            baseline = new
        # Brakes and approvals are decided over the whole district.
        _require(not new.plan.decisions)
        _count_seats(subset, baseline.seats, new.seats)
        _require(compare_subset(subset, baseline.findings, [each.removeprefix("audits.") for each in OF_PAGES]))
        plan = replace(
            new.plan,
            people=_people(subset, new.plan.people),
            in_window={each: last.deferred + rows - baseline.plan.in_window[each] for each, rows in new.plan.in_window.items()},
            audits=_audits(models, last.counts["audits"], baseline.plan.audits, new.plan.audits),
            members_missing=last.counts["members_missing"] + new.plan.members_missing - baseline.plan.members_missing,
        )
        return IncrementalPlan(plan, subset, {**counts, "since": last.since_sync_id})
    return None


def looking_too_far(models: Models) -> list[Model]:
    """The models that an incremental plan cannot answer, so that every plan has to be a full one."""
    return [
        each
        for each in models.of("reconcile", "audits")
        if each.name not in LOOK_FURTHER and (each.decides_by not in FOLLOWED or (_reads_pages(each) and each.name not in OF_PAGES))
    ]


def _reads_pages(model: Model) -> bool:
    return any(read.startswith("clever.") for read in model.reads)


def _require(is_fine: bool) -> None:
    if not is_fine:
        raise _FullPlanError


def _plan(context: PlanningContext) -> _PartialPlan:
    plan = make_plan(context)
    rows = context.connection.exec_driver_sql(f"select scope, used, without_seat, held from {local_name(_LICENSES)}").mappings()  # noqa: S608
    return _PartialPlan(plan, copied(context), {row["scope"]: {each: row[each] for each in _SEATS} for row in rows})


def _plan_baseline(context: PlanningContext) -> _PartialPlan:
    """The plan of the subset of the last snapshot, which must be empty. It is rolled back, with its temporary tables."""
    with psycopg_connection(context.connection).transaction(force_rollback=True):
        for model in context.models.of("staging"):
            _stage_baseline(context, model.name)
        # The baseline must contain no act that a brake counts. So nobody needs to know what share of all people the acts are.
        in_full = _SUBSET.read_in_full - {"reconcile.brakes"}
        subset, parameters = replace(_SUBSET, read_in_full=in_full), {**context.runner.parameters, "sync_id": None}
        runner = replace(context.runner, subset=subset, parameters=parameters)
        baseline = _plan(replace(context, runner=runner, on_step=lambda _step: None))
    _require(not baseline.plan.rows and not baseline.plan.brakes)
    return baseline


def _people_seen(index: SnapshotIndex) -> int:
    return sum(index.count_seen(each) for each in Collection if each.role)


def _check_change(context: PlanningContext, pulled: PullResult, last: LastState) -> None:
    """Check everything that can rule out an incremental plan before the subset is known."""
    connection, district_id = context.connection, context.district_id
    seen = _people_seen(pulled.index)
    unseen = sum(pulled.landing.rows[each] - pulled.index.count_seen(each) for each in Collection if each.role)
    _require(seen >= FROM_PEOPLE and unseen <= UP_TO_SHARE * seen)
    # The baseline plan covers what the last sync wrote, so all of its history must still be there.
    written = sum(sum(actions.values()) for actions in last.counts["changes"].values())
    query = sa.text(
        "select count(*) as rows, count(*) filter (where entity = 'schools') as schools from ops.changes where sync_id = :sync_id"
    )
    history = connection.execute(query, {"sync_id": last.sync_id}).one()
    _require(history.rows == written and not history.schools)
    # After a failed sync, always make a full plan.
    failed = sa.exists().where(syncs.c.district_id == district_id, syncs.c.sync_id > last.sync_id, syncs.c.status == "failed")
    _require(not connection.execute(sa.select(failed)).scalar_one())
    planned_at = connection.execute(sa.select(syncs.c.finished_at).where(syncs.c.sync_id == last.since_sync_id)).scalar_one_or_none()
    _require(planned_at is not None and not is_future(planned_at, context.now) and context.now - planned_at < FULL_PLAN_EVERY)


def _find_subset(context: PlanningContext, index: SnapshotIndex, last: LastState) -> dict[str, int]:
    """Make the tables of the subset. Returns its size."""
    driver = psycopg_connection(context.connection)
    digests = [(resource, digest.hex()) for resource in ("sections", "users") for digest in index.missing(resource)]
    # One person of each collection, so that no collection looks empty in the subset (R7.4).
    digests += [("users", digest.hex()) for collection in Collection if collection.role for digest in index.first_seen(collection)]
    driver.execute('create temporary table "subset.digests" (resource text, digest uuid) on commit drop')
    columns = {
        "resource": pyarrow.array([resource for resource, _ in digests], pyarrow.string()),
        "digest": pyarrow.array([digest for _, digest in digests], pyarrow.string()),
    }
    copy_rows(driver, sql.Identifier("pg_temp", "subset.digests"), pyarrow.table(columns))
    # The newest version of each new section (R3.8).
    newest = localize(context.models.by_name["staging.sections"].sql).replace(":district_id", "%(district_id)s")
    new_sections = f'create temporary table "subset.new_sections" on commit drop as {newest}'
    for statement in (new_sections, *_script(context.runner.tables["staging.sections"]).split(";\n")):
        if statement.strip():
            driver.execute(statement.encode(), {"district_id": context.district_id, "last_sync_id": last.sync_id})
    return {"people": _rows(driver, "subset.people"), "sections": _rows(driver, "subset.sections")}


def _script(columns: tuple[str, ...]) -> str:
    """`incremental.sql`, with the columns of `staging.sections`. In the subset a section lists only those students who are in it."""
    values = ["coalesce(listings.students, '{}')" if each == "students" else f"sections.{each}" for each in columns]
    return _SCRIPT.replace("columns_of_sections", ", ".join(columns)).replace("values_of_sections", ", ".join(values))


def _rows(driver: "psycopg.Connection[Any]", table: str) -> int:
    row = driver.execute(sql.SQL("select count(*) from {}").format(sql.Identifier("pg_temp", table))).fetchone()
    return int(row[0]) if row else 0


def _stage_baseline(context: PlanningContext, name: str) -> None:
    """The subset of the last snapshot, as if it had just been ingested."""
    _, table = name.split(".")
    source = local_name(f"subset.{name}") if table in ("sections", "users") else name
    statement = f'create temporary table "{name}" on commit drop as select * from {source} where district_id = :district_id'  # noqa: S608
    context.connection.execute(sa.text(statement), {"district_id": context.district_id})
    # Statistics of the arrays take long, and no query uses them.
    context.connection.exec_driver_sql(f"analyze {local_name(name)} ({context.models.by_name[name].key[-1]})")


def _are_places_the_same(context: PlanningContext) -> bool:
    """Whether the new snapshot has the schools and terms of the last one: everything else depends on them."""
    new, last = localize(_PLACES), _PLACES
    query = sa.text(f"select not exists (({new}) except all ({last})) and not exists (({last}) except all ({new}))")
    return bool(context.connection.execute(query, {"district_id": context.district_id}).scalar_one())


def _can_all_be_read(context: PlanningContext) -> bool:
    """Whether every element has a readable id, in both snapshots. Otherwise a row of `app` that no record names may stay, or end (R4.8)."""
    query = f"select not exists (select from {local_name('staging.unreadable')}) and not exists (select from staging.unreadable where district_id = :district_id)"  # noqa: S608, E501
    return bool(context.connection.execute(sa.text(query), {"district_id": context.district_id}).scalar_one())


def _audits(models: Models, last: Mapping[str, int], baseline: Mapping[str, int], new: Mapping[str, int]) -> dict[str, int]:
    """Records of the whole district that violate a rule, by audit: those of the last plan, less the baseline, plus the new ones."""
    found = {}
    for audit in models.of("audits"):
        outside = 0 if audit.name in OF_PAGES else last[audit.table] - baseline[audit.table]
        found[audit.table] = outside + new[audit.table]
    return found


def _people(context: PlanningContext, subset: Mapping[str, int]) -> dict[str, int]:
    """People of the whole district by decision: those of the subset, and those of the last plan who are not in it."""
    query = sa.text("""
        select decision || ': ' || rule as what, count(*) as people
        from reconcile.user_matches
        where district_id = :district_id and clever_id not in (select clever_id from pg_temp."subset.people")
        group by 1
    """)
    people = {row.what: row.people for row in context.connection.execute(query, {"district_id": context.district_id})}
    return {each: people.get(each, 0) + subset.get(each, 0) for each in sorted({*people, *subset})}


def _count_seats(context: PlanningContext, baseline: Mapping[str, Mapping[str, int]], new: Mapping[str, Mapping[str, int]]) -> None:
    """Make the license reconciliation that of the whole district. Where seats run short, a full plan decides who gets one (R9.2)."""
    query = sa.text(f"select scope, licenses, used, without_seat, held from {_LICENSES} where district_id = :district_id")  # noqa: S608
    last = {row["scope"]: row for row in context.connection.execute(query, {"district_id": context.district_id}).mappings()}
    may_exceed = context.district.row["over_license_policy"] == "warn"
    _require(last.keys() == baseline.keys() == new.keys())
    for scope, row in last.items():
        seats = {each: row[each] + new[scope][each] - baseline[scope][each] for each in _SEATS}
        is_over = row["licenses"] is not None and seats["used"] > row["licenses"]
        _require(not (row["without_seat"] or row["held"] or seats["without_seat"] or seats["held"] or (is_over and not may_exceed)))
        statement = f"update {local_name(_LICENSES)} set used = :used, is_over = :is_over where scope = :scope"  # noqa: S608
        context.connection.execute(sa.text(statement), {"used": seats["used"], "is_over": is_over, "scope": scope})
