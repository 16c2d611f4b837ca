"""`roster health`: whether the whole system works, for people and for monitoring."""

from collections import Counter
from dataclasses import asdict

import click

from roster_pipeline.commands.environment import current_database, read_settings
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.database.clock import database_time
from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.fleet.findings import Finding
from roster_pipeline.fleet.health import database_health
from roster_pipeline.fleet.surroundings import disk_health
from roster_pipeline.settings import Settings
from roster_pipeline.visible import visible

UNHEALTHY = 1


@click.command()
@json_option
@click.pass_context
def health(context: click.Context, *, as_json: bool) -> None:
    """Check that the whole system works. Exit status 0 if it is healthy, even with warnings; 1 if there is a problem.

    It checks the daemon, schedules and sensors, the server, clocks and disk, the connections, the last nights, silent districts, requests,
    locks, brakes, holds and alerts. Made for monitoring. It cannot know how old the newest backup is.

    Example: roster health --json
    """
    with current_database() as database:
        found = _findings(database, read_settings())
    problems = sum(each.verdict == "problem" for each in found)
    if as_json:
        print_json({"healthy": not problems, "findings": [asdict(each) for each in found]})
    else:
        _print(found)
    if problems:
        context.exit(UNHEALTHY)


def _findings(database: Database, settings: Settings) -> list[Finding]:
    # Importing Dagster takes seconds. Only this command needs all of its definitions.
    from roster_pipeline.definitions import defs
    from roster_pipeline.defs.health import dagster_health

    automations = {each.name for each in [*(defs.schedules or ()), *(defs.sensors or ())]}
    with translate_database_errors(), database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        now = database_time(connection)
        in_database = database_health(connection, settings, now=now)
    places = {"ROSTER_HOME": settings.roster_home}
    if database.embedded:
        # The files of a server that root has started are elsewhere.
        places["PostgreSQL"] = settings.roster_home / "postgres"
    return [*dagster_health(database.dagster_url, automations=automations, now=now), disk_health(places), *in_database]


def _print(found: list[Finding]) -> None:
    print_table(("", "What", "State"), [(each.verdict, each.what, each.says) for each in found])
    for each in found:
        if each.do:
            click.echo(f"{each.what}: {visible(each.do)}")
    verdicts = Counter(each.verdict for each in found)
    state = "Unhealthy" if verdicts["problem"] else "Healthy"
    click.echo(f"{state}: {verdicts['problem']} problems, {verdicts['warning']} warnings.")
