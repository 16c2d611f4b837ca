"""What the files around the package promise: the environment's list is complete, the pins are whole, a checkout can be installed."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from roster_pipeline.settings import Settings

ROOT = Path(__file__).parents[1]
LOCKS = [ROOT / "requirements.lock", ROOT / "requirements-dev.lock"]


def test_env_example_lists_every_variable() -> None:
    """SPEC 2: everything tunable is listed, with its meaning and default; nothing that does not exist is."""
    listed = re.findall(r"^# (.+)\n# ([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    fields = Settings.model_fields.items()
    assert listed == [(field.description, name.upper(), "" if field.default is None else str(field.default)) for name, field in fields]


@pytest.mark.parametrize(
    "lock",
    [*LOCKS, ROOT / "benchmarks" / "requirements-dlt.lock", ROOT / "deploy" / "kubernetes" / "launcher.lock"],
    ids=lambda lock: lock.name,
)
def test_locks_are_whole(lock: Path) -> None:
    """Every package is pinned with its hashes, and none is tied to the place it was fetched from."""
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*(--index|--extra-index|--find-links|--trusted)", text, re.MULTILINE)
    packages = re.findall(r"^[a-z0-9].*$", text, re.MULTILINE)
    assert packages
    assert not [line for line in packages if not re.match(r"^[a-z0-9.-]+(\[[a-z,-]+\])?==\S+( ; .*)? \\$", line)]


def pins(lock: Path) -> dict[str, str]:
    """Name -> version, of a lock."""
    return dict(re.findall(r"^([a-z0-9.-]+)(?:\[[a-z,-]+\])?==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


def test_locks_agree_with_the_project_and_each_other() -> None:
    """What pyproject.toml pins is what the locks install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime, development = (pins(lock) for lock in LOCKS)
    for named, locked in ((project["dependencies"], runtime), (project["optional-dependencies"]["dev"], development)):
        for requirement in named:
            name, version = re.sub(r"\[.*\]", "", requirement).split("==")
            assert locked[name.lower()] == version
    assert runtime.items() <= development.items()


def test_models_are_found_from_anywhere(tmp_path: Path) -> None:
    """`dbt_like_sql/` lies beside the package: it has to be found from another folder too, as `roster` may be called in any."""
    code = "from roster_pipeline.sync.run import project_models; print(len(list(project_models())))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert int(ended.stdout) == len(list((ROOT / "dbt_like_sql").glob("*/*.sql")))


def test_make_lists_its_targets() -> None:
    """`make` alone says what there is, and installs nothing."""
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"^make ([a-z]+) ", listed, re.MULTILINE))
    (phony,) = re.findall(r"^\.PHONY: help (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets == set(phony.split()) >= {"demo", "dev", "test", "lint", "bench", "lock"}
