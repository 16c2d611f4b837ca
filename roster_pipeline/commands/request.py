"""`roster request`: request a sync, which the daemon starts within seconds."""

import click

from roster_pipeline.commands.environment import current_database
from roster_pipeline.commands.output import json_option, print_json
from roster_pipeline.commands.who import NOT_BLANK
from roster_pipeline.database.clock import database_time
from roster_pipeline.database.engine import translate_database_errors
from roster_pipeline.fleet.requests import is_taken_up, request_sync
from roster_pipeline.sync.ledger import Origin

NOBODY = "But nothing has taken up requests for a minute: start `roster dev`, or the service that runs the daemon."


@click.command()
@click.argument("district")
@click.option("--requested-by", required=True, metavar="WHO", type=NOT_BLANK, help="Who requests it; stored with the sync.")
@click.option("--reason", metavar="TEXT", help="Why; stored with the sync.")
@click.option("--role", type=click.Choice(["support", "account_owner"]), default="support", show_default=True, help="On whose behalf.")
@json_option
def request(district: str, requested_by: str, reason: str | None, role: str, *, as_json: bool) -> None:
    """Queue a sync of one DISTRICT; the daemon of `roster dev` starts it within 30 seconds.

    If a request of this district is queued already, no other is made. If a sync of it is running, the exit status is 4.

    Example: roster request 67ee1af60978174923afab13 --requested-by "ticket 4711"
    """
    origin = Origin(requested_by=requested_by, reason=reason, requested_role=role)
    with current_database() as database, translate_database_errors(), database.engine.begin() as connection:
        queued, already = request_sync(connection, district, origin, now=database_time(connection))
        taken_up = is_taken_up(connection)
    if as_json:
        print_json({"sync_id": queued.sync_id, "district": queued.district, "status": "queued", "already_queued": already})
        return
    if already:
        click.echo(f"Sync {queued.sync_id} of district {queued.district} was queued already; it answers this request too.")
    else:
        click.echo(f"Sync {queued.sync_id} of district {queued.district} is queued. `roster status {queued.district} --watch` follows it.")
    if not taken_up:
        click.echo(f"{NOBODY} Or sync it in this process: `roster sync {queued.district}`.", err=True)
