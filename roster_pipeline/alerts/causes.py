"""Which events of a sync are worth an alert (R11.8). The alert is recorded in the transaction that ends the sync.

Belongs here: which results, holds, licenses and findings are worth an alert. Does not belong here: the outbox (`outbox.py`), the text
(`messages.py`), and alerts about districts that did not sync at all (`fleet/freshness.py`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.alerts.outbox import record_alert
from roster_pipeline.brake_kinds import LICENSES
from roster_pipeline.database.models import Models
from roster_pipeline.database.tables import holds
from roster_pipeline.source.protocol import Listing
from roster_pipeline.source.rules import rules

_OVER = sa.text("select scope from reconcile.license_reconciliation where district_id = :district_id and is_over")
_LICENSES = sa.text(
    "select scope, licenses, used, without_seat, held from reconcile.license_reconciliation "
    "where district_id = :district_id and is_over order by scope"
)

# Clever's own word for a district whose data it could not load: until it is fixed, Clever goes on showing the old data.
_IN_ERROR = "error"


def scopes_over_licenses(connection: Connection, district_id: int) -> set[str]:
    """The scopes that the district's last plan found over their licenses: `district`, or a school's Clever id."""
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
    """Record alerts for what is new in a plan that has been applied or held.

    Args:
        counts: the counts of this sync, as in `ops.syncs.counts`.
        previous: the counts of the applied sync before it; empty for the first.
        were_over: the scopes that were over their licenses before this plan.
    """
    about: dict[str, Any] = {"district_id": district_id, "sync_id": sync_id, "is_urgent": is_urgent, "now": now}
    opened = connection.execute(sa.select(holds).where(holds.c.sync_id == sync_id).order_by(holds.c.hold_id)).mappings().all()
    for hold in opened:
        facts = {name: hold[name] for name in ("hold_id", "school_id", "role") if hold[name] is not None}
        record_alert(connection, "hold_opened", hold["hold_id"], facts={"hold": hold["kind"], **facts, **hold["counts"]}, **about)
    over = [dict(row) for row in connection.execute(_LICENSES, {"district_id": district_id}).mappings()]
    # With the policy `hold`, the alert of the hold already reports the same students.
    if not any(hold["kind"] == LICENSES.name for hold in opened) and any(row["scope"] not in were_over for row in over):
        record_alert(connection, "licenses_crossed", sync_id, facts={"scopes": over}, **about)
    if counts.get("clever_state") == _IN_ERROR != previous.get("clever_state"):
        record_alert(connection, "district_in_error", sync_id, facts={"state": _IN_ERROR}, **about)
    if worse := _worse(_errors(models, counts), _errors(models, previous)):
        record_alert(connection, "data_quality", sync_id, facts={"rules": worse}, **about)


def alert_failures(connection: Connection, failed: Sequence[Mapping[str, Any]], *, now: datetime) -> None:
    """Record an alert for each failed sync. `failed` are rows of `ops.syncs`; their messages hold ids and counts only."""
    for row in failed:
        record_alert(
            connection,
            "sync_failed",
            row["sync_id"],
            district_id=row["district_id"],
            sync_id=row["sync_id"],
            facts={name: row[name] for name in ("message", "hint") if row.get(name)},
            # Nobody waits for a sync that the schedule started: it is reported in the digest of the night.
            is_urgent=row["requested_role"] is not None,
            now=now,
        )


def alert_unusable_tokens(connection: Connection, listing: Listing, *, now: datetime) -> None:
    """Record an alert if entries of a listing cannot be used (R3.1), one for each set of such districts and number of unreadable ones."""
    if not listing.without_token and not listing.unreadable:
        return
    without_token = sorted(listing.without_token)
    facts = {"without_token": without_token, "unreadable": listing.unreadable}
    occasion = blake2b(" ".join([*without_token, str(listing.unreadable)]).encode(), digest_size=8).hexdigest()
    record_alert(connection, "tokens_unusable", occasion, now=now, facts=facts)


def _errors(models: Models, counts: Mapping[str, Any]) -> dict[str, int]:
    """The number of failing records, by rule of severity error."""
    errors = {f"{rule.resource}.{rule.name}" for rule in rules().values() if rule.severity == "error"}
    audits = {audit.table for audit in models.of("audits") if audit.severity == "error"}
    found = {name: rows for name, rows in counts.get("findings", {}).items() if name in errors}
    return found | {name: rows for name, rows in counts.get("audits", {}).items() if name in audits and rows}


def _worse(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """The rules with more failing records than before, so that the same records are not reported every night."""
    return {name: rows for name, rows in now.items() if rows > before.get(name, 0)}
