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
    is_reached: bool


def print_lines(lines: Iterable[Line]) -> None:
    """Prints lines of the table. It is called for each part as soon as that is measured."""
    for line in lines:
        print(f"{line.what:<84}{line.target:>12}{line.measured:>12}{'' if line.is_reached else '  missed'}", flush=True)


def at_most(what: str, measured: float, target: float) -> Line:
    """A line whose target is a maximum."""
    return Line(what, f"≤ {target:g}", f"{measured:,.2f}", measured <= target)


def at_least(what: str, measured: float, target: float) -> Line:
    """A line whose target is a minimum."""
    return Line(what, f"≥ {target:g}", f"{measured:,.1f}", measured >= target)


def machine() -> str:
    """The machine on which the figures were measured."""
    return f"{os.cpu_count()} CPUs, load {os.getloadavg()[2]:.1f}, Python {platform.python_version()}, {platform.platform()}"
