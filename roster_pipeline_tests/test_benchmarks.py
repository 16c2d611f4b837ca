"""The steps of `make bench` run, on a district of a few people. A step that does not run measures nothing.

Does not belong here: figures and targets (`benchmarks/README.md`), and dlt, whose packages are installed beside the project.
"""

from pathlib import Path

import pytest

from benchmarks.place import place


def test_every_step_of_the_benchmark_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of `benchmarks/__main__.py`: each step is a process, and the district changes between them."""
    monkeypatch.chdir(Path(__file__).parents[1])
    with place(60) as here:
        floor, first, again = here.step("product", "floor"), here.step("product", "sync"), here.step("product", "sync")
        assert first["rows"] > floor["rows"] > 0
        assert again["rows"] == 0
        here.change(1)
        assert here.step("product", "sync")["rows"] > 0
        here.change(2)
        assert here.step("locks")["longest_wait_ms"] >= 0
        assert here.step("literally")["seconds"] > 0
        assert here.step("with_orm")["seconds"] > 0
