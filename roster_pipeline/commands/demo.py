"""`roster demo`: what the demo (`roster_pipeline/demo.py`) does, told to a newcomer."""

import dataclasses

import click

from roster_pipeline.commands.environment import read_settings
from roster_pipeline.commands.output import json_option, print_json
from roster_pipeline.commands.sync import print_outcome
from roster_pipeline.demo import DemoSync, run_demo
from roster_pipeline.errors import PermanentError


@click.command()
@click.option("--yes", is_flag=True, help="Also in the database that ROSTER_DATABASE_URL names.")
@json_option
def demo(*, yes: bool, as_json: bool) -> None:
    """Make up a district of 1,000 students, sync it, let a night pass in Clever, sync it again, and once more.

    Needs nothing: the database is the project's own, Clever is simulated. Every run makes a new district; those of earlier
    runs stay, paused.
    """
    settings = read_settings()
    if settings.roster_database_url is not None and not yes:
        raise PermanentError(
            "ROSTER_DATABASE_URL is set, and the demo would add a made-up district to that database.",
            hint="Unset it to use the project's own database, or run `roster demo --yes`.",
        )
    if as_json:
        print_json(dataclasses.asdict(run_demo(settings)))
        return
    run_demo(settings, say=click.echo, show=_show)


def _show(sync: DemoSync) -> None:
    click.echo(f"   Sync {sync.sync_id}: {sync.status} in {sync.seconds:.1f} s.")
    print_outcome(sync.status, sync.message, sync.changes)
