"""The documentation does what it says: its commands run and print what it shows, its links lead somewhere, its names exist.

How a page is read:

- A `console` block is run. `$ roster ...` is a command, which ends with status 0 unless a comment behind it says otherwise
  (`# exit status 3`). The lines below it are what it prints, in this order. Lines may be left out; numbers, spacing and `(name)` stand
  for any.
- An `sh` block needs the outside world: its `roster` commands are only parsed. A `csv NAME` block is a file that commands may read.
- A comment `<!-- in Clever: VERB JSON -->` is something that happens in the simulated Clever at that point, and
  `<!-- in the application: SQL -->` a statement that the application runs then; readers do not see them.
"""

import ast
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import click
import pytest

from roster_pipeline import cli
from roster_pipeline.database.engine import Database
from roster_pipeline.database.migrate import known_tables
from roster_pipeline.sandbox import Sandbox, SandboxServer, generate_district
from roster_pipeline.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RULES = ROOT / "docs" / "rules.md"
SITES = {"localhost:3000;", "clever.com", "dagster.io", "docs.astral.sh", "github.com", "hooks.slack.com", "keepachangelog.com"}

Run = Callable[[list[str]], tuple[int, str]]


class Event(NamedTuple):
    """Something a page says happens: a console block, a change in Clever, or a statement of the application."""

    block: str
    verb: str
    arguments: str
    statement: str


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=_name)


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _prose(page: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", _text(page), flags=re.MULTILINE | re.DOTALL)


def _events(page: Path) -> list[Event]:
    pattern = r"^```console\n(.*?)^```$|^<!-- in Clever: (\w+) (.*?) -->$|^<!-- in the application: (.*?) -->$"
    return [Event(*(part or "" for part in found)) for found in re.findall(pattern, _text(page), re.MULTILINE | re.DOTALL)]


def _shell_commands(page: Path) -> Iterator[list[str]]:
    """The `roster` commands of the `sh` blocks."""
    for block in re.findall(r"^```sh\n(.*?)^```$", _text(page), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "roster":
                yield words[1:]


def _console_commands(block: str) -> Iterator[tuple[list[str], int, list[str]]]:
    """Arguments of `roster`, exit status and the lines shown, for each command of a block."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        line, _, shown = part.replace("\\\n", " ").partition("\n")
        status = re.search(r"# exit status (\d+)$", line)
        program, *arguments = shlex.split(line, comments=True)
        if program == "make":
            program, arguments = "roster", [*arguments, "--yes"]  # the targets that run a command are called as it is
        assert program == "roster", line
        yield arguments, int(status[1]) if status else 0, [text for text in shown.splitlines() if text.strip(" ─.")]


def _pattern(shown: str) -> re.Pattern[str]:
    text = re.escape(" ".join(shown.split()))
    text = re.sub(r"\\\(name\\\)", ".+", text)
    return re.compile(re.sub(r"\d[\d,:]*(?:\\\.\d+)?", r"\\d[\\d,:]*(?:\\.\\d+)?", text))


@pytest.fixture
def roster(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one command in this process, in an environment that names the test's database and nothing else."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("ROSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ROSTER_DATABASE_URL", database.url.render_as_string(hide_password=False))
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setattr(cli, "_install_handlers", lambda **_: None)  # they would stay for the rest of the test run
    monkeypatch.chdir(tmp_path)

    def run(arguments: list[str]) -> tuple[int, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out + captured.err

    return run


@pytest.fixture
def clever(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """The simulated Clever that `roster sandbox serve --students 200` runs."""
    sandbox = Sandbox(generate_district(1, 200))
    with SandboxServer(sandbox) as server:
        for name in ("CLEVER_API_URL", "CLEVER_AUTH_URL"):
            monkeypatch.setenv(name, server.url)
        monkeypatch.setenv("CLEVER_CLIENT_ID", sandbox.client_id)
        monkeypatch.setenv("CLEVER_CLIENT_SECRET", sandbox.client_secret)
        yield sandbox


@pytest.mark.parametrize("page", [page for page in PAGES if _events(page)], ids=_name)
def test_commands_run_and_print_what_is_shown(page: Path, roster: Run, clever: Sandbox, database: Database, tmp_path: Path) -> None:
    """Every console block of a page, in order, against one database and one Clever."""
    for name, content in re.findall(r"^```csv (\S+)\n(.*?)^```$", _text(page), re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(content, encoding="utf-8")
    for event in _events(page):
        if event.verb:
            getattr(clever.change(), event.verb)(**json.loads(event.arguments))
        if event.statement:
            with database.engine.begin() as connection:
                connection.exec_driver_sql(event.statement)
        for arguments, status, shown in _console_commands(event.block):
            ended, printed = roster(arguments)
            assert ended == status, f"{_name(page)}: roster {shlex.join(arguments)} ended with {ended}:\n{printed}"
            lines = iter([" ".join(line.split()) for line in printed.splitlines()])
            for expected in shown:
                pattern = _pattern(expected)
                found = any(pattern.fullmatch(line) for line in lines)
                assert found, f"{_name(page)}: roster {shlex.join(arguments)} does not print (in this order): {expected}\n{printed}"


@every_page
def test_commands_can_be_parsed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that need the outside world: command, options and arguments exist."""
    monkeypatch.setattr(click.Command, "invoke", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    for arguments in _shell_commands(page):
        for name in (word for word in arguments if word.endswith(".csv")):
            (tmp_path / name).touch()
        cli.roster.main(arguments, standalone_mode=False)


@every_page
def test_commands_named_in_the_text_exist(page: Path) -> None:
    for words in re.findall(r"`roster ([a-z][^`]*)`", _prose(page)):
        assert words.split()[0] in cli.COMMANDS or "not there yet" in _section_around(page, f"`roster {words}`"), words


def _section_around(page: Path, text: str) -> str:
    sections = re.split(r"^(?=#)", _text(page), flags=re.MULTILINE)
    return " ".join(section for section in sections if text in section).splitlines()[0]


def test_readme_lists_every_command() -> None:
    listed = re.findall(r"^\| (`roster .*?) \|", _text(ROOT / "README.md"), re.MULTILINE)
    assert set(re.findall(r"`roster (\w+)", " ".join(listed))) == set(cli.COMMANDS)


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    """Files, images and headings."""
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", _prose(page)):
        path, _, anchor = "".join(target).partition("#")
        if path.startswith("https://"):
            continue
        file = (page.parent / unquote(path)).resolve() if path else page
        assert file.is_relative_to(ROOT), target
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), target


def _anchors(page: Path) -> set[str]:
    """The headings as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_pages_name_nothing_of_one_machine(page: Path) -> None:
    """A page holds on every machine: no absolute path but those that the project itself fixes, no site but the few that it links to."""
    paths = re.findall(r"(?<![\w.:/<>*-])/[a-z][\w-]*/[\w./-]*", _text(page))
    # Where root's embedded server is, and where the systemd units say that things are.
    known = ("/var/lib/roster-pipeline/", "/opt/roster", "/etc/roster.env", "/etc/systemd/system/")
    assert not [path for path in paths if not path.startswith(known)]
    assert set(re.findall(r"\bhttps?://([^/)\s]+)", _text(page))) <= SITES


@every_page
def test_environment_variables_exist(page: Path) -> None:
    """Every variable is one of `.env.example`, or of the file that reads it."""
    tests = ROOT / "roster_pipeline_tests"
    readers = [ROOT / ".env.example", ROOT / "dagster.yaml", tests / "conftest.py", tests / "reference" / "test_model.py"]
    known = set(re.findall(r"[A-Z][A-Z_]+", " ".join(map(_text, readers))))
    assert set(re.findall(r"\b(?:ROSTER|CLEVER|DAGSTER)_[A-Z_]+\b", _text(page))) <= known


@every_page
def test_files_named_in_the_text_exist(page: Path) -> None:
    """`dbt_like_sql/...`, `roster_pipeline/...`, `roster_pipeline_tests/...`, and on pages that say so, paths inside the package."""
    for path in re.findall(r"`((?:dbt_like_sql|roster_pipeline|roster_pipeline_tests|benchmarks|docs)/[\w./-]*)`", _prose(page)):
        assert (ROOT / path).exists(), path


@every_page
def test_messages_exist(page: Path) -> None:
    """A table of messages quotes what the code says; `...` stands for what differs."""
    source = " ".join(_text(file) for file in sorted((ROOT / "roster_pipeline").rglob("*.py")))
    for table in re.findall(r"^\| message \|.*\n\|.*\n((?:\|.*\n)+)", _text(page), re.MULTILINE):
        for message in re.findall(r"`([^`]+ [^`]+)`", " ".join(row.split(" | ")[0] for row in table.splitlines())):
            for part in re.split(r"\.\.\.|\d+|paused", message):
                assert part.strip(" ().:") in source, f"{message}: {part}"


# rules.md


def _rule_rows() -> dict[str, tuple[str, str]]:
    """Rule -> the cells that say where it lives and what shows it."""
    rows = re.findall(r"^\| (R\d+\.\d+) \|.*\| ([^|]*) \| ([^|]*) \|$", _text(RULES), re.MULTILINE)
    assert len(rows) == len({rule for rule, _, _ in rows})
    return {rule: (lives, shown) for rule, lives, shown in rows}


def test_every_rule_of_a_sql_model_is_in_the_rules() -> None:
    """Both ways: docs/rules.md names a model for a rule exactly if the header of the model has the rule."""
    folder = ROOT / "dbt_like_sql"
    headers = {
        (rule, file.relative_to(folder).as_posix())
        for file in folder.glob("*/*.sql")
        for cited in re.findall(r"^-- rules: (.+)$", _text(file), re.MULTILINE)
        for rule in cited.split(", ")
    }
    page = {
        (rule, model)
        for rule, (lives, _) in _rule_rows().items()
        for model in re.findall(r"`((?:staging|reconcile|app|ops|audits)/\w+\.sql)`", lives)
    }
    assert sorted(headers - page) == [], "Headers of SQL models have these rules; name the models in docs/rules.md (lives in)."
    assert sorted(page - headers) == [], "docs/rules.md names these models; add the rules to their headers."


def test_what_the_rules_name_exists() -> None:
    """Files are named from dbt_like_sql/ or roster_pipeline/, tests from roster_pipeline_tests/."""
    for rule, (lives, shown) in _rule_rows().items():
        assert lives.strip(), rule
        assert shown.strip(), rule
        for path in re.findall(r"`([\w/]+\.(?:sql|py))`", lives):
            assert any((ROOT / folder / path).exists() for folder in ("dbt_like_sql", "roster_pipeline")), f"{rule}: {path}"
        for path, test in re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", shown):
            file = ROOT / "roster_pipeline_tests" / path
            assert file.exists(), f"{rule}: {path}"
            assert not test or test in _tests(file), f"{rule}: {path}::{test}"


def _tests(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(_text(file))) if isinstance(node, ast.FunctionDef)}


def test_tables_named_in_the_text_exist() -> None:
    """`app.users`, `ops.syncs`, ... on every page, with `ops.syncs.counts` where a column follows."""
    tables = known_tables()
    for page in PAGES:
        for table, column in re.findall(r"`((?:app|staging|ops)\.[a-z_]+)(?:\.([a-z_]+))?`", _prose(page)):
            assert table in tables, f"{_name(page)}: {table}"
            assert not column or column in tables[table], f"{_name(page)}: {table}.{column}"
