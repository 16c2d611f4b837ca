"""The files around the package: `.env.example` and the pins are complete, a checkout can be installed, and CI, hooks, make targets, the
scan for secrets and the changelog agree with each other.
"""

import json
import os
import re
import secrets
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from roster_pipeline.settings import Settings

ROOT = Path(__file__).parents[1]
LOCKS = [ROOT / "requirements.lock", ROOT / "requirements-dev.lock"]


def test_env_example_lists_every_variable() -> None:
    """SPEC 2: it lists exactly the variables of the settings, each with its description and default."""
    listed = re.findall(r"^# (.+)\n# ([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    fields = Settings.model_fields.items()
    assert listed == [(field.description, name.upper(), "" if field.default is None else str(field.default)) for name, field in fields]


@pytest.mark.parametrize(
    "lock",
    [*LOCKS, ROOT / "benchmarks" / "requirements-dlt.lock", ROOT / "deploy" / "kubernetes" / "launcher.lock"],
    ids=lambda lock: lock.name,
)
def test_locks_are_complete(lock: Path) -> None:
    """Every package is pinned with its hashes, and no lock names the server that the packages came from."""
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*(--index|--extra-index|--find-links|--trusted)", text, re.MULTILINE)
    packages = re.findall(r"^[a-z0-9].*$", text, re.MULTILINE)
    assert packages
    assert not [line for line in packages if not re.match(r"^[a-z0-9.-]+(\[[a-z,-]+\])?==\S+( ; .*)? \\$", line)]


def pins(lock: Path) -> dict[str, str]:
    """The pins of a lock: name -> version."""
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[[a-z,-]+\])?==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


def test_locks_agree_with_the_project_and_each_other() -> None:
    """The locks install the versions that pyproject.toml pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime, development = (pins(lock) for lock in LOCKS)
    for named, locked in ((project["dependencies"], runtime), (project["optional-dependencies"]["dev"], development)):
        for requirement in named:
            name, version = re.sub(r"\[.*\]", "", requirement).split("==")
            assert locked[name.lower()] == version
    assert runtime.items() <= development.items()


def test_models_are_found_from_anywhere(tmp_path: Path) -> None:
    """`dbt_like_sql/` is beside the package. It must be found from any folder, because `roster` can be called in any."""
    code = "from roster_pipeline.sync.run import project_models; print(len(list(project_models())))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert int(ended.stdout) == len(list((ROOT / "dbt_like_sql").glob("*/*.sql")))


def test_make_lists_its_targets() -> None:
    """`make` alone lists the targets, and installs nothing."""
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"^make ([a-z-]+) ", listed, re.MULTILINE))
    (phony,) = re.findall(r"^\.PHONY: help (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets == set(phony.split()) >= {"demo", "dev", "test", "lint", "bench", "lock"}


def make_would_run(target: str) -> list[str]:
    """The commands of a target, when everything is installed already."""
    # A `make` that runs these tests leaves its own flags and level in the environment.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    command = ["make", "-n", "-o", ".venv/installed-dev", target]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return ended.stdout.splitlines()


def test_every_target_is_documented() -> None:
    """README.md or CONTRIBUTING.md names every target."""
    (phony,) = re.findall(r"^\.PHONY: help (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    pages = " ".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md"))
    assert set(phony.split()) <= set(re.findall(r"\bmake ([a-z-]+)", pages))


def hooks() -> list[dict[str, object]]:
    configuration = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repository,) = configuration["repos"]
    assert repository["repo"] == "local"  # any other would be downloaded
    return list(repository["hooks"])


def test_hooks_are_the_commands_of_make_lint() -> None:
    """What passes before a commit also passes in CI: the same tools with the same options, there on all files, here on changed ones. Only
    mypy is not a hook, because it always needs all files.
    """
    commands = [line for line in make_would_run("lint") if " -m mypy" not in line]
    entries = [str(hook["entry"]) for hook in hooks()]
    assert all(hook["language"] == "system" for hook in hooks())
    assert len(commands) == len(entries)
    for command, entry in zip(commands, entries, strict=True):
        assert re.search(rf"(^|\s){re.escape(entry)}($|\s)", command), entry


def test_the_workflow_runs_what_ci_runs() -> None:
    """The workflow calls the one CI script. It may only read, has a time-out, and pins actions by commit, because a tag can be moved."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert job["timeout-minutes"] <= 120
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    for action in (step["uses"] for step in job["steps"] if "uses" in step):
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action), action
    assert "secrets." not in json.dumps(workflow)


def scan_for_secrets(*files: Path) -> int:
    """The exit status of the scan that `make lint` and the hooks run."""
    (entry,) = (str(hook["entry"]) for hook in hooks() if hook["id"] == "secrets")
    _, *arguments = entry.split()
    return subprocess.run([sys.executable, *arguments, *map(str, files)], cwd=ROOT, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('CLEVER_CLIENT_SECRET = "{}"', secrets.token_urlsafe(32)),
        ("postgresql://roster:{}@db.example.org/roster", secrets.token_hex(8)),
        ("-----BEGIN RSA PRIVATE {}-----", "KEY"),
        ('digest = "{}"', secrets.token_hex(32)),
    ],
    ids=["keyword", "url", "key", "hex"],
)
def test_the_scan_finds_a_secret(line: str, value: str, tmp_path: Path) -> None:
    """The exceptions in .secrets.baseline are for placeholders and Clever ids only."""
    file = tmp_path / "leak.py"
    file.write_text(line.format("password"), encoding="utf-8")
    assert scan_for_secrets(file) == 0
    file.write_text(line.format(value), encoding="utf-8")
    assert scan_for_secrets(file) == 1


def test_the_baseline_lists_no_findings() -> None:
    """A list of findings would have to be updated whenever a line moves, and a person would have to check each of them."""
    baseline = json.loads((ROOT / ".secrets.baseline").read_text(encoding="utf-8"))
    assert baseline["results"] == {}


def test_the_changelog_has_this_release() -> None:
    """The newest section is first: unreleased changes, then the version of pyproject.toml."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", sections[1])


def test_the_line_length_is_the_same_everywhere() -> None:
    """Three files have a maximum line length."""
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["line-length"]
    sqlfluff = re.findall(r"^max_line_length = (\d+)$", (ROOT / ".sqlfluff").read_text(encoding="utf-8"), re.MULTILINE)
    editor = re.findall(r"^max_line_length = (\d+)$", (ROOT / ".editorconfig").read_text(encoding="utf-8"), re.MULTILINE)
    assert sqlfluff == editor == [str(ruff)]
