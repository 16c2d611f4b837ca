"""What about a sync is worth an alert (R11.8), noted in the transaction of the sync's end.

Belongs here: which ends, holds, licenses and findings are news. Does not belong here: the outbox and the words (`alerts/`), and what is
to be said of districts that did not sync at all.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline import contracts
from roster_pipeline.alerts.outbox import record_alert
from roster_pipeline.brake_kinds import LICENSES
from roster_pipeline.database.models import Models
from roster_pipeline.database.tables import holds

_OVER = sa.text("select scope from reconcile.license_reconciliation where district_id = :district_id and is_over")
_LICENSES = sa.text(
    "select scope, licenses, used, without_seat, held from reconcile.license_reconciliation "
    "where district_id = :district_id and is_over order by scope"
)


def scopes_over_licenses(connection: Connection, district_id: int) -> set[str]:
    """`district`, or Clever ids of schools, that the district's last plan found over their licenses."""
    return set(connection.execute(_OVER, {"district_id": district_id}).scalars())


def alert_plan(
    connection: Connection,
    models: Models,
    *,
    district_id: int,
    sync_id: int,
    counts: Mapping[str, Any],
    previous: Mapping[str, Any],
    were_over: set[str],
    is_urgent: bool,
    now: datetime,
) -> None:
    """Note what is new in a plan that has been carried out or held.

    Args:
        counts: of this sync, as in `ops.syncs.counts`.
        previous: those of the applied sync before it; empty for the first.
        were_over: what was over its licenses before this plan.
    """
    about: dict[str, Any] = {"district_id": district_id, "sync_id": sync_id, "is_urgent": is_urgent, "now": now}
    opened = connection.execute(sa.select(holds).where(holds.c.sync_id == sync_id).order_by(holds.c.hold_id)).mappings().all()
    for hold in opened:
        facts = {name: hold[name] for name in ("hold_id", "school_id", "role") if hold[name] is not None}
        record_alert(connection, "hold_opened", hold["hold_id"], facts={"hold": hold["kind"], **facts, **hold["counts"]}, **about)
    over = [dict(row) for row in connection.execute(_LICENSES, {"district_id": district_id}).mappings()]
    # The policy `hold` tells of the same students with its hold.
    if not any(hold["kind"] == LICENSES.name for hold in opened) and any(row["scope"] not in were_over for row in over):
        record_alert(connection, "licenses_crossed", sync_id, facts={"scopes": over}, **about)
    if worse := _worse(_errors(models, counts), _errors(models, previous)):
        record_alert(connection, "data_quality", sync_id, facts={"rules": worse}, **about)


def alert_failures(connection: Connection, failed: Sequence[Mapping[str, Any]], *, now: datetime) -> None:
    """Note syncs that failed. `failed` are rows of `ops.syncs`; their messages hold ids and counts only."""
    for row in failed:
        record_alert(
            connection,
            "sync_failed",
            row["sync_id"],
            district_id=row["district_id"],
            sync_id=row["sync_id"],
            facts={"message": row["message"]},
            # What the schedule started, nobody waits for: that is told with the night's digest.
            is_urgent=row["requested_role"] is not None,
            now=now,
        )


def _errors(models: Models, counts: Mapping[str, Any]) -> dict[str, int]:
    """The rules of severity error that records broke, with how many."""
    rules = {f"{rule.resource}.{rule.name}" for rule in contracts.rules() if rule.severity == "error"}
    audits = {audit.table for audit in models.of("audits") if audit.severity == "error"}
    found = {name: rows for name, rows in counts.get("findings", {}).items() if name in rules}
    return found | {name: rows for name, rows in counts.get("audits", {}).items() if name in audits and rows}


def _worse(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """What is broken more often than before: the same bad rows are told once, not every night."""
    return {name: rows for name, rows in now.items() if rows > before.get(name, 0)}
