"""A CSV file of people -> its rows, one at a time (R8.2).

Belongs here: everything about the file's form: encoding, line breaks, delimiter, quotes, header, lines. Does not belong here: whether a
value is right, which depends on the district (`faults.sql`).

No error of this module contains a value of the file, not even an unknown name in the first line: if the header was forgotten, that line
is a person.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

from roster_pipeline.errors import PermanentError

COLUMNS = ("username", "first_name", "last_name", "role", "school", "email")

# `surrogateescape` turns bytes that are not UTF-8 into these characters.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_DELIMITERS = (",", ";", "\t", "|")
# A line that some spreadsheets write before the header.
_SEPARATOR = re.compile(r'"?sep=(?P<delimiter>[,;\t|])"?[\r\n]*$', re.IGNORECASE)

# So many bytes show which format a file has.
_START = 4
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_SAVE_AS = "Save the file as CSV UTF-8."
_IN_SPREADSHEET = "In the spreadsheet, save it as CSV UTF-8 (comma delimited), and import that file."
_OTHER_FORMATS = {
    b"PK\x03\x04": ("a workbook (like .xlsx or .ods) or another archive", _IN_SPREADSHEET),
    b"\xd0\xcf\x11\xe0": ("a workbook (.xls)", _IN_SPREADSHEET),
    b"\x1f\x8b": ("compressed", "Unpack it first."),
    b"%PDF": ("a PDF", "Ask for the list as CSV UTF-8."),
}


class PersonRow(NamedTuple):
    """One row, with its values exactly as in the file. A missing value is empty.

    line: the line on which the row begins; the header is line 1, and a line break inside quotes counts.
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

    column: one of COLUMNS; None if the error concerns the row as a whole.
    reason: a phrase about the column or the row, which contains none of its values.
    """

    line: int
    column: str | None
    reason: str


def read_rows(source: IO[bytes]) -> Iterator[PersonRow | RowError]:
    """The rows of a CSV file in order. A row that cannot be read becomes a RowError.

    The file is UTF-8, with or without byte order mark. Lines end in CRLF, LF or CR. The delimiter is a comma, a semicolon, a tab or a
    vertical bar, as in the header; a line like `sep=;` before the header names it. Spreadsheets write rows without any value, empty columns
    after the last, and rows that end early: the first two are skipped, and missing values are empty. Only one row is in memory.

    Args:
        source: read from its current position to its end, and left open.

    Raises:
        PermanentError: the file is not a CSV file in UTF-8, or its first line is not the header.
    """
    text = io.TextIOWrapper(_refuse_other_formats(source), encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        header, number = text.readline(), 1
        named = _SEPARATOR.match(header)
        if named:
            header, number = text.readline(), 2
        delimiter = named["delimiter"] if named else max(_DELIMITERS, key=header.count)
        positions = _positions(header, delimiter, number)
        # Strict, so that a quotation mark in the wrong place is an error and not a guess.
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + number + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error:
                last = reader.line_num + number
                skipped = f"; lines {line} to {last} are skipped" if last > line else ""
                yield RowError(line, None, f"cannot be read: a quotation mark is not closed, or not doubled inside a text{skipped}")
                continue
            if any(field.strip() for field in fields):
                yield _row(line, fields, positions)
    finally:
        text.detach()


def _refuse_other_formats(source: IO[bytes]) -> io.BufferedReader:
    """The same bytes. Raises PermanentError if their beginning is not that of a text in UTF-8."""
    start = b""
    while len(start) < _START and (more := source.read(_START - len(start))):
        start += more
    for first, (what, hint) in _OTHER_FORMATS.items():
        if start.startswith(first):
            raise PermanentError(f"The file is {what}, not CSV.", hint=hint)
    if start.startswith(_UTF_16) or b"\0" in start:
        raise PermanentError("The file is UTF-16, not UTF-8.", hint=_SAVE_AS)
    return io.BufferedReader(_Continued(start, source))


class _Continued(io.RawIOBase):
    """Bytes that have been read from a stream, and the rest of it. Closing it leaves the stream open."""

    def __init__(self, start: bytes, source: IO[bytes]) -> None:
        self._start = start
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        read = self._start[: len(buffer)] or self._source.read(len(buffer))
        self._start = self._start[len(buffer) :]
        buffer[: len(read)] = read
        return len(read)


def _positions(header: str, delimiter: str, number: int) -> list[int]:
    """The index of each of COLUMNS in a row. `number` is the line of the header."""
    if not header:
        raise PermanentError("The file is empty.", hint=f"Its first line is the header: {', '.join(COLUMNS)}.")
    if _NOT_UTF8.search(header):
        raise PermanentError(f"Line {number} of the file is not UTF-8.", hint=_SAVE_AS)
    names = [name.strip(' \t\r\n"').lower().replace(" ", "_") for name in header.split(delimiter)]
    while names and not names[-1]:
        names.pop()
    problems = [f"{name} is missing" for name in COLUMNS if name not in names]
    problems += [f"{name} appears {names.count(name)} times" for name in COLUMNS if names.count(name) > 1]
    problems += [f"column {position} is not known" for position, name in enumerate(names, 1) if name not in COLUMNS]
    if problems:
        raise PermanentError(
            f"Line {number} of the file is not the header: {'; '.join(problems)}.",
            hint=f"Name exactly these columns, in any order: {', '.join(COLUMNS)}. `roster admins template` prints the line.",
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
