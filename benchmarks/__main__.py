"""`make bench`: compares the product with the floor of this machine and with other tools, as ratios within one run.

Belongs here: the order of the steps, and the lines of the table. Does not belong here: the steps, each in its own module, where they run
(`place.py`), how a line is printed (`table.py`), and nights of many districts (`night.py`).

Every step is a process of its own. Figures are medians. On a shared machine single seconds mean nothing; ratios do.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence

from benchmarks.place import Figures, Place, place
from benchmarks.table import Line, at_least, at_most, machine, print_lines

Runs = dict[str, list[Figures]]

# dlt in two ways: a fast one that needs much code, and the one of its tutorials.
DLT = {"arrow": "dlt with Arrow tables", "rest": "dlt with its REST client"}

MB = 1_000_000
ORM_STUDENTS = 10_000


def main() -> None:
    """Run the benchmark and print its table, and with --json its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--students", type=int, default=100_000, help="students of the generated district")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure everything but the first sync")
    parser.add_argument("--tenfold", action="store_true", help="also measure a district ten times as large: an hour")
    parser.add_argument("--dlt", metavar="PYTHON", help="also compare with dlt: a Python with the packages of requirements-dlt.lock")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    show = (lambda _lines: None) if arguments.json else print_lines
    show([Line(f"{arguments.students:,} students; {machine()}", "target", "measured", True)])
    with place(arguments.students) as here:
        runs = _product(here, arguments.rounds) | _others(here, arguments.rounds, arguments.dlt)
    show(_lines(runs))
    with place(min(arguments.students, ORM_STUDENTS)) as here:
        small = _row_by_row(here)
    show(_lines_of_others(runs, small, min(arguments.students, ORM_STUDENTS)))
    tenfold: Runs = {}
    if arguments.tenfold:
        with place(10 * arguments.students) as here:
            tenfold = _tenfold(here)
    show(_lines_of_tenfold(runs, tenfold))
    if arguments.json:
        figures = {"machine": machine(), "students": arguments.students, "runs": runs, "small": small, "tenfold": tenfold}
        print(json.dumps(figures, indent=1))


def _product(here: Place, rounds: int) -> Runs:
    """Measures the floor and syncs, in turn."""
    runs: Runs = {each: [] for each in ("floor", "first", "full", "changed", "repeated", "unchanged")}
    runs["floor"].append(here.step("product", "floor"))
    # The sync after the first makes a full plan, and has nothing to write.
    for name in ("first", "full"):
        runs[name].append(here.step("product", "sync"))
    for number in range(rounds):
        runs["floor"].append(here.step("product", "floor"))
        here.change(number)
        # The first sync of the same data after it compares what was written. Every further one has nothing to do.
        for name in ("changed", "repeated", "unchanged"):
            runs[name].append(here.step("product", "sync"))
    return runs


def _others(here: Place, rounds: int, dlt: str | None) -> Runs:
    """Measures locks, and other tools with the same data. It comes last, because it changes the rows of `app`."""
    here.change(rounds)
    runs: Runs = {"locks": [here.step("locks")], "literally": [here.step("literally") for _ in range(rounds)]}
    if dlt:
        for way in DLT:
            runs[way] = [here.step("with_dlt", "--way", way, python=dlt) for _ in range(1 + rounds)]
    return runs


def _row_by_row(here: Place) -> Runs:
    """Measures the first and the second run of the product and of the ORM."""
    return {
        "product": [here.step("product", "sync") for _ in range(3)],
        "orm": [here.step("with_orm") for _ in range(2)],
    }


def _tenfold(here: Place) -> Runs:
    runs = {"first": [here.step("product", "sync")], "full": [here.step("product", "sync")]}
    return runs | {"unchanged": [here.step("product", "sync") for _ in range(3)], "floor": [here.step("product", "floor")]}


def _median(runs: Sequence[Figures], figure: str = "seconds") -> float:
    return statistics.median(float(each[figure]) for each in runs)


def _lines(runs: Runs) -> Iterator[Line]:
    floor = _median(runs["floor"])
    names = {
        "unchanged": ("nothing changed", 1.0),
        "repeated": ("nothing changed, right after a sync that wrote", 1.0),
        "changed": ("1 % changed", 1.3),
        "first": ("first sync into an empty district", 5.0),
    }
    for name, (what, target) in names.items():
        yield at_most(f"{what}: whole sync ÷ floor", _median(runs[name]) / floor, target)
    yield Line("nothing changed, full plan: whole sync ÷ floor", "", f"{_median(runs['full']) / floor:,.2f}", True)
    for name in ("unchanged", "repeated"):
        yield at_most(f"{names[name][0]}: rows written in app", max(each["rows"] for each in runs[name]), 0)
        yield at_most(f"{names[name][0]}: WAL of app, MB", max(each["app_wal_bytes"] for each in runs[name]) / MB, 1)
    yield at_most("peak memory of a sync, MB", max(each["peak_mb"] for name in names for each in runs[name]), 600)
    yield at_most("1 % changed: longest wait of another session, ms", runs["locks"][0]["longest_wait_ms"], 200)
    yield at_most("1 % changed: rows of app.users held before the commit, ms", runs["locks"][0]["longest_hold_ms"], 200)


def _lines_of_others(runs: Runs, small: Runs, students: int) -> Iterator[Line]:
    literally = _median(runs["literally"])
    for name, what in (("unchanged", "nothing changed"), ("repeated", "nothing changed, right after a sync that wrote")):
        yield at_least(f"literally (soft-delete all, roster all) ÷ {what}", literally / _median(runs[name]), 3)
    wal = _median(runs["literally"], "wal_bytes") / max(1.0, _median(runs["repeated"], "app_wal_bytes"))
    yield at_least("literally ÷ nothing changed: WAL of app", wal, 100)
    for way, what in DLT.items():
        if way in runs:
            first, *again = runs[way]
            yield at_least(f"{what}, first load ÷ first sync", first["seconds"] / _median(runs["first"]), 5)
            yield at_least(f"{what}, nothing changed ÷ nothing changed", _median(again) / _median(runs["unchanged"]), 5)
    for number, what in ((0, "first sync"), (1, "nothing changed")):
        ratio = small["orm"][number]["seconds"] / small["product"][2 * number]["seconds"]
        yield at_least(f"row by row with the ORM ÷ {what}, {students:,} students", ratio, 50)


def _lines_of_tenfold(runs: Runs, tenfold: Runs) -> Iterator[Line]:
    if tenfold:
        small, memory = (max(each["peak_mb"] for name in ("first", "full", "unchanged") for each in of[name]) for of in (runs, tenfold))
        yield at_most("ten times the students: peak memory ÷", memory / small, 1.3)
        yield at_most("ten times the students: peak memory, MB", memory, 600)
        for name, what in (("unchanged", "nothing changed"), ("full", "nothing changed, full plan"), ("first", "first sync")):
            yield at_most(f"ten times the students, {what}: time ÷ 10 ×", _median(tenfold[name]) / _median(runs[name]) / 10, 1.2)


if __name__ == "__main__":
    main()
