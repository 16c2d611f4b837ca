"""The outbox: one row per event, written in the transaction of what it reports, so that neither exists without the other.

Belongs here: writing `ops.alerts`. Does not belong here: the words (`messages.py`) and the sending (`delivery.py`).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from roster_pipeline.database.tables import alerts

Kind = Literal[
    "sync_failed", "hold_opened", "licenses_crossed", "data_quality", "district_silent", "connected", "disconnected", "run_failed"
]


def record_alert(
    connection: Connection,
    kind: Kind,
    occasion: int | str,
    *,
    now: datetime,
    district_id: int | None = None,
    sync_id: int | None = None,
    facts: Mapping[str, Any] | None = None,
    is_urgent: bool = True,
) -> None:
    """Note an event to tell; one that was noted before is not told again.

    Args:
        kind: what happened.
        occasion: which one of its kind, such as the hold's id: `kind:occasion` is told once for ever.
        facts: JSON of ids and counts, never a value from a roster.
        is_urgent: send at once; otherwise with the digest of the night.
    """
    values = {
        "event": f"{kind}:{occasion}",
        "kind": kind,
        "district_id": district_id,
        "sync_id": sync_id,
        "facts": dict(facts or {}),
        "is_urgent": is_urgent,
        "created_at": now,
    }
    connection.execute(pg.insert(alerts).values(values).on_conflict_do_nothing(index_elements=["event"]))
