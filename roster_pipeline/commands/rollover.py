"""`roster rollover preview`: what the change to a new school year would do, with and without a window (R14.5)."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import groupby
from typing import Any

import click

from roster_pipeline.commands.environment import read_settings
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.commands.progress import show_progress
from roster_pipeline.contracts import GRADES
from roster_pipeline.database.engine import open_database
from roster_pipeline.profiles import HIGHEST_FLOOR
from roster_pipeline.support.rollover import CATEGORIES, Rollover, preview_rollover
from roster_pipeline.visible import visible

WOULD_BE_HELD = 3
_HEADINGS = [each.capitalize() for each in CATEGORIES]


@click.group()
def rollover() -> None:
    """The change to a new school year."""


@rollover.command()
@click.argument("district")
@json_option
@click.pass_context
def preview(context: click.Context, district: str, *, as_json: bool) -> None:
    """Show what a rollover of DISTRICT would do, if Clever has loaded the new year. Writes nothing.

    By school and grade: how many students stay, are promoted, move to another school, graduate, are lost, return, or are new. Then
    classrooms, licenses, and which brakes would trip without a rollover window and with one. Exit status 3 if the limits of today would
    hold something.

    Example: roster rollover preview 67ee1af60978174923afab13
    """
    settings = read_settings()
    with open_database(settings) as database, nullcontext(lambda _: None) if as_json else show_progress() as on_step:
        found = preview_rollover(database, settings, district, on_step=on_step)
    if as_json:
        print_json(_document(found))
    else:
        _print(found)
    if found.held_today:
        context.exit(WOULD_BE_HELD)


def _document(found: Rollover) -> dict[str, Any]:
    window = found.window
    return {
        "district": found.district.clever_id,
        "window": None if window is None else {**window.facts, "first_night": window.first_night, "limits": dict(window.limits)},
        "students": found.students,
        "totals": {each: sum(row[each] for row in found.students) for each in CATEGORIES},
        "classrooms": dict(found.classrooms),
        "licenses": found.licenses,
        "brakes": found.brakes,
        "held_today": list(found.held_today),
    }


def _print(found: Rollover) -> None:
    name = f"{found.district.clever_id} ({visible(found.district.name)})"
    click.echo(f"What a rollover of district {name} would do now.")
    click.echo("Nothing has been written. School and grade are those of today;")
    click.echo("of students who return or are new, those that they get.")
    _print_students(found)
    classrooms = found.classrooms
    click.echo(f"Classrooms: {classrooms['active']:,} now; {classrooms['ending']:,} end, {classrooms['beginning']:,} begin.")
    for row in found.licenses:
        bought = "no limit" if row["licenses"] is None else f"{row['licenses']:,} bought"
        over = ", more than bought" if row["is_over"] else ""
        click.echo(f"Licenses of {row['scope']}: {row['used']:,} used after it, {bought}{over}.")
    if found.brakes:
        columns = ("Brake", "Role", "Without a window", "With one", "School")
        print_table(columns, [list(_brake(each)) for each in found.brakes], title="Brakes: acts of the limit")
    if found.window is None:
        click.echo("No rollover window is agreed on; the limits of one are the defaults. `roster window add` makes one.")
    else:
        click.echo(f"The window is number {found.window.window_id}: {found.window.span}.")
    if found.held_today:
        click.echo(f"The limits of today would hold: {', '.join(found.held_today)}.")
    else:
        click.echo("The limits of today would hold nothing.")


def _print_students(found: Rollover) -> None:
    """The whole district by grade, then each school. A name of a school is the title of its table, so that it fits a terminal."""
    if not found.students:
        click.echo("No students.")
        return
    order = {grade: place for place, grade in enumerate(GRADES)}
    grades = sorted({row["grade"] for row in found.students}, key=lambda grade: order.get(grade, len(order)))
    rows = [[grade, *(_sum(each, found, grade) for each in CATEGORIES)] for grade in grades]
    rows.append(["all", *(sum(row[each] for row in found.students) for each in CATEGORIES)])
    print_table(["Grade", *_HEADINGS], rows, title="All schools")
    for _, group in groupby(found.students, key=lambda row: row["school_id"]):
        school = list(group)
        title = f"{visible(school[0]['school_name'] or 'Without a school')} ({school[0]['school'] or '-'})"
        print_table(["Grade", *_HEADINGS], [[row["grade"], *(row[each] for each in CATEGORIES)] for row in school], title=title)


def _sum(category: str, found: Rollover, grade: str | None) -> int:
    return sum(row[category] for row in found.students if row["grade"] == grade)


def _brake(row: Mapping[str, Any]) -> Iterator[object]:
    yield row["kind"]
    yield row["role"] or row["collection"]
    for when in ("without", "with"):
        acts, limit = row[f"acts_{when}_window"], row[f"limit_{when}_window"]
        is_off = limit is not None and limit >= HIGHEST_FLOOR
        counted = f"{acts:,}" if limit is None else f"{acts:,}, no limit" if is_off else f"{acts:,} of {limit:,g}"
        yield counted + (", held" if row[f"trips_{when}_window"] else "")
    yield row["school_name"]
