"""`make week`: `roster dev` runs unattended with a generated fleet for a week of nights, with faults, over the end of daylight-saving time.

Belongs here: what happens in which night, and the report. Does not belong here: the processes and the clock (`machine.py`), and what must
be true at the end (`fleet.py`). If something is not true, the exit status is 1.
"""

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import sqlalchemy as sa

from benchmarks import fleet
from benchmarks.machine import Machine, run_with_clock
from roster_pipeline.districts.nights import due_districts
from roster_pipeline.sandbox import generate_district
from roster_pipeline_tests.alive import running

FIRST_EVENING = date(2026, 10, 29)
STUDENTS = (40, 60, 50)
# Real seconds to wait for what a sensor does in one or two ticks.
SENSOR_SECONDS = 60.0

_REFRESHED = "select count(*) from ops.syncs where trigger = 'refresh' and finished_at is not null"
_REQUESTED = "select count(*) from ops.syncs where requested_role is not null and finished_at is null"
# The insert by which the application requests a sync.
_REQUEST = sa.text(
    "insert into ops.syncs (district_id, requested_by) select district_id, 'app' from app.districts where clever_id = :district"
)


def main() -> None:
    """Run the week and print its report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.week", description=__doc__)
    parser.add_argument("--districts", type=int, default=13, help="districts of the fleet: an odd number from 7 on")
    parser.add_argument("--nights", type=int, default=7)
    arguments = parser.parse_args()
    clock = run_with_clock("benchmarks.week", fleet.moment_of("21:00", FIRST_EVENING) - timedelta(hours=9))
    raise SystemExit(run_week(clock, arguments.districts, arguments.nights))


def run_week(clock: Path, districts: int, nights: int) -> int:
    """Runs the week, prints the report, and returns the exit status."""
    with webhook() as received:
        settings = {
            # There is one more district at 21:00 than at midnight. Those of 21:00 share two runs, those of midnight have a run each.
            "ROSTER_SHARD_FROM": str(districts // 2),
            "ROSTER_SHARDS": "2",
            "CLEVER_MAX_ATTEMPTS": "3",
            "ROSTER_ALERT_URLS": f"json://127.0.0.1:{received.port}/alerts",
        }
        with Machine(clock, settings) as machine:
            sizes = [STUDENTS[number % len(STUDENTS)] for number in range(districts)]
            signed_up = fleet.sign_up(machine.database, machine.sandbox, sizes)
            week = Week(machine, signed_up, [FIRST_EVENING + timedelta(days=number) for number in range(nights)])
            try:
                week.run()
            except TimeoutError as error:
                week.problems.append(str(error))
            machine.stop()
            return week.report(received.titles)


class Week:
    """The events of the week. A method like `_before_night_2` makes the fault of one night, at the moment in its name."""

    def __init__(self, machine: Machine, districts: list[str], evenings: list[date]) -> None:
        self.machine, self.database, self.sandbox = machine, machine.database, machine.sandbox
        self.districts, self.evenings = districts, evenings
        self.problems: list[str] = []
        self.exceptions: dict[tuple[date, str], int] = {}
        self.restarted_at: datetime | None = None
        self.began = time.monotonic()

    def run(self) -> None:
        """Runs one night after the other.

        Raises:
            TimeoutError: something that must happen did not happen.
        """
        self.dev = self.machine.start()
        for number, evening in enumerate(self.evenings, 1):
            self._night(number, evening)

    def _night(self, number: int, evening: date) -> None:
        def events(when: str) -> None:
            getattr(self, f"_{when}_night_{number}", lambda _: None)(evening)

        nine, midnight = fleet.moment_of("21:00", evening), fleet.moment_of("00:00", evening)
        self.machine.jump(nine - timedelta(minutes=30))
        if number > 1:
            self._usual_changes(number)
        events("before")
        self.machine.jump(nine - timedelta(seconds=5))
        events("at")
        self._all_synced("21:00", evening)
        events("after_nine_in")
        self.machine.jump(midnight - timedelta(seconds=5))
        self._all_synced("00:00", evening)
        self.machine.jump(midnight + timedelta(minutes=20))
        self._wait_briefly("the end of the night", self.machine.is_idle)
        self.machine.jump(midnight + timedelta(hours=8))
        events("after")
        self._wait_briefly("the alerts", lambda: self.machine.number("select count(*) from ops.alerts where closed_at is null") == 0)
        statuses = [each.status for each in fleet.recorded_syncs(self.database) if each.night == evening]
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in sorted(set(statuses)))
        self._say(f"night {number}, {evening}: {counts}")

    def _usual_changes(self, number: int) -> None:
        for place, district in enumerate(self.districts):
            # This district has an approved hold. If another student left, its acts would change, and the approval would be void (R7.5).
            if not (number == 5 and place == 3):
                self.sandbox.change(district).night_of_changes(100 * number + place)

    # Night 2: Clever answers 503 for one district, all night.

    def _before_night_2(self, evening: date) -> None:
        self.sandbox.misbehave("status", f"/districts/{self.districts[1]}", status=503)

    def _after_night_2(self, evening: date) -> None:
        self.sandbox.behave()
        self._expect_retries(evening, self.districts[1], succeeded=False)

    # Night 3: Clever is down at nine, for a while.

    def _before_night_3(self, evening: date) -> None:
        self.machine.stop_clever()

    def _at_night_3(self, evening: date) -> None:
        def has_failed() -> bool:
            return any(each.night == evening and each.status == "failed" for each in fleet.recorded_syncs(self.database))

        self._wait_briefly("the first failure", has_failed)
        self.machine.start_clever()

    def _after_night_3(self, evening: date) -> None:
        self._expect_retries(evening, *self.districts, succeeded=True)

    # Night 4: one district does not share a school any more. Support approves that in the morning.

    def _before_night_4(self, evening: date) -> None:
        district = self.sandbox.district(self.districts[3])
        (school, *_) = district.shared("schools")
        self.sandbox.change(district.id).unshare([school])

    def _after_night_4(self, evening: date) -> None:
        holds = self.machine.column("select hold_id from ops.holds where status = 'open' order by hold_id")
        for hold in holds:
            self._roster("approve", str(hold), "--by", "support")
        self._say(f"approved: holds {holds}")

    # Night 5: Clever loads newer data of a district that has been synced already.

    def _after_nine_in_night_5(self, evening: date) -> None:
        ten = fleet.moment_of("21:00", evening) + timedelta(hours=1)
        self.machine.jump(ten)
        self.sandbox.change(self.districts[0]).night_of_changes(999)
        self.machine.jump(ten + timedelta(minutes=6))
        self.machine.wait("the refresh", lambda: self.machine.number(_REFRESHED) > 0)

    # Night 6: one district disconnects, another one connects. The daemon is killed during a sync, and people request syncs meanwhile.

    def _before_night_6(self, evening: date) -> None:
        disconnected, new = self.districts[5], self.sandbox.add(generate_district(1_000, 40)).id
        self.exceptions |= {(each, disconnected): int(each < evening) for each in self.evenings}
        self.sandbox.change(disconnected).disconnect()
        statuses = "select count(*) from app.districts where status in ('requested', 'disconnected')"
        self.machine.wait("the connections", lambda: self.machine.number(statuses) == 2)
        self._say(f"district 6 is disconnected, {new} is requested")

    def _at_night_6(self, evening: date) -> None:
        processing = "select count(*) from ops.syncs where status = 'processing'"
        self.machine.wait("a sync in the middle", lambda: self.machine.number(processing) > 0)
        (daemon,) = running("daemon", psutil.Process(self.dev).children(recursive=True))
        daemon.kill()
        self._say(f"the daemon is killed; roster dev ended with {self.machine.ended()}")
        self._roster("request", self.districts[2], "--requested-by", "support")
        with self.database.engine.begin() as connection:
            connection.execute(_REQUEST, {"district": self.districts[4]})
        self.restarted_at = datetime.now(UTC)
        self.dev = self.machine.start()
        self.machine.wait("the requests", lambda: self.machine.number(_REQUESTED) == 0)

    def _after_night_6(self, evening: date) -> None:
        # A sync that went on without the daemon is not repeated. A sync that ended with the daemon is.
        failed = [each for each in fleet.recorded_syncs(self.database) if each.night == evening and each.status == "failed"]
        cut_off = {each.clever_id for each in failed if self.restarted_at is not None and each.began_at < self.restarted_at}
        self._expect_retries(evening, *cut_off, succeeded=True)

    # --- tools ---

    def _all_synced(self, nightly_at: str, evening: date) -> None:
        """Waits until every district that is due at this moment has been synced, and the machine is idle."""
        moment = fleet.moment_of(nightly_at, evening)
        with self.database.engine.connect() as connection:
            due = {each.clever_id for each in due_districts(connection, moment)}

        def all_ended() -> bool:
            tonight = [each for each in fleet.recorded_syncs(self.database) if each.began_at >= moment and each.is_scheduled]
            return due <= {each.clever_id for each in tonight if each.ended_at} and self.machine.is_idle()

        self.machine.wait(f"the syncs of {nightly_at} on {evening}", all_ended)

    def _expect_retries(self, evening: date, *districts: str, succeeded: bool) -> None:
        """Expects one sync for each failure that we caused, and a last one if that `succeeded`."""
        for district in districts:
            scheduled = [
                each
                for each in fleet.recorded_syncs(self.database)
                if (each.night, each.clever_id) == (evening, district) and each.is_scheduled
            ]
            failures = sum(each.status == "failed" for each in scheduled)
            if failures:
                self.exceptions[evening, district] = failures + succeeded

    def _roster(self, *arguments: str) -> None:
        done = self.machine.roster(*arguments)
        if done.returncode:
            self.problems.append(f"roster {arguments[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")

    def _wait_briefly(self, what: str, is_true: Callable[[], bool]) -> None:
        """Waits, but goes on after a time-out: the report at the end of the week shows it anyway."""
        time.sleep(6)
        try:
            self.machine.wait(what, is_true, SENSOR_SECONDS)
        except TimeoutError as error:
            self._say(str(error))

    def _say(self, text: str) -> None:
        print(f"[{(time.monotonic() - self.began) / 60:4.1f} min] {fleet.local(datetime.now(UTC))}  {text}", flush=True)

    # --- the report ---

    def report(self, titles: list[str]) -> int:
        """Prints the report, and returns the exit status."""
        syncs = fleet.recorded_syncs(self.database)
        self.problems += fleet.differences_from_model(self.database, self.sandbox, datetime.now(UTC))
        self.problems += fleet.wrong_syncs(syncs)
        self.problems += fleet.differences_from_schedule(self.database, self.evenings, syncs, self.exceptions)
        print(f"\n{fleet.table(self.evenings, self.districts, syncs)}\n")
        print("alerts: kind, recorded, accepted by the webhook")
        for kind, (recorded, accepted) in fleet.alerts(self.database).items():
            print(f"  {kind:<18}{recorded:>4}{accepted:>4}")
        print(f"{len(titles)} messages to the webhook:", *titles, sep="\n  ")
        up_to_date = fleet.up_to_date(self.database)
        print(f"\n{len(up_to_date)} of {len(self.districts)} districts are up to date and were compared with the model.")
        print(f"{(time.monotonic() - self.began) / 60:.0f} minutes.", "PROBLEMS:" if self.problems else "No problems.")
        for each in self.problems:
            print(f"  {each}")
        return int(bool(self.problems))


class Webhook:
    """The messages that a receiver of alerts has got: the title of each."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.titles: list[str] = []


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A receiver on loopback that accepts everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            here.titles.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["title"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Prints nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        here = Webhook(server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield here
        server.shutdown()


if __name__ == "__main__":
    main()
