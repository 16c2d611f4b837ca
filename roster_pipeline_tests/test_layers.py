"""Which part of the package may import which: every import is checked against the line of layers in docs/architecture.md.

Does not belong here: bans of single libraries (`dagster`, `requests`), which the linter checks (`pyproject.toml`).
"""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "roster_pipeline"
ARCHITECTURE = ROOT / "docs" / "architecture.md"

# The modules that start the pipeline. They may import everything, and no module imports them.
ENTRY_POINTS = {"cli", "dev", "definitions"}
# The simulated Clever is not part of the pipeline: only modules that start it may import it.
SANDBOX = "sandbox"


def line_of_layers() -> list[set[str]]:
    """The layers of docs/architecture.md, the highest first."""
    (line,) = re.findall(r"^    (\w[\w, ]*(?: > \w[\w, ]*)+)$", ARCHITECTURE.read_text(encoding="utf-8"), re.MULTILINE)
    return [set(layer.split(", ")) for layer in line.split(" > ")]


def part_of(module: str) -> str:
    """`roster_pipeline.sync.run` -> `sync`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def modules() -> dict[str, Path]:
    """Every module of the package except the migrations, by its dotted name."""
    files = (file for file in sorted(PACKAGE.rglob("*.py")) if "migrations" not in file.parts)
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(file: Path) -> Iterator[str]:
    """The modules of this package that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
            assert node.level == 0, f"{file.name} has a relative import"
            names = [f"{node.module}.{each.name}" for each in node.names]
            yield from (name if name in ALL else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.split(".")[0] == PACKAGE.name)


ALL = modules()
IMPORTS = {module: sorted(set(imports(file)) - {module}) for module, file in ALL.items()}


def test_every_part_has_its_place_in_the_line() -> None:
    """A new folder or top-level module has to be added to the line in docs/architecture.md."""
    placed = [part for layer in line_of_layers() for part in layer]
    assert len(placed) == len(set(placed))
    assert set(placed) == {part_of(module) for module in ALL} - {"", SANDBOX}


@pytest.mark.parametrize("module", sorted(ALL))
def test_no_import_points_to_a_higher_layer(module: str) -> None:
    """A module imports only from lower layers, or from its own."""
    height = {part: number for number, layer in enumerate(line_of_layers()) for part in layer}
    part = part_of(module)
    for imported in IMPORTS[module]:
        other = part_of(imported)
        if other == SANDBOX or part in ("", SANDBOX) or not other:
            continue
        assert height[part] <= height[other], f"{module} imports {imported}, which is in a higher layer"


def test_there_is_no_circle_of_imports() -> None:
    """No module imports itself, not even through other modules."""
    list(TopologicalSorter({module: set(imported) & ALL.keys() for module, imported in IMPORTS.items()}).static_order())


def test_no_two_parts_import_each_other() -> None:
    """Two folders never import each other, also within one layer."""
    parts: dict[str, set[str]] = {}
    for module, imported in IMPORTS.items():
        parts.setdefault(part_of(module), set()).update({part_of(each) for each in imported} - {part_of(module), ""})
    list(TopologicalSorter(parts).static_order())


def test_one_file_of_a_sync_names_a_roster_source() -> None:
    """A second source is a folder beside `clever/` and a line in `sync/sources.py`. No other step of a sync names a source."""
    sources = next(layer for layer in line_of_layers() if "clever" in layer) - {"database"}
    opened = {part_of(each) for each in IMPORTS["roster_pipeline.sync.sources"]}
    assert sources <= opened, "a source that sync/sources.py does not open"
    for module, file in ALL.items():
        if part_of(module) in ("source", "sync") and module != "roster_pipeline.sync.sources":
            assert sources.isdisjoint(part_of(each) for each in IMPORTS[module]), module
            assert not [each for each in sources if f"roster_pipeline.{each}" in file.read_text(encoding="utf-8")], module


def test_only_modules_that_start_it_import_the_simulated_clever() -> None:
    importing = {module for module in ALL if part_of(module) != SANDBOX and any(part_of(each) == SANDBOX for each in IMPORTS[module])}
    assert {part_of(module) for module in importing} <= {"demo", "dev", "commands", "cli"}
