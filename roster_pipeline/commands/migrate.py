"""`roster migrate`."""

import click

from roster_pipeline.commands.environment import read_settings
from roster_pipeline.commands.output import json_option, print_json
from roster_pipeline.database.engine import open_database
from roster_pipeline.database.migrate import migrate as migrate_schema


@click.command()
@json_option
def migrate(*, as_json: bool) -> None:
    """Create the database's tables, or upgrade them to this release. Running it again changes nothing."""
    with open_database(read_settings()) as database:
        report = migrate_schema(database)
    if as_json:
        print_json({"from_revision": report.from_revision, "to_revision": report.to_revision})
    elif report.from_revision == report.to_revision:
        click.echo(f"The tables are at revision {report.to_revision} already.")
    else:
        click.echo(f"The tables are now at revision {report.to_revision} (before: {report.from_revision or 'none'}).")
