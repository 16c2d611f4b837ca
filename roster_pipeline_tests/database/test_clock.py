"""R11.6: the database's clock is the only one by which the pipeline orders events and computes ages."""

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "roster_pipeline"
# Modules that read this machine's clock, and why.
READ_IT = {
    "database/clock.py": "compares it with the database's",
    "districts/agreement.py": "the range of a start date, which is years wide",
}


def test_no_other_module_reads_the_clock_of_this_machine() -> None:
    """A time that is stored or compared with a stored one comes from `database_time`. The simulated Clever is another machine."""
    reads = re.compile(r"\b(?:datetime|date)\.(?:now|today|utcnow)\(")
    found = {
        module.relative_to(PACKAGE).as_posix()
        for module in sorted(PACKAGE.rglob("*.py"))
        if reads.search(module.read_text(encoding="utf-8"))
    }
    assert {each for each in found if not each.startswith("sandbox/")} == READ_IT.keys()
