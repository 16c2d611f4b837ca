"""`roster status`: recent syncs, and when each district syncs next. `--watch` keeps it up to date."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import click
from sqlalchemy import Connection

from roster_pipeline.alerts.delivery import try_to_deliver
from roster_pipeline.commands.environment import current_database, read_settings
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.database.clock import database_time
from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.districts.agreement import all_districts, find_district
from roster_pipeline.districts.nights import PACIFIC, next_scheduled_at
from roster_pipeline.districts.windows import windows_at
from roster_pipeline.fleet.recovery import mark_crashed_syncs
from roster_pipeline.sync import ledger
from roster_pipeline.visible import visible

WATCH_SECONDS = 2


@click.command()
@click.argument("district", required=False)
@click.option("--watch", is_flag=True, help="Print again whenever something changes, until Ctrl-C.")
@json_option
def status(district: str | None, *, watch: bool, as_json: bool) -> None:
    """Show the 20 newest syncs, of one DISTRICT or of all, how they ended, and when the next ones start.

    Queued requests are shown even if they are older. With --watch, --json prints one document a line.

    Example: roster status 67ee1af60978174923afab13
    """
    with current_database() as database, translate_database_errors(), database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        if not watch:
            document = _document(connection, district)
            _show(document, as_json=as_json)
            _deliver(database, document)
            return
        shown: Mapping[str, Any] | None = None
        try:
            while True:
                document = _document(connection, district)
                if document != shown:
                    if not as_json:
                        click.clear()  # only a terminal; a file or a pipe gets one page after the other
                    _show(document, as_json=as_json)
                    _deliver(database, document)
                # The crashed syncs are reported once. The next document has 0 there, and that alone is no reason to print again.
                shown = {**document, "marked_as_failed": 0}
                time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            return


def _deliver(database: Database, document: Mapping[str, Any]) -> None:
    """The process that ends a sync delivers its alert (R11.8)."""
    if document["marked_as_failed"]:
        try_to_deliver(database, read_settings())


def _document(connection: Connection, reference: str | None) -> dict[str, Any]:
    now = database_time(connection)
    crashed = mark_crashed_syncs(connection, now=now)
    only = find_district(connection, reference).district_id if reference is not None else None
    every = all_districts(connection)
    clever_ids = {each.district_id: each.clever_id for each in every}
    successes, on = ledger.last_successes(connection), windows_at(connection, now)
    return {
        "marked_as_failed": crashed,
        "syncs": [{**row, "district": clever_ids.get(row["district_id"])} for row in ledger.recent(connection, district_id=only)],
        "districts": [
            {
                "district": each.clever_id,
                "district_id": each.district_id,
                "status": each.status,
                "next_scheduled_at": next_scheduled_at(each, now),
                "last_success_at": successes.get(each.district_id),
                "window": on[each.district_id].facts if each.district_id in on else None,
            }
            for each in every
            if only in (None, each.district_id)
        ],
    }


def _show(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    if document["marked_as_failed"]:
        click.echo(f"{document['marked_as_failed']} sync(s) had crashed and are now marked as failed.")
    if document["syncs"]:
        _show_syncs(document["syncs"])
    else:
        click.echo("No sync yet. `roster sync DISTRICT` runs the first.")
    _show_districts(document["districts"])


def _show_syncs(syncs: Sequence[Mapping[str, Any]]) -> None:
    rows = [(row["sync_id"], row["district"], row["trigger"], row["status"], row["started_at"] or row["requested_at"]) for row in syncs]
    print_table(("Sync", "District", "Trigger", "Status", "Began (UTC)"), rows)
    for row in syncs:
        requester = f", requested by {visible(row['requested_by'])}" if row["requested_by"] else ""
        if row["message"]:
            click.echo(f"Sync {row['sync_id']}{requester}: {visible(row['message'])}")
        elif requester:
            click.echo(f"Sync {row['sync_id']}{requester}.")
    if queued := sum(row["status"] == "queued" for row in syncs):
        click.echo(f"Queued requests: {queued}.")


def _show_districts(districts: Sequence[Mapping[str, Any]]) -> None:
    """Prints the next nightly sync, in Los Angeles time and in UTC. For many districts it is the soonest."""
    if due := [each for each in districts if each["next_scheduled_at"] is not None]:
        soonest = min(each["next_scheduled_at"] for each in due)
        many = f" ({sum(each['next_scheduled_at'] == soonest for each in due)} of {len(districts)} districts)" if len(districts) > 1 else ""
        click.echo(f"Next nightly sync{many}: {soonest.astimezone(PACIFIC):%Y-%m-%d %H:%M} in Los Angeles, {soonest:%H:%M} UTC.")
    for kind, last_night, number in _windows(districts):
        where = f" in {number} of {len(districts)} districts" if len(districts) > 1 else ""
        click.echo(f"A window is on{where}: {kind} through the night of {last_night}. `roster window list` says why.")
    if len(districts) == 1 and (ended := districts[0]["last_success_at"]) is not None:
        click.echo(f"Last success: {ended:%Y-%m-%d %H:%M} UTC.")


def _windows(districts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """Kind and last night of the windows that are on, and in how many districts."""
    found = Counter((each["window"]["kind"], each["window"]["last_night"]) for each in districts if each["window"] is not None)
    return [(kind, last_night, number) for (kind, last_night), number in sorted(found.items())]
