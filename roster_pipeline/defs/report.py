"""What a finished sync says at each asset: plain numbers, which Dagster plots per district. Counts only (SPEC 12).

Does not belong here: the definitions (`assets.py`, `checks.py`) and counting anything itself, except the rows the application sees.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.clever.records import Collection as Pulled

if TYPE_CHECKING:
    from roster_pipeline.sync.run import SyncReport

Numbers = dict[str, int | float | str | bool]


def is_accepted(report: "SyncReport") -> bool:
    """Whether the snapshot was accepted; a first sync that waits for approval as a whole (R7.6) runs no step that writes to `app`."""
    return any(step.name.startswith("app.") for step in report.steps)


def metadata_of(name: str, report: "SyncReport", active: Mapping[str, int]) -> Numbers:
    """The metadata of one asset's materialization.

    Args:
        name: `schema.table` of the asset.
        active: rows the application sees, by table of `app` (`active_rows`).
    """
    numbers: Numbers = {"sync_id": str(report.sync_id)}  # as text: a number would be plotted
    layer, table = name.split(".")
    if layer == "clever":
        return numbers | _pulled(table, report)
    step = next(step for step in report.steps if step.name == name)
    numbers["seconds"] = round(step.seconds, 3)
    if name in active:
        changes: Mapping[str, int] = report.counts["changes"].get(table, {})
        return numbers | {"dagster/row_count": active[name], "rows_written": sum(changes.values()), **changes}
    numbers |= {"rows_written" if layer in ("app", "ops") else "dagster/row_count": step.rows}
    return numbers | (report.counts["people"] if name == "reconcile.user_matches" else {})


def active_rows(connection: Connection, district_id: int, tables: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Rows of a district that are not soft-deleted, by those of the tables (with their columns) that soft-delete."""
    counts = {}
    for name, columns in tables.items():
        if "deleted_at" in columns:
            schema, table = name.split(".")
            rows = sa.table(table, sa.column("district_id"), sa.column("deleted_at"), schema=schema)
            query = sa.select(sa.func.count()).select_from(rows).where(rows.c.district_id == district_id, rows.c.deleted_at.is_(None))
            counts[name] = int(connection.execute(query).scalar_one())
    return counts


def _pulled(resource: str, report: "SyncReport") -> Numbers:
    if resource == "districts":
        cost: Mapping[str, Any] = report.counts["pull"]
        numbers = {each: value for each, value in cost.items() if isinstance(value, int | float)}
        return {**numbers, "moved_during_pull": int(report.counts["moved_during_pull"]), "dagster/row_count": 1}
    walked = {f"clever.{each}": each.value for each in Pulled if each.resource == resource}
    steps = [step for step in report.steps if step.name in walked]
    parts = {walked[step.name]: step.rows for step in steps} if len(steps) > 1 else {}
    return {"dagster/row_count": sum(step.rows for step in steps), "seconds": round(sum(step.seconds for step in steps), 3), **parts}
