"""`roster plan`: shows what a sync would do, and writes nothing."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import click

from roster_pipeline.commands.environment import read_settings
from roster_pipeline.commands.holds import meaning
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.commands.progress import show_progress
from roster_pipeline.database.engine import open_database
from roster_pipeline.support.preview import PlanReport, preview_sync
from roster_pipeline.sync.brakes import Brake, Decision, held_kinds
from roster_pipeline.sync.ending import in_window

HELD = 3
_SHOWN_CONFLICTS = 20


@click.command()
@click.argument("district")
@json_option
@click.pass_context
def plan(context: click.Context, district: str, *, as_json: bool) -> None:
    """Show exactly what a sync of DISTRICT would do now. Writes nothing; exit status 3 when something would be held.

    Example: roster plan 67ee1af60978174923afab13
    """
    settings = read_settings()
    with open_database(settings) as database, nullcontext(lambda _: None) if as_json else show_progress() as on_step:
        report = preview_sync(database, settings, district, on_step=on_step)
    if as_json:
        print_json(_document(report))
    else:
        _print(report)
    if report.plan.holding:
        context.exit(HELD)


def _document(report: PlanReport) -> dict[str, Any]:
    decided = {decision.brake.identity: decision for decision in report.plan.decisions}
    return {
        "district": report.district.clever_id,
        "counts": report.plan.as_counts(),
        "changes": {table: dict(actions) for table, actions in report.plan.changes.items()},
        "users_by_school": report.users_by_school,
        "brakes": [_brake(each, decided.get(each.identity)) for each in report.plan.brakes],
        "licenses": report.licenses,
        "conflicts": report.conflicts,
    }


def _brake(brake: Brake, decision: Decision | None) -> dict[str, Any]:
    return {
        "kind": brake.kind,
        "school_id": brake.school_id,
        "role": brake.role,
        **brake.as_counts(),
        "plan_hash": brake.plan_hash,
        "tripped": brake.is_tripped,
        "status": decision.status if decision is not None else "passes",
        "hold_id": decision.hold_id if decision is not None else None,
    }


def _print(report: PlanReport) -> None:
    if report.plan.writes_nothing:
        held = held_kinds(report.plan.holding)
        click.echo(f"A sync of district {report.district.clever_id} would write nothing now: the first sync waits for approval ({held}).")
        click.echo("After approval, it would do this. Nothing has been written.")
    else:
        click.echo(f"What a sync of district {report.district.clever_id} would do now. Nothing has been written.")
    _print_changes(report.plan.changes)
    for sentence in in_window(report.plan.in_window):
        click.echo(sentence)
    if report.users_by_school:
        print_table(
            ("Clever id of the school", "Action", "Users"),
            [(row["school"], row["action"].replace("_", " "), row["users"]) for row in report.users_by_school],
            title="Users by primary school",
        )
    if report.plan.brakes:
        statuses = {decision.brake.identity: decision.status for decision in report.plan.decisions}
        print_table(
            ("Brake", "School", "Status", "What it counts"),
            [
                (
                    brake.kind,
                    report.brake_schools[brake.school_id] if brake.school_id is not None else None,
                    _status(brake, statuses.get(brake.identity)),
                    meaning(brake.kind, brake.role, brake.as_counts()),
                )
                for brake in report.plan.brakes
            ],
            title="Brakes",
        )
    print_table(
        ("Licenses of", "Bought", "Used", "Without seat", "Held"),
        [(row["scope"], row["licenses"], row["used"], row["without_seat"], row["held"]) for row in report.licenses],
        title="Licenses after it",
    )
    if report.conflicts:
        conflicts = [(row["clever_id"], row["rule"]) for row in report.conflicts[:_SHOWN_CONFLICTS]]
        click.echo(f"{len(report.conflicts):,} would not get their username (taken: another user has it; contested: several claim it):")
        print_table(("Clever id", "Why"), conflicts)
        if len(report.conflicts) > _SHOWN_CONFLICTS:
            click.echo("`--json` lists all of them.")


def _print_changes(changes: Mapping[str, Mapping[str, int]]) -> None:
    if not changes:
        click.echo("No row of app would be written.")
        return
    rows = [
        (f"app.{table}", ", ".join(f"{count:,} {action.replace('_', ' ')}" for action, count in actions.items()))
        for table, actions in changes.items()
    ]
    print_table(("Table", "Rows to write"), rows)


def _status(brake: Brake, status: str | None) -> str:
    if status is None:
        return "passes"
    return "released" if status == "approved" else "held"
