"""`roster dev`: options only; the launcher is `roster_pipeline/dev.py`."""

import click

from roster_pipeline.commands.environment import read_settings
from roster_pipeline.commands.output import json_option, print_json
from roster_pipeline.database.engine import open_database
from roster_pipeline.database.migrate import migrate
from roster_pipeline.demo import demo_clever
from roster_pipeline.dev import HOST, run_dev
from roster_pipeline.settings import Settings


@click.command()
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port of the Dagster UI, on loopback.")
@json_option
def dev(*, port: int, as_json: bool) -> None:
    """Run the Dagster UI and daemon on this machine until Ctrl-C.

    After `roster demo`, the demo's simulated Clever runs too, so that its district can be synced. Not if CLEVER_CLIENT_ID is set.

    Example: roster dev --port 3001
    """

    def run(effective: Settings) -> None:
        run_dev(effective, port=port, say=lambda text: print_json({"url": f"http://{HOST}:{port}"}) if as_json else click.echo(text))

    settings = read_settings()
    if settings.clever_client_id:
        run(settings)
        return
    with open_database(settings) as database:
        migrate(database)
        with demo_clever(database, settings) as simulated:
            if simulated and not as_json:
                night = f"curl -X POST {simulated.clever_api_url}/_sandbox/night_of_changes -d '{{\"seed\": 2}}'"
                click.echo(f"The demo's simulated Clever runs at {simulated.clever_api_url}. To make another night of changes:\n  {night}")
            run(simulated or settings)
