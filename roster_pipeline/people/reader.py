"""A CSV file of people -> its rows, one at a time (R8.2).

Belongs here: everything about the file's form: encoding, line breaks, delimiter, quotes, header, lines. Does not belong here: whether a
value is right, which depends on the district (`faults.sql`).

Nothing raised or reported here holds a value of the file, unknown names in its first line included: where the header was forgotten, that
line is a person.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from roster_pipeline.errors import PermanentError

COLUMNS = ("username", "first_name", "last_name", "role", "school", "email")

# What `surrogateescape` makes of a byte that is no UTF-8.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


class PersonRow(NamedTuple):
    """One row, its values as they stand in the file. A value that is not there is empty.

    line: where the row begins; the header is line 1, and a line break inside quotes counts.
    """

    line: int
    username: str
    first_name: str
    last_name: str
    role: str
    school: str
    email: str


class RowError(NamedTuple):
    """Why a row is not imported. A row can have several.

    column: one of COLUMNS; None where it is the row as a whole.
    reason: a phrase about the column or the row, without any of its values.
    """

    line: int
    column: str | None
    reason: str


def read_rows(source: IO[bytes]) -> Iterator[PersonRow | RowError]:
    """The rows of a CSV file in order, and in place of one that cannot be read why not.

    UTF-8 with or without byte order mark; lines end in CRLF, LF or CR; comma or semicolon, whichever the header uses. Rows without any
    value are skipped, as are empty columns after the last, and a row may end early: spreadsheets leave such traces. Memory is that of one
    row.

    Args:
        source: read from where it stands to its end, and left open.

    Raises:
        PermanentError: the first line is not the header.
    """
    text = io.TextIOWrapper(source, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        header = text.readline()
        delimiter = ";" if header.count(";") > header.count(",") else ","
        positions = _positions(header, delimiter)
        # Strict: a quotation mark in the wrong place is reported rather than guessed at.
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 2
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error:
                last = reader.line_num + 1
                skipped = f"; lines {line} to {last} are skipped" if last > line else ""
                yield RowError(line, None, f"cannot be read: a quotation mark is not closed, or not doubled inside a text{skipped}")
                continue
            if any(field.strip() for field in fields):
                yield _row(line, fields, positions)
    finally:
        text.detach()


def _positions(header: str, delimiter: str) -> list[int]:
    """Where in a row each of COLUMNS stands."""
    if not header:
        raise PermanentError("The file is empty.", hint=f"Its first line is the header: {', '.join(COLUMNS)}.")
    if _NOT_UTF8.search(header):
        raise PermanentError("Line 1 of the file is not UTF-8.", hint="Save the file as CSV UTF-8.")
    names = [name.strip(' \t\r\n"').lower() for name in header.split(delimiter)]
    while names and not names[-1]:
        names.pop()
    problems = [f"{name} is missing" for name in COLUMNS if name not in names]
    problems += [f"{name} is there {names.count(name)} times" for name in COLUMNS if names.count(name) > 1]
    problems += [f"column {position} is not known" for position, name in enumerate(names, 1) if name not in COLUMNS]
    if problems:
        raise PermanentError(
            f"Line 1 of the file is not the header: {'; '.join(problems)}.",
            hint=f"Name exactly these columns, in any order: {', '.join(COLUMNS)}.",
        )
    return [names.index(name) for name in COLUMNS]


def _row(line: int, fields: Sequence[str], positions: Sequence[int]) -> PersonRow | RowError:
    if any(field.strip() for field in fields[len(positions) :]):
        return RowError(line, None, "has more values than the header has columns")
    values = [fields[position] if position < len(fields) else "" for position in positions]
    for column, value in zip(COLUMNS, values, strict=True):
        if _NOT_UTF8.search(value):
            return RowError(line, column, "is not UTF-8: save the file as CSV UTF-8")
    return PersonRow(line, *values)
