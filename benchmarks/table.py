"""The lines of the benchmarks' table: what is measured, its target, and the figure.

Does not belong here: measuring.
"""

import os
import platform
from collections.abc import Iterable
from typing import NamedTuple


class Line(NamedTuple):
    """One line of the table: what is measured, its target, and the figure."""

    what: str
    target: str
    measured: str
    is_met: bool


def print_lines(lines: Iterable[Line]) -> None:
    """Each part of the table as soon as it is known."""
    for line in lines:
        print(f"{line.what:<84}{line.target:>12}{line.measured:>12}{'' if line.is_met else '  missed'}", flush=True)


def at_most(what: str, measured: float, target: float) -> Line:
    """A line that is met up to its target."""
    return Line(what, f"≤ {target:g}", f"{measured:,.2f}", measured <= target)


def at_least(what: str, measured: float, target: float) -> Line:
    """A line that is met from its target on."""
    return Line(what, f"≥ {target:g}", f"{measured:,.1f}", measured >= target)


def machine() -> str:
    """What the figures were taken on."""
    return f"{os.cpu_count()} CPUs, load {os.getloadavg()[2]:.1f}, Python {platform.python_version()}, {platform.platform()}"
