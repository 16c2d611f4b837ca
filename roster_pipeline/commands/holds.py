"""`roster holds`: the holds that wait for a decision, and what one of them holds.

Does not belong here: deciding (`decisions.py`), and what a hold means (`brake_kinds.py`). Names go to the caller's own terminal, or to the
file that the caller names (SPEC 12).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from roster_pipeline.brake_kinds import KINDS
from roster_pipeline.commands.csv_file import csv_option, write_csv
from roster_pipeline.commands.environment import current_database
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.database.engine import translate_database_errors
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.support import held_acts as acts
from roster_pipeline.support import holds as library
from roster_pipeline.visible import visible

# So many acts of a hold are shown where not all were asked for.
SHOWN = 10
_FIELDS = (
    "hold_id",
    "district",
    "district_name",
    "kind",
    "school_id",
    "school",
    "role",
    "counts",
    "plan_hash",
    "status",
    "decided_by",
    "decided_principal",
    "decided_at",
    "expires_at",
    "used_by",
    "created_at",
    "sync_id",
)
_ACT_COLUMNS = ("Clever id", "Act", "Username", "Role and school")


def meaning(kind: str, role: str | None, counts: Mapping[str, Any]) -> str:
    """One hold in a sentence, with its limit if it has one."""
    return KINDS[kind].meaning(role, counts)


class _ListByDefault(click.Group):
    """`roster holds DISTRICT` lists, and `roster holds show HOLD` shows."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_named = bool(args) and (args[0] in self.commands or args[0] in self.get_help_option_names(ctx))
        return super().parse_args(ctx, args if is_named else ["list", *args])


@click.group(cls=_ListByDefault)
def holds() -> None:
    """Show the holds that wait for a decision, or what one of them holds.

    `roster holds [DISTRICT]` lists them. `roster holds show HOLD` lists the people, classrooms and schools of one.

    Example: roster holds show 7 --csv held.csv
    """


@holds.command("list")
@click.argument("district", required=False)
@click.option("--all", "every", is_flag=True, help="Also those that are used, superseded or expired.")
@json_option
def list_command(district: str | None, *, every: bool, as_json: bool) -> None:
    """Show the holds of one DISTRICT, or of all, that wait for a decision.

    Holds of one cause, such as a school that is not shared any more, stand together.

    Example: roster holds 67ee1af60978174923afab13
    """
    with current_database() as database, translate_database_errors(), database.engine.connect() as connection:
        only = find_district(connection, district).district_id if district is not None else None
        groups = acts.grouped(connection, library.list_holds(connection, district_id=only, every=every))
    rows = [(row, min(each["hold_id"] for each in group)) for group in groups for row in group]
    if as_json:
        print_json({"holds": [{**{field: row[field] for field in _FIELDS}, "group": group} for row, group in rows]})
        return
    if not rows:
        click.echo("Nothing is held.")
        return
    print_table(
        ("Hold", "District", "Status", "School", "What is held"),
        [
            (row["hold_id"], row["district"], row["status"], row["school"], meaning(row["kind"], row["role"], row["counts"]))
            for row, _ in rows
        ],
    )
    for group in groups:
        if len(group) > 1:
            ids = " ".join(str(row["hold_id"]) for row in group)
            click.echo(f"Holds {ids} have one cause: everything in them is about one school.")
    click.echo("`roster holds show HOLD` lists the people. `roster plan DISTRICT` shows what a sync would do.")
    click.echo("`roster approve HOLD... --by WHO` lets the next sync do it; `roster reject HOLD... --by WHO` does not.")


@holds.command()
@click.argument("hold", type=int)
@csv_option
@json_option
def show(hold: int, path: Path | None, *, as_json: bool) -> None:
    """List what HOLD holds: one line for each act, with Clever id, username, role and school.

    Names are personal data: they are printed to this terminal, or written to the file.

    Example: roster holds show 7 --csv held.csv
    """
    with current_database() as database, translate_database_errors(), database.engine.connect() as connection:
        row = library.find_hold(connection, hold)
        found = list(acts.held_acts(connection, hold))
    if path is not None:
        write_csv(path, acts.HeldAct._fields, found)
    if as_json:
        about = {field: row[field] for field in _FIELDS}
        print_json(about | ({"file": str(path)} if path is not None else {"acts": [each._asdict() for each in found]}))
        return
    print_hold(row, [] if path is not None else found)
    if path is not None:
        click.echo(f"Its {len(found):,} acts are in {path}.")


def print_hold(row: Mapping[str, Any], found: Sequence[acts.HeldAct], *, first: int | None = None) -> None:
    """One hold, and its acts as a table.

    Args:
        first: only so many acts.
    """
    where = f" at {visible(row['school'])}" if row["school"] else ""
    click.echo(f"Hold {row['hold_id']} of district {row['district']} ({visible(row['district_name'])}), {row['status']}{where}:")
    click.echo(visible(f"{meaning(row['kind'], row['role'], row['counts'])}."))
    if found:
        print_table(_ACT_COLUMNS, [(each.clever_id, each.act, each.username, _where(each)) for each in found[:first]])
    if first is not None and len(found) > first:
        click.echo(f"And {len(found) - first:,} more: `roster holds show {row['hold_id']}` lists all.")


def _where(act: acts.HeldAct) -> str | None:
    return " at ".join(part for part in (act.role, act.school) if part) or None
