"""The outbox: one row per event, written in the transaction of the event, so that neither is committed without the other.

Belongs here: writing `ops.alerts`. Does not belong here: the text (`messages.py`) and the delivery (`delivery.py`).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from roster_pipeline.database.tables import alerts

Kind = Literal[
    "sync_failed",
    "hold_opened",
    "licenses_crossed",
    "data_quality",
    "district_silent",
    "connected",
    "disconnected",
    "run_failed",
    "connections_doubtful",
    "tokens_unusable",
    "district_in_error",
    "window",
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
    """Record an alert for an event. An event that has an alert already gets no second one.

    Args:
        kind: what happened.
        occasion: identifies the event within its kind, such as the hold's id. `kind:occasion` gets one alert, ever.
        facts: ids and counts, to be stored as JSON; never a value from a roster.
        is_urgent: send it at once; otherwise it waits for the digest of the night.
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
