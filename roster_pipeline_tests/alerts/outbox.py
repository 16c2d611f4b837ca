"""Districts, syncs and alerts written straight into the database, for tests of what becomes of alerts.

Does not belong here: alerts that a real sync causes (`test_causes.py`).
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from roster_pipeline.alerts.delivery import DeliveryReport, deliver
from roster_pipeline.alerts.outbox import Kind, record_alert
from roster_pipeline.database.engine import Database
from roster_pipeline.settings import Settings

NINE = datetime(2026, 1, 15, 5, 0, tzinfo=UTC)  # 21:00 in Los Angeles
MIDNIGHT = NINE + timedelta(hours=3)
MORNING = NINE + timedelta(hours=9)  # 06:00
NOON = NINE + timedelta(hours=15)


class Outbox:
    """A database with districts, and where its alerts go.

    Attributes:
        urls: Apprise URLs.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.urls: list[str] = []

    @property
    def settings(self) -> Settings:
        """With these URLs."""
        return Settings(_env_file=None, roster_alert_urls=",".join(self.urls) or None, roster_ui_url="http://ui.example")

    def district(self, profile: str = "typing_agent", *, recorded_at: datetime = NINE - timedelta(days=9)) -> int:
        """An active district; returns its id. Its Clever id is `d` and that id."""
        insert = """
            insert into app.districts (clever_id, name, domain, profile, status, updated_at)
            values (gen_random_uuid()::text, 'D', 'd.example', :profile, 'active', :at) returning district_id
        """
        district_id = int(self.rows(insert, profile=profile, at=recorded_at)[0][0])
        self.execute("update app.districts set clever_id = 'd' || district_id where district_id = :id", id=district_id)
        return district_id

    def sync(self, district_id: int, ended_at: datetime | None, status: str = "failed", **columns: Any) -> int:
        """A sync that the schedule started, a minute before it ended; None: it has not ended. Returns its id."""
        values = {"district_id": district_id, "trigger": "scheduled", "requested_role": None, "status": status, **columns}
        if ended_at is not None:
            values |= {"started_at": ended_at - timedelta(minutes=1), "finished_at": ended_at}
        insert = f"insert into ops.syncs ({', '.join(values)}) values ({', '.join(':' + each for each in values)}) returning sync_id"
        return int(self.rows(insert, **values)[0][0])

    def note(self, at: datetime, *, urgent: bool = True, kind: Kind = "hold_opened", occasion: int | None = None, **more: Any) -> None:
        """An alert of its own, or the one of that occasion."""
        number = occasion if occasion is not None else self.value("select count(*) from ops.alerts")
        with self.database.engine.begin() as connection:
            record_alert(connection, kind, number, now=at, is_urgent=urgent, facts=more.pop("facts", {"hold_id": number}), **more)

    def failed(self, district_id: int, at: datetime, *, urgent: bool = False) -> int:
        """A failed sync and its alert."""
        sync_id = self.sync(district_id, at)
        facts = {"message": "Clever cannot be reached."}
        self.note(at, urgent=urgent, kind="sync_failed", occasion=sync_id, district_id=district_id, sync_id=sync_id, facts=facts)
        return sync_id

    def deliver(self, at: datetime) -> DeliveryReport:
        """One round of delivery."""
        return deliver(self.database, self.settings, now=at)

    def rows(self, query: str, **parameters: Any) -> Sequence[Any]:
        """The rows of a statement, as tuples."""
        with self.database.engine.begin() as connection:
            return [tuple(row) for row in connection.execute(text(query), parameters)]

    def execute(self, statement: str, **parameters: Any) -> None:
        """A statement that returns nothing."""
        with self.database.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    def value(self, query: str, **parameters: Any) -> Any:
        """The one value of a query."""
        return self.rows(query, **parameters)[0][0]

    @property
    def open(self) -> int:
        """How many alerts not every receiver has accepted."""
        return int(self.value("select count(*) from ops.alerts where closed_at is null"))
