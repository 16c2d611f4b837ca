"""`make night`: how long a night takes, with a run per district and with shards, with the real schedule, queue and processes.

Every district has been synced once, and about 1 % of each has changed, or nothing with --unchanged. The time of a night is from the
schedule's moment to the end of the last run. The overhead of a district is the time of the night's two slots (`dagster.yaml`) divided by
the districts, minus the seconds of its sync in `ops.syncs`. On a shared machine, seconds mean little; the ratio means more.
"""

import argparse
import os
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from benchmarks import fleet
from benchmarks.machine import Machine, run_with_clock
from benchmarks.table import at_most, print_lines
from roster_pipeline.sync.run import SyncRequest, run_sync

SLOTS = 2
EVENING = date(2026, 11, 10)
NEVER, ALWAYS = 10**6, 0
# The target of a night in which nothing has changed: seconds of overhead per district.
MAX_OVERHEAD = 0.3
# The target of the same night if Clever answers late, as a ratio.
MAX_DELAYED = 2.0
HOURS = 6 * 3600.0

_HEADER = f"{'':<26}{'districts':>10}{'seconds':>9}{'a district':>12}{'own sync':>10}{'overhead':>11}"


def main() -> None:
    """Run both nights and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.night", description=__doc__)
    parser.add_argument("--districts", type=int, default=200)
    parser.add_argument("--students", type=int, default=500, help="of each district")
    parser.add_argument(
        "--runs", type=int, help="how many of the districts to sync with a run each; the time for the others is extrapolated"
    )
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--unchanged", action="store_true", help="nothing changes; only a night in shards")
    parser.add_argument("--latency", type=int, default=0, metavar="MS", help="delay every answer of Clever by so much, in a second night")
    arguments = parser.parse_args()
    clock = run_with_clock("benchmarks.night", fleet.moment_of("21:00", EVENING) - timedelta(hours=8))
    with Machine(clock, {"ROSTER_SHARDS": str(arguments.shards)}) as machine:
        districts = fleet.sign_up(machine.database, machine.sandbox, [arguments.students] * arguments.districts)
        with machine.database.engine.begin() as connection:
            connection.execute(sa.text("update app.districts set profile = 'typing_agent'"))
        for district in districts:
            run_sync(machine.database, machine.settings, SyncRequest(district))
        if arguments.unchanged:
            # The second sync of a district writes nothing, so that the third has nothing to do. It is also the first one in Dagster, and
            # reports more.
            _night(machine, districts, EVENING, shard_from=ALWAYS, changes=False)
            unchanged = _night(machine, districts, EVENING + timedelta(days=1), shard_from=ALWAYS, changes=False)
            print(_HEADER, _line("shards, nothing changed", **unchanged), sep="\n")
            if arguments.latency:
                machine.sandbox.misbehave("delay", "", seconds=arguments.latency / 1000)
                delayed = _night(machine, districts, EVENING + timedelta(days=2), shard_from=ALWAYS, changes=False)
                print(_line(f"the same, {arguments.latency} ms delay", **delayed))
                what = f"{arguments.districts:,} unchanged districts, {arguments.latency} ms in front of every answer / without"
                print_lines([at_most(what, delayed["seconds"] / unchanged["seconds"], MAX_DELAYED)])
            what = f"{arguments.districts:,} unchanged districts of {arguments.students:,}, a night: overhead per district, seconds"
            print_lines([at_most(what, _overhead(**unchanged), MAX_OVERHEAD)])
            return
        shards = _night(machine, districts, EVENING, shard_from=ALWAYS)
        alone = districts[: arguments.runs]
        runs = _night(machine, alone, EVENING + timedelta(days=1), shard_from=NEVER)
    print(f"{arguments.districts} districts of {arguments.students} students, {os.cpu_count()} CPUs, load {os.getloadavg()[2]:.1f}\n")
    print(_HEADER)
    for name, night in (("shards", shards), ("a run each", runs)):
        print(_line(name, **night))
    if len(alone) < len(districts):
        extrapolated = {**runs, "districts": len(districts), "seconds": runs["seconds"] * len(districts) / len(alone)}
        print(_line("a run each, extrapolated", **extrapolated))
    each = [night["seconds"] / night["districts"] for night in (runs, shards)]
    print(f"\nA run each takes {each[0] / each[1]:.1f} times as long as shards.")


def _night(machine: Machine, districts: Sequence[str], evening: date, *, shard_from: int, changes: bool = True) -> dict[str, Any]:
    """Runs one night of these districts, and returns its figures."""
    for number, district in enumerate(districts if changes else ()):
        machine.sandbox.change(district).night_of_changes(number)
    moment = fleet.moment_of("21:00", evening)
    with machine.database.engine.begin() as connection:
        # Only rows that have to change: the next sync compares every written row again, even with the same values.
        connection.execute(sa.text("update app.districts set status = 'paused' where clever_id <> all(:due)"), {"due": list(districts)})
    machine.environment["ROSTER_SHARD_FROM"] = str(shard_from)
    machine.start()
    # Dagster's scheduler sleeps until the next full minute, by the clock before the jump.
    machine.jump(moment - timedelta(seconds=65))

    def synced() -> list[fleet.RecordedSync]:
        return [each for each in fleet.recorded_syncs(machine.database) if each.began_at >= moment and each.ended_at is not None]

    machine.wait("the night", lambda: len({each.clever_id for each in synced()}) == len(districts) and machine.is_idle(), HOURS)
    ended_at = machine.last_run_ended_at()
    machine.stop()
    if failed := [each for each in synced() if each.status != "successful"]:
        raise SystemExit(f"{len(failed)} syncs did not succeed: {failed[0].message}")
    own = sum(((each.ended_at or datetime.now(UTC)) - each.began_at).total_seconds() for each in synced())
    return {"districts": len(districts), "seconds": (ended_at - moment).total_seconds(), "own": own / len(districts)}


def _line(name: str, *, districts: int, seconds: float, own: float) -> str:
    overhead = _overhead(districts=districts, seconds=seconds, own=own)
    return f"{name:<26}{districts:>10,}{seconds:>9,.0f}{seconds / districts:>12.2f}{own:>10.2f}{overhead:>11.2f}"


def _overhead(*, districts: int, seconds: float, own: float) -> float:
    return SLOTS * seconds / districts - own


if __name__ == "__main__":
    main()
