"""Writing a CSV file that a person opens in a spreadsheet.

Does not belong here: which rows it has.
"""

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from roster_pipeline.errors import PermanentError

# A spreadsheet takes a cell that begins with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

csv_option = click.option(
    "--csv", "path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write all of them to a file."
)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[str | None]]) -> None:
    """Write a file that only this user can read.

    Raises:
        PermanentError: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows([_plain(value) for value in each] for each in rows)
    except OSError as error:
        raise PermanentError(f"The file cannot be written: {error.strerror}.", hint="Name another file with --csv.") from None


def _plain(value: str | None) -> str:
    return f"'{value}" if value and value.startswith(_FORMULA) else value or ""
