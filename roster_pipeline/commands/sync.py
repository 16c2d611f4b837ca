"""`roster sync`: syncs one district now, in this process, and prints a summary."""

import os
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import click

from roster_pipeline.alerts.delivery import delivering
from roster_pipeline.commands.environment import read_settings
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.commands.progress import show_progress
from roster_pipeline.commands.who import NOT_BLANK, by_option
from roster_pipeline.database.engine import open_database
from roster_pipeline.database.runner import slowest
from roster_pipeline.errors import UsageError, described
from roster_pipeline.process_memory import peak_mb
from roster_pipeline.source.rules import rules
from roster_pipeline.sync.ending import in_window
from roster_pipeline.sync.ledger import Origin
from roster_pipeline.sync.run import SyncReport, SyncRequest, project_models, run_sync

HELD = 3
BAR = 8  # characters of the bar that means 100 %


@click.command()
@click.argument("district")
@click.option("--requested-by", metavar="WHO", type=NOT_BLANK, help="Who requests it; stored with the sync.")
@click.option("--reason", metavar="TEXT", help="Why; stored with the sync.")
@click.option("--during-freeze", is_flag=True, help="Sync although a freeze is on; needs --by and --reason.")
@by_option(text="Who does it; stored with the sync and in ops.audit.")
@click.option("--profile", is_flag=True, help="Print time, rows and memory of every step.")
@json_option
@click.pass_context
def sync(
    context: click.Context,
    district: str,
    requested_by: str | None,
    reason: str | None,
    by: str | None,
    *,
    during_freeze: bool,
    profile: bool,
    as_json: bool,
) -> None:
    """Sync one DISTRICT now: pull it from Clever, plan what changes, and write that in one transaction.

    Example: roster sync 67ee1af60978174923afab13 --requested-by "ticket 4711"
    """
    if during_freeze and (by is None or reason is None or not reason.strip()):
        raise UsageError("--during-freeze needs --by WHO and --reason TEXT.")
    settings = read_settings()
    request = SyncRequest(district, Origin(requested_by=requested_by or by, reason=reason), during_freeze=during_freeze)
    report: SyncReport | None = None
    try:
        with open_database(settings) as database, delivering(database, settings):
            with nullcontext(lambda _: None) if as_json else show_progress() as on_step:
                began = time.perf_counter()
                report = run_sync(database, settings, request, on_step=on_step)
                seconds = time.perf_counter() - began
            _show(report, seconds, profile=profile, as_json=as_json)
    except Exception as error:
        if report is None:
            raise
        if isinstance(error, BrokenPipeError):
            _discard_output()
        # R11.4: the exit status says how the sync has ended.
        click.echo(f"Sync {report.sync_id} is applied ({report.status}), but not shown. {described(error)}", err=True)
    if report.status == "held":
        context.exit(HELD)


def _discard_output() -> None:
    """Nobody reads the output. Otherwise Python would try to write the rest of it at its end, and exit with 120."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _show(report: SyncReport, seconds: float, *, profile: bool, as_json: bool) -> None:
    if as_json:
        print_json(_document(report) | (_profile(report, seconds) if profile else {}))
    else:
        if profile:
            _print_profile(report, seconds)
        _print_report(report)
    sys.stdout.flush()


def _document(report: SyncReport) -> dict[str, Any]:
    return {
        "sync_id": report.sync_id,
        "district": report.district.clever_id,
        "district_id": report.district.district_id,
        "status": report.status,
        "message": report.message,
        "counts": report.counts,
    }


def _profile(report: SyncReport, seconds: float) -> dict[str, Any]:
    """The steps in the order in which they ran, then the total. Some of its time is between the steps."""
    steps = [asdict(step) | {"share": step.seconds / seconds} for step in report.steps]
    between = seconds - sum(step.seconds for step in report.steps)
    return {"steps": steps, "total": {"seconds": seconds, "between_steps": between, "peak_mb": peak_mb()}}


def _print_profile(report: SyncReport, seconds: float) -> None:
    profile = _profile(report, seconds)
    total = profile["total"]
    print_table(
        ("Step", "Rows", "Peak MB", "Seconds", "Share"),
        [
            *((step["name"], step["rows"], step["peak_mb"], step["seconds"], _share(step["share"])) for step in profile["steps"]),
            ("between the steps", None, None, total["between_steps"], _share(total["between_steps"] / seconds)),
            ("total", None, total["peak_mb"], seconds, _share(1)),
        ],
        title="Steps",
    )
    click.echo(f"Slowest: {slowest(report.steps)}.")


def _share(share: float) -> str:
    return f"{share:4.0%} {'#' * round(share * BAR)}"


def _print_report(report: SyncReport) -> None:
    click.echo(f"Sync {report.sync_id} of district {report.district.clever_id}: {report.status}.")
    print_outcome(report.status, report.message, report.counts["changes"])
    if (window := report.counts.get("window")) is not None:
        said = " ".join([f"A window is on: {window['kind']} through the night of {window['last_night']}.", *in_window(report.counts)])
        click.echo(said)
    if found := _found(report):
        print_table(("Found", "Records", "What it means"), found, title="Worth a look")
    if report.counts["moved_during_pull"]:
        click.echo("Clever loaded new data of this district during the pull. Sync it again to get the rest.")
    if report.status == "held":
        click.echo(f"`roster holds {report.district.clever_id}` shows what waits for a decision.")
    click.echo(f"Look: `roster status {report.district.clever_id}`, the Dagster UI (`roster dev`), or in SQL:")
    click.echo(f"  select * from ops.changes where sync_id = {report.sync_id};")  # noqa: S608  (shown, not run)


def print_outcome(status: str, message: str, changes: Mapping[str, Mapping[str, int]]) -> None:
    """Prints the message, and the rows written by table of `app`. It leaves out a message that only repeats the rows."""
    if status != "successful" or not changes:
        click.echo(message)
    written = [
        (f"app.{table}", ", ".join(f"{rows:,} {action.replace('_', ' ')}" for action, rows in actions.items()))
        for table, actions in changes.items()
    ]
    if written:
        print_table(("Table", "Rows written"), written)


def _found(report: SyncReport) -> list[tuple[str, int, str]]:
    """Findings in single records, then audits, each with its meaning. Rules that found nothing are left out."""
    texts = {f"{rule.resource}.{rule.name}": rule.description for rule in rules().values()}
    audits = project_models().by_name
    found = [(name, rows, texts.get(name, "")) for name, rows in report.counts["findings"].items() if rows]
    return found + [(name, rows, audits[f"audits.{name}"].description) for name, rows in report.counts["audits"].items() if rows]
