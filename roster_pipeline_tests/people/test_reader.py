"""The form of a CSV file: encoding, line breaks, delimiter, quotes, header and lines (R8.2)."""

import csv
import io
import re
from collections.abc import Generator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from roster_pipeline.errors import PermanentError
from roster_pipeline.people.reader import COLUMNS, PersonRow, RowError, read_rows

HEADER = "username,first_name,last_name,role,school,email"


def read(content: bytes | str) -> list[PersonRow | RowError]:
    return list(read_rows(io.BytesIO(content if isinstance(content, bytes) else content.encode())))


def only(*lines: str) -> PersonRow | RowError:
    """The one row of a file with the usual header."""
    (row,) = read("\n".join((HEADER, *lines)))
    return row


TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(' \t,;"\r\n\u2028\x85\x00é'), max_size=8)


@given(
    rows=st.lists(st.tuples(*[TEXT] * len(COLUMNS)), max_size=5),
    order=st.permutations(COLUMNS),
    delimiter=st.sampled_from(",;"),
    newline=st.sampled_from(["\r\n", "\n", "\r"]),
    bom=st.booleans(),
    ends=st.booleans(),
)
@example([("\r\n", "\r", "\n", '"', ",", ";")] * 2, list(COLUMNS), ",", "\n", True, False)
def test_reads_whatever_the_csv_module_writes(
    rows: list[tuple[str, ...]], order: list[str], delimiter: str, newline: str, bom: bool, ends: bool
) -> None:
    """R8.2: every text is read unchanged in any dialect and column order. Lines are physical: the header and quoted line breaks count."""
    expected = []
    written = delimiter.join(order) + newline
    for row in rows:
        if any(value.strip() for value in row):
            expected.append((1 + len(re.findall("\r\n|\r|\n", written)), *row))
        buffer = io.StringIO()
        values = dict(zip(COLUMNS, row, strict=True))
        csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator=newline).writerow(
            [values[column] for column in order]
        )
        written += buffer.getvalue()
    if not ends:
        written = written.removesuffix(newline)
    assert [tuple(row) for row in read(written.encode("utf-8-sig" if bom else "utf-8"))] == expected


@given(st.binary(max_size=60) | st.text(st.sampled_from('ab,;"\r\n '), max_size=60).map(str.encode))
def test_no_content_raises_or_gives_a_line_twice(content: bytes) -> None:
    """R8.2: whatever follows the header, the reader returns rows or errors, each with another line, in order."""
    lines = [row.line for row in read(HEADER.encode() + b"\n" + content)]
    assert lines == sorted(set(lines))
    assert all(1 < line <= 2 + len(re.findall(b"\r\n|\r|\n", content)) for line in lines)


def test_unquoted_values_with_spaces_and_an_empty_email() -> None:
    """The reader returns values exactly as in the file; the import cleans them."""
    assert only(' ann , Ann,"Lee",teacher,North High,') == PersonRow(2, " ann ", " Ann", "Lee", "teacher", "North High", "")


def test_header_in_any_case_and_order_with_spaces_and_quotes() -> None:
    """R8.2: such a header is recognised."""
    (row,) = read('Email; "SCHOOL";Role;Last_Name;First_Name;USERNAME\r\ne@x;s;r;l;f;u\r\n')
    assert row == PersonRow(2, "u", "f", "l", "r", "s", "e@x")


def test_what_spreadsheets_add_is_ignored() -> None:
    """R8.2: empty columns after the last, rows without a value, and rows that end early are not errors."""
    rows = read(f"{HEADER},,\nann,Ann,Lee,teacher,North,,,\n,,,,,,,\nbob,Bob,Lee,teacher,North\n\n   \n")
    assert [(row.line, row[1]) for row in rows] == [(2, "ann"), (4, "bob")]
    assert rows[1] == PersonRow(4, "bob", "Bob", "Lee", "teacher", "North", "")


def test_an_early_header_end_does_not_move_columns() -> None:
    """An empty name inside the header is not a trailing one."""
    with pytest.raises(PermanentError, match="column 2 is not known"):
        read("username,,first_name,last_name,role,school,email\n")


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("", "is empty"),
        ("\n", "username is missing; first_name is missing"),
        ("username,first_name,last_name,role,school", "email is missing"),
        (f"{HEADER},phone", "column 7 is not known"),
        (f"{HEADER},Username", "username appears 2 times"),
        ("username;first_name;last_name,role,school,email", "column 1 is not known"),
    ],
)
def test_a_header_that_is_not_the_header(header: str, problem: str) -> None:
    """R8.2: unknown, missing and repeated columns are named."""
    with pytest.raises(PermanentError, match=problem) as raised:
        read(header)
    assert all(name in raised.value.hint for name in COLUMNS)


