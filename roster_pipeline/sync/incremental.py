"""The plan of what has been touched: of a large district in which little has changed, the part that can come out differently.

Belongs here: when such a plan may replace a full plan, which part it is of (`incremental.sql`), and the counts of the whole district.
Does not belong here: any rule. The models of `dbt_like_sql/` plan the part as if it were all there is, once as it was and once as it is.

Two things make it right. The part is closed: whoever shares a name with somebody in it is in it too, and so is whoever comes to a section
or leaves it. And it is checked: what the last sync left behind must plan to nothing, or the part is not what it is taken for. Where
anything speaks against it, all of the district is planned. Where Clever has sent the same again, that check is all there is to plan.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy import Connection

from roster_pipeline.database.engine import psycopg_connection
from roster_pipeline.database.models import Models
from roster_pipeline.database.runner import ModelRunner, Part, Step, local_name, localize, timed
from roster_pipeline.database.tables import syncs
from roster_pipeline.districts.agreement import District
from roster_pipeline.profiles import Profile
from roster_pipeline.source.digests import Memory
from roster_pipeline.source.vocabulary import Collection
from roster_pipeline.sync.landing import Landing, copy_rows
from roster_pipeline.sync.plan import Plan, make_plan, take_in
from roster_pipeline.sync.recall import recall
from roster_pipeline.sync.unchanged import Settled

# With fewer people than this the whole plan takes about as long.
FROM_PEOPLE = 5_000
# Where more than this share of the people is touched, the whole plan is no slower.
UP_TO_SHARE = 0.1
# So often all of a large district is compared, whatever happens.
WHOLE_EVERY = timedelta(days=7)

# A quarantined one has no name.
_SCHOOLS = """
    select clever_id, name from staging.schools where district_id = :district_id
    union all
    select clever_id, null as name from staging.quarantined where district_id = :district_id and resource = 'schools'
