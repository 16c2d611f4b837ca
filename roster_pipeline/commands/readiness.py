"""`roster readiness`: what a district's next sync would find, question by question. It shows names of schools, never of people."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import click

from roster_pipeline.commands.environment import read_settings
from roster_pipeline.commands.output import json_option, print_json
from roster_pipeline.commands.progress import show_progress
from roster_pipeline.database.engine import open_database
from roster_pipeline.support.preview import PlanReport, preview_sync
from roster_pipeline.support.readiness import Answer, Item, Verdict, answers, worst
from roster_pipeline.visible import visible

WOULD_BE_HELD = 3


@click.command()
@click.argument("district")
@json_option
@click.pass_context
def readiness(context: click.Context, district: str, *, as_json: bool) -> None:
    """Report whether a DISTRICT is ready to sync: pulls it from Clever, compares, and writes nothing.

    Each answer has a verdict: ok; warning, know this before you sync; stop, resolve this before you sync. Exit status 3 if a sync
    would be held.

    Example: roster readiness 67ee1af60978174923afab13
    """
    settings = read_settings()
    with open_database(settings) as database, nullcontext(lambda _: None) if as_json else show_progress() as on_step:
        report = preview_sync(database, settings, district, on_step=on_step)
    answered = answers(report)
    if as_json:
        print_json(_document(report, answered))
    else:
        click.echo("\n".join(_text(report, answered)))
    if report.plan.holding:
        context.exit(WOULD_BE_HELD)


def _document(report: PlanReport, answered: Sequence[Answer]) -> dict[str, Any]:
    return {
        "district": report.district.clever_id,
        "district_id": report.district.district_id,
        "verdict": worst(each.verdict for each in answered),
        "would_be_held": [each.brake.kind for each in report.plan.holding],
        "questions": [asdict(each) | {"verdict": each.verdict} for each in answered],
    }


def _text(report: PlanReport, answered: Sequence[Answer]) -> Iterator[str]:
    yield f"Readiness of district {report.district.clever_id} ({visible(report.district.name)}):"
    for answer in answered:
        yield f"\n[{answer.verdict}] {answer.question}"
        yield from (_line(_item(each), each.verdict) for each in answer.items if each.count or each.is_context)
        yield from (_line(note.text, note.verdict) for note in answer.notes)
    yield f"\nIn all: {worst(each.verdict for each in answered)}. `roster plan {report.district.clever_id}` shows what a sync would write."


def _item(item: Item) -> str:
    if item.detail is None:
        return f"{item.label}: {item.count:,}"
    # `no limit` replaces the number; a share follows it.
    return f"{item.label}: {item.detail}" if item.detail == "no limit" else f"{item.label}: {item.count:,} ({item.detail})"


def _line(text: str, verdict: Verdict) -> str:
    """Indents a line. An exclamation mark shows that it is a reason for the verdict."""
    return f"  {'  ' if verdict == 'ok' else '! '}{visible(text)}"
