"""`roster status`: the page of recent syncs."""

from datetime import UTC, datetime

import click
import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.commands.environment import current_database
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.database.engine import translate_database_errors
from roster_pipeline.database.lock import district_lock, locked_districts
from roster_pipeline.database.tables import syncs
from roster_pipeline.errors import SyncRunningError
from roster_pipeline.sync import ledger
from roster_pipeline.sync.districts import all_districts, find_district


@click.command()
@click.argument("district", required=False)
@json_option
def status(district: str | None, *, as_json: bool) -> None:
    """Show the 20 newest syncs, of one DISTRICT or of all, and how they ended."""
    with current_database() as database, translate_database_errors(), database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        crashed = mark_crashed_syncs(connection, now=datetime.now(UTC))
        only = find_district(connection, district).district_id if district is not None else None
        clever_ids = {each.district_id: each.clever_id for each in all_districts(connection)}
        recent = ledger.recent(connection, district_id=only)
    if as_json:
        print_json({"marked_as_failed": crashed, "syncs": [{**row, "district": clever_ids.get(row["district_id"])} for row in recent]})
        return
    if crashed:
        click.echo(f"{crashed} sync(s) had been ended by a crash; now marked as failed.")
    if not recent:
        click.echo("No sync yet. `roster sync DISTRICT` makes the first.")
        return
    rows = [
        (row["sync_id"], clever_ids.get(row["district_id"]), row["trigger"], row["status"], row["started_at"] or row["requested_at"])
        for row in recent
    ]
    print_table(("Sync", "District", "Trigger", "Status", "Began (UTC)"), rows)
    for row in recent:
        if row["message"]:
            click.echo(f"Sync {row['sync_id']}: {row['message']}")


def mark_crashed_syncs(connection: Connection, *, now: datetime) -> int:
    """End every `processing` row whose district's lock is free (R11.4). Returns how many there were.

    Args:
        connection: in autocommit.
        now: aware UTC.
    """
    processing = sa.select(syncs.c.district_id).where(syncs.c.status == "processing").distinct()
    stale = set(connection.execute(processing).scalars()) - locked_districts(connection)
    marked = 0
    for district_id in sorted(stale):
        try:
            with district_lock(connection, district_id, str(district_id)):
                marked += ledger.mark_crashed(connection, district_id, now=now)
        except SyncRunningError:
            continue  # A sync has begun since, and marks the row itself.
    return marked
