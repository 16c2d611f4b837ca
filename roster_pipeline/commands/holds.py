"""`roster holds`, `roster approve`, `roster reject`: the holds that wait for a decision, and the decision."""

from collections.abc import Mapping
from typing import Any

import click

from roster_pipeline.brake_kinds import KINDS
from roster_pipeline.commands.environment import current_database
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.commands.request import NOBODY
from roster_pipeline.commands.who import by_option
from roster_pipeline.database.clock import database_time
from roster_pipeline.database.engine import translate_database_errors
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.fleet.requests import is_taken_up
from roster_pipeline.support import holds as library

_FIELDS = (
    "hold_id",
    "district",
    "kind",
    "school_id",
    "school",
    "role",
    "counts",
    "status",
    "decided_by",
    "decided_at",
    "expires_at",
    "created_at",
    "sync_id",
)


def meaning(kind: str, role: str | None, counts: Mapping[str, Any]) -> str:
    """One hold in a sentence, with its limit if it has one."""
    return KINDS[kind].meaning(role, counts)


@click.command()
@click.argument("district", required=False)
@click.option("--all", "every", is_flag=True, help="Also those that are used, superseded or expired.")
@json_option
def holds(district: str | None, *, every: bool, as_json: bool) -> None:
    """Show the holds of one DISTRICT, or of all, that wait for a decision."""
    with current_database() as database, translate_database_errors(), database.engine.connect() as connection:
        only = find_district(connection, district).district_id if district is not None else None
        rows = library.list_holds(connection, district_id=only, every=every)
    if as_json:
        print_json({"holds": [{field: row[field] for field in _FIELDS} for row in rows]})
        return
    if not rows:
        click.echo("Nothing is held.")
        return
    print_table(
        ("Hold", "District", "Status", "School", "What is held"),
        [(row["hold_id"], row["district"], row["status"], row["school"], meaning(row["kind"], row["role"], row["counts"])) for row in rows],
    )
    click.echo("`roster plan DISTRICT` shows what a sync would do. `roster approve HOLD --by WHO` lets the next sync do it;")
    click.echo("`roster reject HOLD --by WHO` does not.")


@click.command()
@click.argument("hold", type=int)
@by_option(required=True, text="Who decided; kept with the hold.")
@json_option
def approve(hold: int, *, by: str, as_json: bool) -> None:
    """Let the next sync do exactly what HOLD holds, until the approval expires."""
    with current_database() as database, translate_database_errors(), database.engine.begin() as connection:
        row = library.approve(connection, hold, by=by, now=database_time(connection))
        taken_up = is_taken_up(connection)
    _print_decision(row, as_json=as_json)
    if not (as_json or taken_up):
        click.echo(f"{NOBODY} Or sync it in this process: `roster sync {row['district_id']}`.", err=True)


@click.command()
@click.argument("hold", type=int)
@by_option(required=True, text="Who decided; kept with the hold.")
@json_option
def reject(hold: int, *, by: str, as_json: bool) -> None:
    """Keep HOLD held, until its plan changes or somebody approves it after all."""
    with current_database() as database, translate_database_errors(), database.engine.begin() as connection:
        row = library.reject(connection, hold, by=by, now=database_time(connection))
    _print_decision(row, as_json=as_json)


def _print_decision(row: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json({name: row[name] for name in ("hold_id", "status", "decided_by", "decided_at", "expires_at")})
    elif row["status"] == "approved":
        until = f"{row['expires_at']:%Y-%m-%d %H:%M} UTC"
        click.echo(f"Hold {row['hold_id']} is approved until {until}, for exactly what it holds now. The next sync does it.")
    else:
        click.echo(f"Hold {row['hold_id']} is rejected. It stays held until its plan changes.")