"""
_SCRIPT = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
_PART = Part(
    tables=("app.users", "app.user_roles", "app.classrooms", "app.enrollments"),
    # A brake is a share of everybody who is active (R7.3).
    all_read_by=frozenset({"reconcile.brakes"}),
    kept={"staging.users": "touched.people", "staging.sections": "touched.sections", "reconcile.user_matches": "touched.people"},
)
# The report on the whole district stays as the last whole plan made it; `roster readiness` makes a new one.
_NOT_OF_A_PART = frozenset(f"reconcile.readiness{each}" for each in ("", "_places", "_people", "_existing", "_licenses"))
_LICENSES = "reconcile.license_reconciliation"
_SEATS = ("used", "without_seat", "held")


@dataclass(frozen=True)
class Touched:
    """A plan of a part that stands for one of the whole district.

    Attributes:
        plan: what to write, and the counts of the whole district.
        runner: holds the part, for carrying the plan out.
        models: those that were run.
        counts: how large the part is, for `ops.syncs.counts`.
    """

    plan: Plan
    runner: ModelRunner
    models: Models
    counts: dict[str, int]


class _WholeError(Exception):
    """The whole district has to be planned."""


@dataclass(frozen=True)
class _World:
    """What a plan of the part says.

    Attributes:
        seats: the part's rows of the license reconciliation, by scope.
    """

    plan: Plan
    seats: Mapping[str, Mapping[str, int]]


def plan_touched(
    runner: ModelRunner,
    models: Models,
    rules: Profile,
    district: District,
    landing: Landing,
    memory: Memory,
    last: Settled,
    on_step: Callable[[Step], None],
) -> Touched | None:
    """Plan what has been touched since the last sync, in the caller's transaction; None where the whole district has to be planned.

    Args:
        runner: of the whole district.
        last: what the last sync has left. Nobody has written anything since.
    """
    connection, ours = runner.connection, {"district_id": runner.parameters["district_id"], "last_sync_id": last.sync_id}
    driver = psycopg_connection(connection)
    with suppress(_WholeError), driver.transaction():
        _check_change(connection, ours["district_id"], landing, memory, last, runner.parameters["synced_at"])
        runner = replace(runner, part=_PART)
        models = replace(models, ordered=tuple(each for each in models if each.name not in _NOT_OF_A_PART))
        counts = timed("touched", on_step, lambda: _find_part(driver, models, memory, ours))
        _unless(counts["people"] <= UP_TO_SHARE * _people_known(memory))
        among = {each: sql.Identifier("pg_temp", f"touched.staging.{each}") for each in ("sections", "users")}
        timed("recall", on_step, lambda: recall(connection, landing, memory, district, among))
        is_same = memory.fingerprint == last.snapshot
        before = None if is_same else timed("touched as it was", on_step, lambda: _plan_last(runner, models, rules, ours))
        take_in(runner, models, on_step)
        _unless(_are_schools_the_same(connection, ours))
        after = _plan(runner, models, rules, on_step)
        if before is None:
            # Clever has sent once more what is there: as it is, it was.
            _unless(not after.plan.rows)
            before = after
        # What a brake or an approval has to do with, is decided over everybody.
        _unless(not after.plan.decisions)
        _count_seats(connection, before.seats, after.seats, ours, may_exceed=district.row["over_license_policy"] == "warn")
        plan = replace(
            after.plan,
            people=_people(connection, after.plan.people, ours),
            audits=_audits(models, last.counts["audits"], before.plan.audits, after.plan.audits),
            members_missing=last.counts["members_missing"] + after.plan.members_missing - before.plan.members_missing,
        )
        return Touched(plan, runner, models, {**counts, "since": last.since_sync_id})
    return None


def _unless(is_fine: bool) -> None:
    if not is_fine:
        raise _WholeError


def _plan(runner: ModelRunner, models: Models, rules: Profile, on_step: Callable[[Step], None]) -> _World:
    plan = make_plan(runner, models, rules, on_step)
    rows = runner.connection.exec_driver_sql(f"select scope, used, without_seat, held from {local_name(_LICENSES)}").mappings()  # noqa: S608
    return _World(plan, {row["scope"]: {each: row[each] for each in _SEATS} for row in rows})


def _plan_last(runner: ModelRunner, models: Models, rules: Profile, ours: Mapping[str, int]) -> _World:
    """The plan of the part of the last snapshot: that there is nothing to do. It is thrown away, with its temporary tables."""
    with psycopg_connection(runner.connection).transaction(force_rollback=True):
        for model in models.of("staging"):
            _stage_last(runner.connection, model.name, ours)
        # Nothing may fall under a brake as it was, whatever the share.
        runner = replace(runner, part=replace(_PART, all_read_by=frozenset()), parameters={**runner.parameters, "sync_id": None})
        last = _plan(runner, models, rules, lambda _step: None)
    _unless(not last.plan.rows and not last.plan.brakes)
    return last


def _people_known(memory: Memory) -> int:
    return sum(memory.known(each) for each in Collection if each.role)


def _check_change(connection: Connection, district_id: int, landing: Landing, memory: Memory, last: Settled, now: datetime) -> None:
    """What can be told before anything is looked for."""
    known = _people_known(memory)
    arrived = sum(landing.rows[each] - memory.known(each) for each in Collection if each.role)
    _unless(known >= FROM_PEOPLE and arrived <= UP_TO_SHARE * known)
    # What the last sync wrote is looked at again, so that all of its history has to be there still.
    written = sum(sum(actions.values()) for actions in last.counts["changes"].values())
    query = sa.text(
        "select count(*) as rows, count(*) filter (where entity = 'schools') as schools from ops.changes where sync_id = :sync_id"
    )
    history = connection.execute(query, {"sync_id": last.sync_id}).one()
    _unless(history.rows == written and not history.schools)
    # Whatever it was, the next attempt leaves nothing to chance.
    failed = sa.exists().where(syncs.c.district_id == district_id, syncs.c.sync_id > last.sync_id, syncs.c.status == "failed")
    _unless(not connection.execute(sa.select(failed)).scalar_one())
    compared_at = connection.execute(sa.select(syncs.c.finished_at).where(syncs.c.sync_id == last.since_sync_id)).scalar_one_or_none()
    _unless(compared_at is not None and now - compared_at < WHOLE_EVERY)


def _find_part(driver: "psycopg.Connection[Any]", models: Models, memory: Memory, ours: Mapping[str, int]) -> dict[str, int]:
    looked_for = [(resource, digest.hex()) for resource in ("sections", "users") for digest in memory.unmet(resource)]
    # One of each collection of people, which shows that it has not come back empty (R7.4).
    looked_for += [("users", digest.hex()) for collection in Collection if collection.role for digest in memory.first_seen(collection)]
    driver.execute('create temporary table "touched.digests" (resource text, digest uuid) on commit drop')
    columns = {
        "resource": pyarrow.array([resource for resource, _ in looked_for], pyarrow.string()),
        "digest": pyarrow.array([digest for _, digest in looked_for], pyarrow.string()),
    }
    copy_rows(driver, sql.Identifier("pg_temp", "touched.digests"), pyarrow.table(columns))
    # The newest of those that have arrived (R3.8).
    newest = localize(models.by_name["staging.sections"].sql).replace(":district_id", "%(district_id)s")
    for statement in (f'create temporary table "touched.new_sections" on commit drop as {newest}', *_SCRIPT.split(";\n")):
        if statement.strip():
            driver.execute(statement.encode(), ours)
    return {
        "people": _rows(driver, "touched.people"),
        "sections": _rows(driver, "touched.sections"),
    }


def _rows(driver: "psycopg.Connection[Any]", table: str) -> int:
    row = driver.execute(sql.SQL("select count(*) from {}").format(sql.Identifier("pg_temp", table))).fetchone()
    return int(row[0]) if row else 0


def _stage_last(connection: Connection, name: str, ours: Mapping[str, int]) -> None:
    """The part of the last snapshot, as if it had just been taken in."""
    _, table = name.split(".")
    part = local_name(f"touched.{name}") if table in ("sections", "users") else name
    statement = f'create temporary table "{name}" on commit drop as select * from {part} where district_id = :district_id'  # noqa: S608
    connection.execute(sa.text(statement), ours)
    # Statistics of arrays take long, and nobody asks for them.
    connection.exec_driver_sql(f"analyze {local_name(name)} (clever_id)")


def _are_schools_the_same(connection: Connection, ours: Mapping[str, int]) -> bool:
    """Everything hangs on a school."""
    wanted, last = localize(_SCHOOLS), _SCHOOLS
    query = sa.text(f"select not exists (({wanted}) except all ({last})) and not exists (({last}) except all ({wanted}))")
    return bool(connection.execute(query, ours).scalar_one())


def _audits(models: Models, last: Mapping[str, int], before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Offending records of the whole district, by audit."""
    found = {}
    for audit in models.of("audits"):
        # Two records of one Clever id always arrive, so that all of those are in the part.
        is_of_arrivals = any(read.startswith("clever.") for read in audit.reads)
        outside = 0 if is_of_arrivals else last[audit.table] - before[audit.table]
        found[audit.table] = outside + after[audit.table]
    return found


