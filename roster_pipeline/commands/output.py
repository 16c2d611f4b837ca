"""How every command prints: one JSON document, or tables that are readable at 80 columns, with or without colour.

Does not belong here: what a command prints, and errors (`cli.py`).
"""

import json
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from roster_pipeline.visible import visible

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def console(*, stderr: bool = False) -> Console:
    """A console that prints text literally: no markup, no emoji codes, no highlighting of numbers."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def print_json(document: dict[str, Any]) -> None:
    """Prints the command's one document. Times are ISO 8601."""
    click.echo(json.dumps(document, default=_time))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Prints a table. Numbers are right-aligned, None is a dash, and the last column wraps at the terminal's width.

    A cell that is a list has a line for each of its texts.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    cells = [list(row) for row in rows]
    last = len(columns) - 1
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float | None) for row in cells)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=index < last)
    for row in cells:
        table.add_row(*(_cell(value) for value in row))
    console().print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return "\n".join(map(visible, value))
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return f"{value:,}" if isinstance(value, int) else visible(value)


def _time(value: object) -> str:
    if isinstance(value, date):  # datetime is a subclass
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
