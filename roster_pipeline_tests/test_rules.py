"""Every rule of SPEC sections 3 to 9 and 11 has a test that cites it."""

import ast
import re
from pathlib import Path

HOW_MANY = {3: 8, 4: 6, 5: 9, 6: 4, 7: 6, 8: 3, 9: 3, 11: 8}


def _cited() -> set[str]:
    """The rules that docstrings of test functions and test modules cite. `R5.1-R5.3` cites all three."""
    cited = set()
    for path in Path(__file__).parent.rglob("test_*.py"):
        if path == Path(__file__):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.FunctionDef) and (text := ast.get_docstring(node)):
                cited |= set(re.findall(r"\bR\d+\.\d+\b", text))
                for section, first, last in re.findall(r"\bR(\d+)\.(\d+)\s*[-–]\s*R\d+\.(\d+)\b", text):
                    cited |= {f"R{section}.{number}" for number in range(int(first), int(last) + 1)}
    return cited


def test_every_rule_is_cited_by_a_test() -> None:
    """A rule without a test can break unnoticed."""
    rules = {f"R{section}.{number}" for section, last in HOW_MANY.items() for number in range(1, last + 1)}
    assert sorted(rules - _cited()) == []
