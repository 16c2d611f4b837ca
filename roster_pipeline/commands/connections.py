"""`roster connections`: accept a list of connected districts that was not believed."""

import click

from roster_pipeline.clever.tokens import list_tokens
from roster_pipeline.commands.environment import current_database, read_settings
from roster_pipeline.commands.output import json_option, print_json
from roster_pipeline.commands.who import by_option
from roster_pipeline.connections.listings import reconcile_connections
from roster_pipeline.database.clock import database_time
from roster_pipeline.database.engine import translate_database_errors


@click.group()
def connections() -> None:
    """Accept a list of connected districts that was not believed."""


@connections.command()
@by_option(required=True, text="Who says that the list is right; kept in ops.audit.")
@json_option
def accept(*, by: str, as_json: bool) -> None:
    """List the connected districts at Clever now, and apply that, whatever it says.

    A list that would disconnect many districts at once, or that is another application's (CLEVER_CLIENT_ID), is not applied by itself,
    because it can be a fault. Look at it in Clever first: every district that it lacks becomes disconnected, and no longer syncs. Nobody is
    deactivated, and a district that is listed again has the status that it had.

    Example: roster connections accept --by "J. Doe"
    """
    with current_database() as database:
        listing = list_tokens(read_settings()).listing()
        with translate_database_errors(), database.engine.connect() as opened:
            connection = opened.execution_options(isolation_level="AUTOCOMMIT")
            found = reconcile_connections(connection, listing, now=database_time(connection), accepted_by=by)
    changes = {"requested": found.requested, "returned": found.returned, "disconnected": found.disconnected}
    if as_json:
        print_json({"connected": len(listing.district_ids), **changes})
        return
    click.echo(f"Accepted: {len(listing.district_ids)} districts are connected.")
    for name, says in (("requested", "New"), ("returned", "Connected again"), ("disconnected", "Disconnected")):
        if changes[name]:
            click.echo(f"{says}: {', '.join(changes[name])}.")
