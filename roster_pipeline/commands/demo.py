"""`roster demo`: runs the demo (`roster_pipeline/demo.py`) and explains to a newcomer what it does."""

import dataclasses

import click

from roster_pipeline.commands.environment import read_settings
from roster_pipeline.commands.output import json_option, print_json
from roster_pipeline.commands.sync import print_outcome
from roster_pipeline.demo import DemoSync, run_demo
from roster_pipeline.errors import PermanentError


@click.command()
@click.option("--yes", is_flag=True, help="Run it even if ROSTER_DATABASE_URL is set, in that database.")
@json_option
def demo(*, yes: bool, as_json: bool) -> None:
    """Make up a district of 1,000 students, and sync it three times: everything new, after a night of changes, and with no changes.

    It needs no setup: the database is the project's own, and Clever is simulated. Every run makes a new district. The districts of
    earlier runs stay, paused.

    Example: roster demo
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