def _people(connection: Connection, part: Mapping[str, int], ours: Mapping[str, int]) -> dict[str, int]:
    """Those of the part, and those of the last plan who are not in it."""
    query = sa.text("""
        select decision || ': ' || rule as what, count(*) as people
        from reconcile.user_matches
        where district_id = :district_id and clever_id not in (select clever_id from pg_temp."touched.people")
        group by 1
    """)
    people = {row.what: row.people for row in connection.execute(query, ours)}
    return {each: people.get(each, 0) + part.get(each, 0) for each in sorted({*people, *part})}


def _count_seats(
    connection: Connection,
    before: Mapping[str, Mapping[str, int]],
    after: Mapping[str, Mapping[str, int]],
    ours: Mapping[str, int],
    *,
    may_exceed: bool,
) -> None:
    """Make the license reconciliation that of the whole district. Where seats run short, who gets one is decided over everybody (R9.2)."""
    query = sa.text(f"select scope, licenses, used, without_seat, held from {_LICENSES} where district_id = :district_id")  # noqa: S608
    last = {row["scope"]: row for row in connection.execute(query, ours).mappings()}
    _unless(last.keys() == before.keys() == after.keys())
    for scope, row in last.items():
        seats = {each: row[each] + after[scope][each] - before[scope][each] for each in _SEATS}
        is_over = row["licenses"] is not None and seats["used"] > row["licenses"]
        _unless(not (row["without_seat"] or row["held"] or seats["without_seat"] or seats["held"] or (is_over and not may_exceed)))
        statement = f"update {local_name(_LICENSES)} set used = :used, is_over = :is_over where scope = :scope"  # noqa: S608
        connection.execute(sa.text(statement), {"used": seats["used"], "is_over": is_over, "scope": scope})
