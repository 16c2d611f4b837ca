"""The metadata that a finished sync reports for each asset: numbers, which Dagster plots per district, and small tables. Ids and counts
only (SPEC 12).

Belongs here: counting what is in the tables after the sync: the rows that the application sees, and the decisions. Does not belong here:
the definitions (`assets.py`, `checks.py`), and making decisions.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.migrate import lasting_table
from roster_pipeline.database.tables import APPLIED, syncs
from roster_pipeline.source.vocabulary import Collection as Pulled
from roster_pipeline.support.readiness import QUESTIONS
from roster_pipeline.sync.plan import IN_WINDOW

if TYPE_CHECKING:
    from roster_pipeline.sync.run import SyncReport

Metadata = dict[str, int | float | str | bool | dg.TableMetadataValue]

# All decisions and actions are reported, also with 0: a night without a number would be a gap in its plot. A test compares both lists
# with the values in the database.
DECISIONS = ("link", "adopt", "relink", "create", "protected", "deactivated", "relink_deactivated", "frozen", "held", "none")
ACTIONS = {
    "users": ("create", "update", "restore", "soft_delete", "adopt", "relink"),
    "user_roles": ("role_gain", "role_loss"),
}
_ACTIONS = ("create", "update", "restore", "soft_delete")

# The first asset of every sync reports the numbers of the whole sync.
WHOLE_SYNC_AT = "clever.districts"
# First part of a step's name -> the part of the sync that the step belongs to. All other steps make the plan.
_PARTS = {
    "clever": "pull_seconds",
    "audits": "audit_seconds",
    "ops": "apply_seconds",
    "app": "apply_seconds",
    "keep staging": "apply_seconds",
    "keep reconcile": "apply_seconds",
}

# What keeps a row in a window of additions only (R14.3).
_DEFERRED = "additions_only"

# Tables in metadata show a sample. The full data is in the table that the asset is named after, and in `roster holds`.
SHOWN_ROWS = 100
# The last syncs of one district: two weeks of nights.
COMPARED = 14


@dataclass(frozen=True)
class Numbers:
    """What is in the tables after a sync, read once for all assets.

    Attributes:
        whole: metadata about the sync as a whole.
        active: rows that the application sees, by table; only tables with soft deletes.
        rows: rows that the sync built or wrote, by table; only the other tables.
        decisions: metadata about the decisions, by table.
    """

    whole: Metadata
    active: Mapping[str, int]
    rows: Mapping[str, int]
    decisions: Mapping[str, Metadata]


def is_accepted(report: "SyncReport") -> bool:
    """Whether the snapshot was accepted. If a first sync waits for approval (R7.6), it is held, and none of its steps writes to `app`."""
    return report.status == "successful" or any(step.name.startswith("app.") for step in report.steps)


def read_numbers(report: "SyncReport", connection: Connection, tables: Mapping[str, Collection[str]]) -> Numbers:
    """Read what is in these tables (`schema.table` -> columns) after a sync."""
    district_id = report.district.district_id
    active, rows = {}, {step.name: step.rows for step in report.steps}
    for name, columns in tables.items():
        table = lasting_table(name)
        ours = table.c.district_id == district_id
        if "deleted_at" in columns:
            active[name] = _count(connection, table, ours, table.c.deleted_at.is_(None))
        elif name not in rows or ("touched" in report.counts and not name.startswith("ops.")):
            # The sync of an unchanged district makes no plan, and an incremental plan builds only the affected subset. The tables have all
            # rows of the district.
            rows[name] = _count(connection, table, ours, table.c.sync_id == report.sync_id if name.startswith("ops.") else sa.true())
    return Numbers(whole_sync(report, connection), active, rows, _decisions(connection, district_id))


def whole_sync(report: "SyncReport", connection: Connection) -> Metadata:
    """Time and memory of a sync as a whole, and the district's last syncs to compare it with, because Dagster plots all districts in one
    line."""
    # `finished_at` is written in the sync's own transaction, so it does not include the time of the commit.
    # Without requests that were answered or skipped: those are no syncs. A failed row can have ended before it began.
    began = sa.func.coalesce(syncs.c.started_at, syncs.c.requested_at).label("began")
    ours = sa.and_(syncs.c.district_id == report.district.district_id, syncs.c.sync_id <= report.sync_id)
    query = (
        sa.select(syncs.c.sync_id, began, syncs.c.finished_at, syncs.c.status, syncs.c.counts["changes"].label("changes"))
        .where(ours, syncs.c.status.in_([*APPLIED, "failed"]))
        .order_by(syncs.c.sync_id.desc())
        .limit(COMPARED)
    )
    last = [
        {
            "sync_id": row["sync_id"],
            "began": f"{row['began']:%Y-%m-%d %H:%M} UTC",
            "status": row["status"],
            "seconds": round((row["finished_at"] - row["began"]).total_seconds(), 3),
            "rows_written": sum(sum(actions.values()) for actions in (row["changes"] or {}).values()),
        }
        for row in _rows(connection, query)
    ]
    columns = {"sync_id": "int", "began": "string", "status": "string", "seconds": "float", "rows_written": "int"}
    numbers = _pulled("districts", report) | _times(report, last[0]["seconds"]) | _window(report)
    return numbers | {"last_syncs": table(last, columns)}


def _window(report: "SyncReport") -> Metadata:
    """The window that was on, and what it made the sync count (R14.6)."""
    window = report.counts.get("window")
    if window is None:
        return {}
    text = f"{window['kind']} through the night of {window['last_night']} (window {window['window_id']})"
    return {"window": text, **{each: report.counts[each] for each in IN_WINDOW if each in report.counts}}


def metadata_of(name: str, report: "SyncReport", numbers: Numbers) -> Metadata:
    """The metadata of the materialization of one asset (`schema.table`)."""
    metadata: Metadata = {"sync_id": str(report.sync_id)}  # text, because Dagster plots numbers
    layer, table = name.split(".")
    if layer == "clever":
        return metadata | (numbers.whole if name == WHOLE_SYNC_AT else _pulled(table, report))
    metadata["seconds"] = round(sum((step.seconds for step in report.steps if step.name == name), 0.0), 3)
    if name in numbers.active:
        changes = dict.fromkeys(ACTIONS.get(table, _ACTIONS), 0) | report.counts["changes"].get(table, {})
        return metadata | {"dagster/row_count": numbers.active[name], "rows_written": sum(changes.values()), **changes}
    metadata |= {"rows_written" if layer in ("app", "ops") else "dagster/row_count": numbers.rows[name]}
    if name == "reconcile.user_matches":
        metadata |= _people(report.counts["people"])
    return metadata | numbers.decisions.get(name, {})


def _decisions(connection: Connection, district_id: int) -> dict[str, Metadata]:
    """The decisions of the district's last plan, by table of `reconcile`."""
    return {
        "reconcile.soft_deletes": _soft_deletes(connection, district_id),
        "reconcile.license_reconciliation": _licenses(connection, district_id),
        "reconcile.readiness": _readiness(connection, district_id),
    }


