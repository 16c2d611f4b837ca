"""`roster migrate`."""

import click

from roster_pipeline.commands.environment import read_settings
from roster_pipeline.commands.output import json_option, print_json
from roster_pipeline.commands.who import by_option
from roster_pipeline.database.audit import record_act
from roster_pipeline.database.engine import open_database, translate_database_errors
from roster_pipeline.database.migrate import migrate as migrate_schema


@click.command()
@by_option()
@json_option
def migrate(*, by: str | None, as_json: bool) -> None:
    """Create the database's tables, or upgrade them to this release. Running it again changes nothing.

    Example: roster migrate --by "J. Doe"
    """
    with open_database(read_settings()) as database:
        report = migrate_schema(database)
        if report.from_revision != report.to_revision:
            with translate_database_errors(), database.engine.begin() as connection:
                facts = {"from_revision": report.from_revision, "to_revision": report.to_revision}
                record_act(connection, "migrate", given_name=by, facts=facts)
    if as_json:
        print_json({"from_revision": report.from_revision, "to_revision": report.to_revision})
    elif report.from_revision == report.to_revision:
        click.echo(f"The tables are at revision {report.to_revision} already.")
    else:
        click.echo(f"The tables are now at revision {report.to_revision} (before: {report.from_revision or 'none'}).")
