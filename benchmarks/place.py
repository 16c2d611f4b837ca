"""The environment of a benchmark: a simulated Clever with one generated district, and an embedded server with the product's tables.

Belongs here: starting both, and running one step as a process. Does not belong here: what a step does (`product.py`, `literally.py`,
`locks.py`, `with_dlt.py`, `with_orm.py`), and which steps make the table (`__main__.py`).
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from roster_pipeline.database.embedded import EmbeddedServer
from roster_pipeline.database.engine import open_database
from roster_pipeline.database.migrate import migrate
from roster_pipeline.districts.agreement import Agreement, record_agreement
from roster_pipeline.profiles import Brakes
from roster_pipeline.settings import Settings

Figures = dict[str, Any]

# A generated night can change so many people of one school that a brake trips. The benchmark measures writing, not holding.
_NO_BRAKES = {"brakes": {name: 10**6 for name in Brakes.model_fields if name.endswith("_floor")}}


@dataclass(frozen=True)
class Place:
    """One district of `students` students, in the simulated Clever and signed up in the database."""

    students: int
    district: str
    environment: dict[str, str]
    control: str

    def step(self, module: str, *arguments: str, python: str = sys.executable) -> Figures:
        """Runs one step in a process of its own, to measure its peak memory. Returns the last line of its output."""
        command = [python, "-m", f"benchmarks.{module}", self.district, *arguments]
        done = subprocess.run(command, env={**os.environ, **self.environment}, stdout=subprocess.PIPE, text=True, check=True)
        figures: Figures = json.loads(done.stdout.splitlines()[-1])
        print(f"  {self.students:,} students, {module} {' '.join(arguments)}: {figures['seconds']:.1f} s", file=sys.stderr, flush=True)
        return figures

    def change(self, seed: int) -> None:
        """Makes the changes of a night: about 1 % of the people, and their sections."""
        request = Request(
            f"{self.control}/night_of_changes", data=json.dumps({"seed": seed}).encode(), headers={"Content-Type": "application/json"}
        )
        with urlopen(request) as answer:
            answer.read()


@contextmanager
def place(students: int) -> Iterator[Place]:
    """A place during the block."""
    command = [sys.executable, "-m", "roster_pipeline.cli", "sandbox", "serve", "--port", "0", "--no-rate-limit", "--json"]
    with (
        tempfile.TemporaryDirectory(prefix="roster-bench-") as home,
        subprocess.Popen([*command, "--students", str(students)], stdout=subprocess.PIPE, text=True) as clever,
        ExitStack() as opened,
    ):
        try:
            assert clever.stdout is not None
            ready = json.loads(clever.stdout.readline())
            (district,) = ready["districts"]
            # The data of root's server are not below the temporary folder.
            opened.callback(lambda: shutil.rmtree((Path(home) / "postgres").resolve(), ignore_errors=True))
            with EmbeddedServer(Path(home)), open_database(Settings(_env_file=None, roster_home=Path(home))) as database:
                migrate(database)
                with database.engine.begin() as connection:
                    record_agreement(connection, Agreement(district, "Benchmark", "typing_agent", "bench.example", settings=_NO_BRAKES))
                # Close all sessions: a step counts what it has written when all other sessions have ended.
                database.engine.dispose()
                yield Place(students, district, {**ready["environment"], "ROSTER_HOME": home}, ready["control"])
        finally:
            clever.terminate()