def test_a_forgotten_header_is_not_repeated_in_the_message() -> None:
    """SPEC 12: without a header, the first line is a person."""
    with pytest.raises(PermanentError) as raised:
        read("zmarker,Zmarker,Zmarker,teacher,North,zmarker@example.org\n")
    assert "marker" not in str(raised.value).lower()
    assert raised.value.__cause__ is None


def test_a_header_that_is_not_utf8() -> None:
    """R8.2: the error names the line and says what to do."""
    with pytest.raises(PermanentError, match="Line 1 of the file is not UTF-8") as raised:
        read(f"{HEADER},é".encode("latin-1"))
    assert "UTF-8" in raised.value.hint


@pytest.mark.parametrize(
    ("content", "what"),
    [
        *((f"{HEADER}\n".encode(encoding), "UTF-16") for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        (b"PK\x03\x04\x14\x00\x06\x00", "a workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a workbook"),
        (b"\x1f\x8b\x08", "compressed"),
        (b"%PDF-1.7", "a PDF"),
    ],
)
def test_files_of_another_format(content: bytes, what: str) -> None:
    """R8.2: the error names the format, and says what to do."""
    with pytest.raises(PermanentError, match=f"The file is {what}") as raised:
        read(content)
    assert raised.value.hint


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("first", ["", "sep={}\r\n", '"sep={}"\n', "SEP={}\n"])
def test_every_delimiter_with_and_without_the_line_that_names_it(delimiter: str, first: str) -> None:
    """R8.2: lines count from 1, that line included."""
    head = first.format(delimiter)
    content = head + HEADER.replace(",", delimiter) + "\n" + "ann,Ann,Lee,teacher,North High,".replace(",", delimiter)
    assert read(content) == [PersonRow(2 + bool(head), "ann", "Ann", "Lee", "teacher", "North High", "")]


def test_a_named_delimiter_goes_before_the_counted_one() -> None:
    """R8.2: also if the header has more of another character."""
    with pytest.raises(PermanentError, match="Line 2 of the file is not the header"):
        read(f"sep=;\n{HEADER}\n")
    broken = read('sep=;\nusername;first_name;last_name;role;school;email\nann;"Ann "the" Lee";Lee;teacher;North;\n')
    assert [(row.line, type(row)) for row in broken] == [(3, RowError)]


def test_a_header_with_spaces_in_its_names() -> None:
    """R8.2: `First Name` is `first_name`."""
    (row,) = read("Username,First Name,Last Name,Role,School,Email\nann,Ann,Lee,teacher,North,\n")
    assert row == PersonRow(2, "ann", "Ann", "Lee", "teacher", "North", "")


def test_a_row_that_is_not_utf8_is_reported_with_its_line_and_column() -> None:
    """R8.2: in a file with the encoding of old spreadsheets, only the rows with accents are errors."""
    content = f"{HEADER}\nann,Ann,Lee,teacher,North,\nrene,René,Roe,teacher,North,\nbob,Bob,Lee,teacher,North,\n".encode("cp1252")
    ann, rene, bob = read(content)
    assert (ann.line, bob.line) == (2, 4)
    assert rene == RowError(3, "first_name", "is not UTF-8: save the file as CSV UTF-8")


def test_more_values_than_columns() -> None:
    """R8.2: the row has an unquoted comma. The reader does not guess where."""
    assert only("ann,Ann,Lee, Jr.,teacher,North,ann@example.org") == RowError(2, None, "has more values than the header has columns")


def test_a_broken_quote_does_not_affect_later_lines() -> None:
    """R8.2: the next row is read, with the right line."""
    broken, bob = read(f'{HEADER}\nann,"Ann "the" Lee",Lee,teacher,North,\nbob,Bob,Lee,teacher,North,\n')
    assert isinstance(broken, RowError)
    assert (broken.line, broken.column) == (2, None)
    assert "skipped" not in broken.reason
    assert bob.line == 3


def test_the_error_of_an_open_quote_says_which_lines_are_skipped() -> None:
    """R8.2: no row is lost without an error."""
    first, broken = read(f'{HEADER}\nann,Ann,Lee,teacher,North,\nbob,"Bob,Lee,teacher,North,\n\ncarl,Carl,Lee,teacher,North,\n')
    assert isinstance(first, PersonRow)
    assert isinstance(broken, RowError)
    assert broken.line == 3
    assert broken.reason.endswith("lines 3 to 5 are skipped")


def test_reads_one_row_at_a_time_and_leaves_the_file_open() -> None:
    """R8.2: a long file is not read ahead, and the reader does not close it."""
    source = io.BytesIO((HEADER + "\n" + "ann,Ann,Lee,teacher,North,\n" * 100_000).encode())
    rows = read_rows(source)
    assert isinstance(rows, Generator)
    assert isinstance(next(rows), PersonRow)
    assert source.seek(0, io.SEEK_CUR) < 100_000
    rows.close()
    assert not source.closed
