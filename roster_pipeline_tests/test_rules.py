"""Every rule of docs/rules.md is cited by a test that its row names.

Does not belong here: that the files and tests of a row exist (`test_docs.py`), and that a cited rule exists (`test_citations.py`).
"""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
RULES = TESTS.parent / "docs" / "rules.md"

# Rules that have a number and no code yet: the sum of the deactivations of 24 hours, and what an application does about the feed.
NOT_BUILT = frozenset({"R17.2"})


def _rows() -> dict[str, list[tuple[str, str]]]:
    """Rule -> the tests that its row names: the file, and the function if the row names one."""
    rows = re.findall(r"^\| (R\d+\.\d+) \|.*\| ([^|]*) \|$", RULES.read_text(encoding="utf-8"), re.MULTILINE)
    return {rule: re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", shown) for rule, shown in rows}


def _cited(file: str, function: str) -> set[str]:
    """The rules that the docstring of a test or of its module names; those of all tests of the file if no function is named.

    `R5.1-R5.3` names all three.
    """
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and function in ("", node.name)]
    text = "\n".join([ast.get_docstring(tree) or "", *(ast.get_docstring(test) or "" for test in tests)])
    cited = set(re.findall(r"\bR\d+\.\d+\b", text))
    for section, first, last in re.findall(r"\bR(\d+)\.(\d+)\s*[-–]\s*R\d+\.(\d+)\b", text):
        cited |= {f"R{section}.{number}" for number in range(int(first), int(last) + 1)}
    return cited


def test_every_rule_is_cited_by_a_test_that_its_row_names() -> None:
    """A rule without a test can break unnoticed."""
    rows = _rows()
    uncited = [rule for rule, tests in rows.items() if not any(rule in _cited(file, function) for file, function in tests)]
    assert not uncited, f"No test in the row of {', '.join(uncited)} (docs/rules.md) has the rule in its docstring."


def test_the_rules_are_numbered_without_gaps() -> None:
    """Sections 3 to 9, 11, 13, 14, 17 and 18. A new rule has the next free number of its section; a rule that is removed leaves its row."""
    numbers: dict[int, list[int]] = {}
    for rule in _rows():
        section, number = rule.removeprefix("R").split(".")
        numbers.setdefault(int(section), []).append(int(number))
    assert sorted(numbers) == [*range(3, 10), 11, 13, 14, 17, 18]
    for each, found in numbers.items():
        expected = [number for number in range(1, max(found) + 1) if f"R{each}.{number}" not in NOT_BUILT]
        assert found == expected, f"The rules of section {each} are {found}."
