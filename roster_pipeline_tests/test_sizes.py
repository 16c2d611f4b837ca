"""The largest size of a file, a function and a SQL model.

The numbers are limits, not targets. Code that is larger usually does two jobs: split it by subject, not by length.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = ("roster_pipeline", "roster_pipeline_tests", "benchmarks", "dbt_like_sql")

FILE_LINES = 400
FUNCTION_LINES = 60
SQL_LINES = 250
# One person must be able to read all steps of a sync in an afternoon.
SYNC_LINES = 3_200
SYNC_FILES = 20


def files(pattern: str) -> Iterator[Path]:
    """The project's own files."""
    for folder in CODE:
        yield from sorted((ROOT / folder).rglob(pattern))


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def shown(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_no_file_is_too_long() -> None:
    assert {shown(file): lines(file) for pattern in ("*.py", "*.sql") for file in files(pattern) if lines(file) > FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    """From `def` to its last line, with the docstring."""
    found = {}
    for file in files("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and node.end_lineno
                and node.end_lineno - node.lineno >= FUNCTION_LINES
            ):
                found[f"{shown(file)}:{node.name}"] = node.end_lineno - node.lineno + 1
    assert found == {}


def test_a_long_sql_file_gives_its_reason() -> None:
    """A line `-- long because: ...` in the header."""
    long = [file for file in files("*.sql") if lines(file) > SQL_LINES]
    headers = {shown(file): file.read_text(encoding="utf-8").split("\n\n")[0] for file in long}
    assert [name for name, header in headers.items() if not re.search(r"^-- long because: \w", header, re.MULTILINE)] == []


def test_a_sync_can_be_read_as_a_whole() -> None:
    """`sync/` is one sync of one district. Unattended work, support, and alerts have their own folders."""
    found = [file for file in sorted((ROOT / "roster_pipeline" / "sync").iterdir()) if file.suffix in (".py", ".sql")]
    assert len(found) <= SYNC_FILES
    assert sum(map(lines, found)) <= SYNC_LINES
