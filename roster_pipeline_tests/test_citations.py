"""What prose cites exists: the files, symbols and rules that docstrings, comments, SQL headers and pages name.

Belongs here: finding that prose, and what it cites. Does not belong here: commands, links and tables on the pages (`test_docs.py`), and the
words that are used (`test_words.py`).

How prose is read:

- A rule is a number such as R5.3; docs/rules.md must have it.
- A file is anything that ends like one of ours. With a folder, some path of the repository must end with it. Without one, it must be beside
  the file that cites it, in a folder above that, or the only file of this name.
- Anything in backticks is code: each of its names must occur in code, in a literal or as a file name. `name_*` stands for names that begin
  so, and a word in capitals for whatever is put there.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RULES = ROOT / "docs" / "rules.md"
FOLDERS = ("roster_pipeline", "dbt_like_sql", "roster_pipeline_tests", "benchmarks")
# Recipes on them ("Add a ...") name what does not exist yet. The changelog names what no longer does.
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks" / "README.md"} - {ROOT / "CHANGELOG.md"})
# Pages whose code in backticks is ours; the others quote commands, messages and settings of other programs.
ABOUT_CODE = (ROOT / "docs" / "architecture.md", RULES)
FILE = re.compile(r"(?<![\w./*<>-])([\w-]+(?:/[\w.-]+)*\.(?:py|sql|md|yaml|toml|mako|service))\b(?!\()")
# Names of libraries and programs that only prose mentions.
OF_OTHERS = {"RetryPolicy", "createdb", "min_wal_size", "pip"}
# Made-up usernames.
MADE_UP = {"doe", "jdoe"}

Line = tuple[int, str]


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _paths() -> list[Path]:
    """Every file of the checkout, relative to it; not what tools put there."""
    relative = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    return sorted(path for path in relative if not any(part.startswith(".") or part == "__pycache__" for part in path.parts[:-1]))


def _docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                yield first.value


def _lines_of_python(text: str) -> Iterator[Line]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    lines = text.splitlines()
    for docstring in _docstrings(ast.parse(text)):
        assert docstring.end_lineno
        yield from ((number, lines[number - 1]) for number in range(docstring.lineno, docstring.end_lineno + 1))


def _lines_of_sql(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.splitlines(), 1):
        if "--" in line:
            yield number, line.partition("--")[2]


def _lines_of_configuration(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.splitlines(), 1):
        if "#" in line:
            yield number, line.partition("#")[2]


def _lines_of_page(text: str) -> Iterator[Line]:
    """Without blocks and recipes."""
    text = re.sub(r"^```.*?^```$|^### Add a .*?(?=^##|\Z)", lambda found: "\n" * found[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)
    yield from enumerate(text.splitlines(), 1)


def _prose(path: Path) -> Iterator[Line]:
    read = {".py": _lines_of_python, ".sql": _lines_of_sql, ".md": _lines_of_page}
    return read.get(path.suffix, _lines_of_configuration)(_text(path))


@cache
def _names_in_code() -> set[str]:
    """Every name and every word of a literal; SQL, configuration and file names included, comments, docstrings and this file not."""
    names = set(re.findall(r"[A-Za-z_]\w*", " ".join(str(path) for path in _paths())))
    for path in _paths():
        if ROOT / path == Path(__file__):
            continue
        text = _text(ROOT / path) if path.suffix in {".py", ".sql", ".yaml", ".toml", ".c", ".mako"} or path.name == ".env.example" else ""
        if path.suffix == ".py":
            ignored = {(each.lineno, each.col_offset) for each in _docstrings(ast.parse(text))}
            tokens = tokenize.generate_tokens(io.StringIO(text).readline)
            text = " ".join(each.string for each in tokens if each.type in (tokenize.NAME, tokenize.STRING) and each.start not in ignored)
        elif path.suffix == ".sql":
            text = re.sub(r"--.*", "", text)
        names |= set(re.findall(r"[A-Za-z_]\w*", text))
    return names | OF_OTHERS | MADE_UP


def _missing_rules(line: str) -> list[str]:
    rules = set(re.findall(r"^\| (R\d+\.\d+) \|", _text(RULES), re.MULTILINE))
    return [rule for rule in re.findall(r"\bR\d+\.\d+\b", line) if rule not in rules]


def _missing_files(cited_in: Path, line: str) -> list[str]:
    return [name for name in FILE.findall(line) if not _is_file(cited_in, name)]


def _is_file(cited_in: Path, name: str) -> bool:
    if "/" in name:
        return any(f"/{path}".endswith(f"/{name}") for path in _paths())
    is_near = any((folder / name).exists() for folder in cited_in.parents if folder.is_relative_to(ROOT))
    return is_near or [path.name for path in _paths()].count(name) == 1


def _missing_symbols(line: str) -> list[str]:
    code = " ".join(re.findall(r"`([^`]*)`", FILE.sub("", line)))
    return [name for name, rest in re.findall(r"(?<![\w-])([A-Za-z_]\w*)(\*|\.\.\.)?", code) if not _is_symbol(name, is_prefix=bool(rest))]


def _is_symbol(name: str, *, is_prefix: bool) -> bool:
    if name.isupper() or name in _names_in_code():
        return True
    return is_prefix and any(each.startswith(name) for each in _names_in_code())


def _cited_and_missing(path: Path) -> list[str]:
    name = path.relative_to(ROOT)
    missing = []
    for number, line in _prose(path):
        found = [*_missing_rules(line), *_missing_files(path, line)]
        if path.suffix != ".md" or path in ABOUT_CODE:
            found += _missing_symbols(line)
        missing += [f"{name}:{number}: {each}" for each in found]
    return missing


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_comments_and_docstrings_cite_exists(folder: str) -> None:
    found = [path for suffix in ("py", "sql") for path in sorted((ROOT / folder).rglob(f"*.{suffix}"))]
    assert found
    assert [each for path in found for each in _cited_and_missing(path)] == []


def test_what_configuration_cites_exists() -> None:
    """Comments of YAML, TOML, Makefile, Dockerfile, units and the example of an environment."""
    suffixes = {".yaml", ".toml", ".service", ".example", ".env"}
    found = [ROOT / path for path in _paths() if path.suffix in suffixes or path.name in {"Makefile", "Dockerfile"}]
    assert len(found) > len(suffixes)
    assert [each for path in found for each in _cited_and_missing(path)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_cites_exists(page: Path) -> None:
    assert _cited_and_missing(page) == []


def test_what_is_found_missing() -> None:
    """A rule, files near and far, and symbols; and what is there is not reported."""
    assert _missing_rules("(R5.3, R5.99)") == ["R5.99"]
    here = Path(__file__)
    assert _missing_files(here, "test_docs.py, `defs/sync.py`, and no_such.py or sync/stage_.py") == ["no_such.py", "sync/stage_.py"]
    assert _missing_files(ROOT / "roster_pipeline" / "alerts" / "causes.py", "`sync.py`") == ["sync.py"], "there are several"
    assert _missing_symbols("`make_plan`, `unheard_of(Plan)`, `test_do*`, `unheard_of_*`, `make PAGE`") == ["unheard_of", "unheard_of_"]
