"""`ops.findings`: the records that the audits of the last applied sync returned (R4.3).

Belongs here: running the audits, and updating the stored findings to match, in the sync's transaction. Does not belong here: what an audit
returns (`dbt_like_sql/audits/`), records that are broken by themselves (`dbt_like_sql/ops/quarantine.sql`), and showing findings
(`support/findings.py`).

Only differences are written: most findings are the same every night, and a large district can have a hundred thousand. `ops.audited` says
which sync they are of. So a sync that repeats the last result only writes its own number there.

An incremental plan audits the affected subset alone. The findings of the district are then the stored ones, minus those of the
baseline plan, plus those of the new plan. A false finding of the subset (a teacher outside it looks like an unknown person) is in both
plans, so it adds up to nothing.
"""

from collections.abc import Collection

import sqlalchemy as sa
from psycopg import sql

from roster_pipeline.database.engine import psycopg_connection
from roster_pipeline.database.runner import FOUND
from roster_pipeline.sync.session import PlanningContext

_CHANGES = 'pg_temp."reconcile.finding_changes"'
_BASELINE = 'pg_temp."subset.findings"'

_COPIED = f"select rule, resource, clever_id, cast(count(*) as integer) as records from {FOUND} group by rule, resource, clever_id"  # noqa: S608  (our own names)
_COMPARE_ALL = f"""
    create temporary table {_CHANGES} on commit drop as
    with found as ({_COPIED}),

    last as (select rule, resource, clever_id, records from ops.finding_records where district_id = :district_id)
    select rule, resource, clever_id, coalesce(found.records, 0) as records
    from found
    full join last using (rule, resource, clever_id)
    where found.records is distinct from last.records
"""  # noqa: S608
_COMPARE_SUBSET = f"""
    create temporary table {_CHANGES} on commit drop as
    with counted as (
        select rule, resource, clever_id, 1 as records from {FOUND}
        union all
        select rule, resource, clever_id, -records from {_BASELINE} where rule <> all(:complete)
        union all
        select rule, resource, clever_id, -records from ops.finding_records where district_id = :district_id and rule = any(:complete)
    ),

    differences as (
        select rule, resource, clever_id, sum(records) as more from counted group by rule, resource, clever_id having sum(records) <> 0
    )
    select rule, resource, clever_id, cast(coalesce(last.records, 0) + more as integer) as records
    from differences
    left join (select * from ops.finding_records where district_id = :district_id) as last using (rule, resource, clever_id)
"""  # noqa: S608
_WRITE = (
    f"""
    delete from ops.finding_records as last using {_CHANGES} as new
    where
        last.district_id = :district_id
        and (last.rule, last.resource, last.clever_id) = (new.rule, new.resource, new.clever_id)
        and new.records = 0
    """,  # noqa: S608
    f"""
    insert into ops.finding_records (district_id, rule, resource, clever_id, records)
    select :district_id, rule, resource, clever_id, records from {_CHANGES} where records > 0
    on conflict (district_id, rule, resource, clever_id) do update set records = excluded.records
    """,  # noqa: S608
)
_REMEMBER = """
    insert into ops.audited (district_id, sync_id) values (:district_id, :sync_id)
    on conflict (district_id) do update set sync_id = excluded.sync_id
"""


def run_audits(context: PlanningContext) -> dict[str, int]:
    """Run the audits. Returns the number of offending records, by audit; also audits with none."""
    context.connection.exec_driver_sql(f"create temporary table {FOUND} (rule text, resource text, clever_id text) on commit drop")
    found = {}
    for model in context.models.of("audits"):
        step = context.runner.audit(model)
        found[model.table] = step.rows
        context.on_step(step)
    return found


def copied(context: PlanningContext) -> bytes:
    """What the audits of this plan returned, for `compare_subset`. It survives the end of the plan's transaction."""
    with psycopg_connection(context.connection).cursor() as cursor, cursor.copy(f"copy ({_COPIED}) to stdout".encode()) as copy:
        return b"".join(copy)


def compare_subset(context: PlanningContext, baseline: bytes, complete: Collection[str]) -> bool:
    """Compare the findings of the new plan with the stored ones, in an incremental plan.

    Args:
        baseline: the findings of the baseline plan (`copied`).
        complete: audits that have returned all records of the district, not only those of the subset.

    Returns:
        Whether the three fit. If not, the stored findings are not those of the last plan, and a full plan is needed.
    """
    context.connection.exec_driver_sql(
        f"create temporary table {_BASELINE} (rule text, resource text, clever_id text, records integer) on commit drop"
    )
    into = sql.SQL("copy {} from stdin").format(sql.Identifier("pg_temp", "subset.findings"))
    with psycopg_connection(context.connection).cursor() as cursor, cursor.copy(into) as copy:
        copy.write(baseline)
    context.connection.execute(sa.text(_COMPARE_SUBSET), {"district_id": context.district_id, "complete": list(complete)})
    return not context.connection.exec_driver_sql(f"select exists (select from {_CHANGES} where records < 0)").scalar_one()  # noqa: S608


def compare_all(context: PlanningContext) -> None:
    """Compare the findings of a full plan with the stored ones."""
    context.connection.execute(sa.text(_COMPARE_ALL), {"district_id": context.district_id})


def record_findings(context: PlanningContext) -> int:
    """Store what has been compared. Returns the number of rows that differed."""
    context.connection.exec_driver_sql(f"analyze {_CHANGES}")
    written = sum(context.connection.execute(sa.text(each), {"district_id": context.district_id}).rowcount for each in _WRITE)
    repeat_findings(context)
    return written


def repeat_findings(context: PlanningContext) -> None:
    """The stored findings are those of this sync too."""
    context.connection.execute(sa.text(_REMEMBER), {"district_id": context.district_id, "sync_id": context.sync_id})