def table(records: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> dg.TableMetadataValue:
    """The first SHOWN_ROWS records as a table with these columns (name -> type)."""
    shown = [dg.TableRecord({column: record[column] for column in columns}) for record in records]
    return dg.TableMetadataValue(shown[:SHOWN_ROWS], dg.TableSchema([dg.TableColumn(name, type) for name, type in columns.items()]))


def _people(people: Mapping[str, int]) -> Metadata:
    """The number of people by decision, and by decision and rule. The keys of `people` are `decision: rule`."""
    numbers = dict.fromkeys(DECISIONS, 0)
    rows = []
    for name, count in sorted(people.items(), key=lambda each: -each[1]):
        decision, rule = name.split(": ")
        numbers[decision] += count
        rows.append({"decision": decision, "rule": rule, "people": count})
    return {**numbers, **people, "decisions": table(rows, {"decision": "string", "rule": "string", "people": "int"})}


def _soft_deletes(connection: Connection, district_id: int) -> Metadata:
    """The number of soft-deleted, held and deferred rows, by table, and for users by role. A user with two roles counts for both."""
    removed, users, roles = lasting_table("reconcile.soft_deletes"), lasting_table("app.users"), lasting_table("app.user_roles")
    fate = sa.case((removed.c.held_by.is_(None), "soft_delete"), (removed.c.held_by == _DEFERRED, "deferred"), else_="held").label("fate")
    ours = removed.c.district_id == district_id
    by_reason = _rows(
        connection,
        sa.select(removed.c.entity, removed.c.reason, removed.c.held_by, sa.func.count().label("rows"))
        .where(ours)
        .group_by(removed.c.entity, removed.c.reason, removed.c.held_by)
        .order_by(sa.desc("rows"), removed.c.entity, removed.c.reason, removed.c.held_by),
    )
    by_role = _rows(
        connection,
        sa.select(roles.c.role, fate, sa.func.count(removed.c.entity_id.distinct()).label("rows"))
        .join(users, users.c.user_id == removed.c.entity_id)
        .join(roles, sa.and_(roles.c.district_id == removed.c.district_id, roles.c.user_id == removed.c.entity_id))
        # Roles that were active when the plan was made: they are active now, or were soft-deleted together with the user.
        .where(ours, removed.c.entity == "users", sa.or_(roles.c.deleted_at.is_(None), roles.c.deleted_at == users.c.deleted_at))
        .group_by(roles.c.role, fate),
    )
    entities, people = ("users", "classrooms", "schools"), ("student", "teacher", "school_admin", "district_admin")
    numbers = {f"{what}: {each}": 0 for what in (*entities, *people) for each in ("soft_delete", "held", "deferred")}
    for row in by_reason:
        what = "soft_delete" if row["held_by"] is None else "deferred" if row["held_by"] == _DEFERRED else "held"
        numbers[f"{row['entity']}: {what}"] += row["rows"]
    return {
        **numbers,
        **{f"{row['role']}: {row['fate']}": row["rows"] for row in by_role},
        "removed": table(by_reason, {"entity": "string", "reason": "string", "held_by": "string", "rows": "int"}),
    }


def _licenses(connection: Connection, district_id: int) -> Metadata:
    """The district's seats as numbers, and a table with the schools that have their own licenses, the fullest first."""
    licenses = lasting_table("reconcile.license_reconciliation")
    c = licenses.c
    rows = _rows(
        connection,
        sa.select(
            c.scope, c.school_id, c.licenses, c.used, (c.used - c.without_seat).label("licensed"), c.without_seat.label("waiting"), c.held,
            c.is_over,
        )
        .where(c.district_id == district_id)
        .order_by(c.scope != "district", (c.used + c.held - c.licenses).desc(), c.scope),
    )  # fmt: skip
    district = rows[0]
    seats = ("used", "licensed", "waiting", "held")
    numbers: Metadata = {each: district[each] for each in seats}
    if district["licenses"] is not None:
        numbers["licenses"] = district["licenses"]
    return {
        **numbers,
        "is_over": int(district["is_over"]),
        "schools_over": sum(row["is_over"] for row in rows[1:]),
        "seats": table(rows, {"scope": "string", "school_id": "int", "licenses": "int", **dict.fromkeys(seats, "int")}),
    }


def _readiness(connection: Connection, district_id: int) -> Metadata:
    """The numbers of the readiness report, and a table with its labels. It has no names of schools: `roster readiness` shows them."""
    readiness = lasting_table("reconcile.readiness")
    query = sa.select(readiness.c.topic, readiness.c.item, readiness.c.count).where(readiness.c.district_id == district_id)
    counts = {(row["topic"], row["item"]): row["count"] for row in _rows(connection, query)}
    lines = [(topic, item, line) for topic, question in QUESTIONS.items() for item, line in question.items.items()]
    rows = [{"topic": topic, "what": line.label, "count": counts[topic, item]} for topic, item, line in lines]
    return {
        **{f"{topic}: {item}": counts[topic, item] for topic, item, _ in lines},
        "report": table(rows, {"topic": "string", "what": "string", "count": "int"}),
    }


def _times(report: "SyncReport", seconds: float) -> Metadata:
    """Seconds of the whole sync, and of its parts as sums of their steps. Time between steps counts for the whole sync only."""
    parts = dict.fromkeys(("pull_seconds", "plan_seconds", "audit_seconds", "apply_seconds"), 0.0)
    for step in report.steps:
        parts[_PARTS.get(step.name.split(".")[0], "plan_seconds")] += step.seconds
    rounded = {name: round(value, 3) for name, value in {"sync_seconds": seconds, **parts}.items()}
    return {**rounded, "peak_mb": max(step.peak_mb for step in report.steps)}


def _count(connection: Connection, table: sa.TableClause, *conditions: sa.ColumnElement[bool]) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(table).where(*conditions)).scalar_one())


def _rows(connection: Connection, query: sa.Select[Any]) -> Sequence[Mapping[str, Any]]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _pulled(resource: str, report: "SyncReport") -> Metadata:
    if resource == "districts":
        cost: Mapping[str, Any] = report.counts["pull"]
        numbers = {each: value for each, value in cost.items() if isinstance(value, int | float)}
        return {**numbers, "moved_during_pull": int(report.counts["moved_during_pull"]), "dagster/row_count": 1}
    walked = {f"clever.{each}": each.value for each in Pulled if each.resource == resource}
    steps = [step for step in report.steps if step.name in walked]
    parts = {walked[step.name]: step.rows for step in steps} if len(steps) > 1 else {}
    return {"dagster/row_count": sum(step.rows for step in steps), "seconds": round(sum(step.seconds for step in steps), 3), **parts}
