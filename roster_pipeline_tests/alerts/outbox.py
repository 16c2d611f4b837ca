"""Districts, syncs and alerts, written directly to the database for the tests of delivery.

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
    """A database with districts, and the URLs that its alerts are sent to.

    Attributes:
        urls: Apprise URLs.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.urls: list[str] = []

    @property
    def settings(self) -> Settings:
        """Settings with `urls`."""
        return Settings(_env_file=None, roster_alert_urls=",".join(self.urls) or None, roster_ui_url="http://ui.example")

    def district(self, profile: str = "typing_agent", *, recorded_at: datetime = NINE - timedelta(days=9)) -> int:
        """Add an active district. Returns its id; its Clever id is `d` followed by that id."""
        insert = """
            insert into app.districts (clever_id, name, domain, profile, status, active_since)
            values (gen_random_uuid()::text, 'D', 'd.example', :profile, 'active', :at) returning district_id
        """
        district_id = int(self.rows(insert, profile=profile, at=recorded_at)[0][0])
        self.execute("update app.districts set clever_id = 'd' || district_id where district_id = :id", id=district_id)
        return district_id

    def sync(self, district_id: int, ended_at: datetime | None, status: str = "failed", **columns: Any) -> int:
        """Add a sync that the schedule started. It took a minute; `ended_at` is None if it has not ended. Returns its id."""
        values = {"district_id": district_id, "trigger": "scheduled", "requested_role": None, "status": status, **columns}
        if ended_at is not None:
            values |= {"started_at": ended_at - timedelta(minutes=1), "finished_at": ended_at}
        insert = f"insert into ops.syncs ({', '.join(values)}) values ({', '.join(':' + each for each in values)}) returning sync_id"
        return int(self.rows(insert, **values)[0][0])

    def record(self, at: datetime, *, urgent: bool = True, kind: Kind = "hold_opened", occasion: int | None = None, **more: Any) -> None:
        """Record an alert of that occasion, or of a new one."""
        number = occasion if occasion is not None else self.value("select count(*) from ops.alerts")
        with self.database.engine.begin() as connection:
            record_alert(connection, kind, number, now=at, is_urgent=urgent, facts=more.pop("facts", {"hold_id": number}), **more)

    def failed(self, district_id: int, at: datetime, *, urgent: bool = False) -> int:
        """Add a failed sync and its alert. Returns the sync's id."""
        sync_id = self.sync(district_id, at)
        facts = {"message": "Clever cannot be reached."}
        self.record(at, urgent=urgent, kind="sync_failed", occasion=sync_id, district_id=district_id, sync_id=sync_id, facts=facts)
        return sync_id

    def deliver(self, at: datetime) -> DeliveryReport:
        """Run one round of delivery."""
        return deliver(self.database, self.settings, now=at)

    def rows(self, query: str, **parameters: Any) -> Sequence[Any]:
        """The rows of a statement, as tuples."""
        with self.database.engine.begin() as connection:
            return [tuple(row) for row in connection.execute(text(query), parameters)]

    def execute(self, statement: str, **parameters: Any) -> None:
        """Run a statement that returns nothing."""
        with self.database.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    def value(self, query: str, **parameters: Any) -> Any:
        """The one value of a query."""
        return self.rows(query, **parameters)[0][0]

    @property
    def open(self) -> int:
        """How many alerts are open: at least one receiver has not accepted them."""
        return int(self.value("select count(*) from ops.alerts where closed_at is null"))
