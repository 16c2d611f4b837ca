"""`python -m benchmarks`: syncs of one generated district against the floor of this machine, taken alternately in one run.

The floor is what no sync can avoid: fetch the same pages over HTTP, decode them into the same typed records, and COPY the same columns into
    unlogged tables. Every sync runs in a process of its own, so that its peak memory is its own. Figures are medians; single seconds mean
    nothing on a shared machine, ratios do.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

ROUNDS = 3


def main() -> None:
    """Run the benchmark and print its table, and with --json its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--students", type=int, default=10_000, help="students of the generated district")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of floor, unchanged sync and changed sync")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--step", choices=["floor", "sync"], help=argparse.SUPPRESS)
    parser.add_argument("--district", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        _measure(arguments.step, arguments.district)
        return
    figures = _run(arguments.students, arguments.rounds)
    print(json.dumps(figures, indent=1) if arguments.json else _table(figures))


def _run(students: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="roster-bench-") as home, _sandbox(students) as (environment, district, control):
        environment |= {"ROSTER_HOME": home}
        from roster_pipeline.database.embedded import EmbeddedServer
        from roster_pipeline.database.engine import open_database
        from roster_pipeline.database.migrate import migrate
        from roster_pipeline.settings import Settings
        from roster_pipeline.sync.districts import Agreement, record_agreement

        with EmbeddedServer(Path(home)):
            settings = Settings(_env_file=None, roster_home=Path(home))
            with open_database(settings) as database:
                migrate(database)
                with database.engine.begin() as connection:
                    brakes = {"brakes": {"role_floor": 10**9, "school_floor": 10**9, "relink_floor": 10**9}}
                    record_agreement(connection, Agreement(district, "Benchmark", "typing_agent", "bench.example", settings=brakes))
            results: dict[str, list[dict[str, Any]]] = {"floor": [], "first": [], "unchanged": [], "changed": []}
            results["first"].append(_child("sync", district, environment))
            for number in range(rounds):
                results["floor"].append(_child("floor", district, environment))
                results["unchanged"].append(_child("sync", district, environment))
                _post(control, "night_of_changes", {"seed": number})
                results["changed"].append(_child("sync", district, environment))
    return {"students": students, "machine": _machine(), "runs": results}


def _measure(step: str, district: str) -> None:
    """In the child process: one step, its seconds and its peak memory as one line of JSON."""
    from roster_pipeline.database.engine import open_database, psycopg_connection
    from roster_pipeline.settings import Settings
    from roster_pipeline.sync.run import SyncRequest, run_sync

    settings = Settings(_env_file=None)
    with open_database(settings) as database:
        if step == "sync":
            start = time.perf_counter()
            report = run_sync(database, settings, SyncRequest(district))
            seconds = time.perf_counter() - start
            more: dict[str, Any] = {"rows": sum(sum(each.values()) for each in report.counts["changes"].values()), "status": report.status}
        else:
            with database.engine.connect() as opened:
                connection = opened.execution_options(isolation_level="AUTOCOMMIT")
                start = time.perf_counter()
                more = {"rows": _floor(psycopg_connection(connection), settings, district)}
                seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak, **more}))


def _floor(connection: Any, settings: Any, district: str) -> int:
    """Fetch, decode, COPY: every column as text, into unlogged tables without index or constraint."""
    import io

    import pyarrow
    import pyarrow.csv

    from roster_pipeline.clever.pull import DistrictPull
    from roster_pipeline.clever.records import Collection
    from roster_pipeline.sync.frames import flatten

    rows = 0
    connection.execute("create schema if not exists floor")
    with DistrictPull(settings, district, keep_student_email=False) as pull:
        for collection in Collection:
            for page in pull.pages(collection):
                if not page.records:
                    continue
                table = pyarrow.table(flatten(collection, page.records))
                columns = ", ".join(f"{name} text" for name in table.column_names)
                connection.execute(f"create unlogged table if not exists floor.{collection.resource} ({columns})")
                buffer = io.BytesIO()
                pyarrow.csv.write_csv(table, buffer, pyarrow.csv.WriteOptions(include_header=False))
                with connection.cursor() as cursor, cursor.copy(f"copy floor.{collection.resource} from stdin (format csv)") as copy:
                    copy.write(buffer.getbuffer())
                rows += table.num_rows
    connection.execute("drop schema floor cascade")
    return rows


def _child(step: str, district: str, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks", "--step", step, "--district", district]
    done = subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def _sandbox(students: int) -> Iterator[tuple[dict[str, str], str, str]]:
    command = [
        sys.executable,
        "-m",
        "roster_pipeline.cli",
        "sandbox",
        "serve",
        "--port",
        "0",
        "--students",
        str(students),
        "--no-rate-limit",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ready = json.loads(server.stdout.readline())
            [district] = ready["districts"]
            yield dict(ready["environment"]), district, ready["control"]
        finally:
            server.terminate()


def _post(control: str, act: str, body: dict[str, Any]) -> None:
    request = Request(f"{control}/{act}", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    with urlopen(request) as answer:
        answer.read()


def _machine() -> dict[str, Any]:
    return {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}


def _table(figures: dict[str, Any]) -> str:
    runs = figures["runs"]
    floor = statistics.median(each["seconds"] for each in runs["floor"])
    lines = [
        f"{figures['students']:,} students, {figures['machine']['cpus']} CPUs, Python {figures['machine']['python']}; medians of one run",
        "",
        f"{'what':<34}{'÷ floor':>9}{'seconds':>10}{'peak MB':>9}{'rows written':>14}",
    ]
    names = {
        "floor": "fetch + decode + COPY (floor)",
        "first": "first sync",
        "unchanged": "sync, nothing changed",
        "changed": "sync after a night of changes",
    }
    for key, name in names.items():
        seconds = statistics.median(each["seconds"] for each in runs[key])
        peak = max(each["peak_mb"] for each in runs[key])
        rows = statistics.median(each["rows"] for each in runs[key])
        lines.append(f"{name:<34}{seconds / floor:>9.1f}{seconds:>10.2f}{peak:>9}{rows:>14,.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
