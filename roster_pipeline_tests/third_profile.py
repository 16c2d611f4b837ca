"""A program that adds a profile for a new vendor, and uses it as people and Dagster do: from the profile's object to a synced district.

It is a process of its own, because modules read the profiles while they are imported. Its argument is the district's Clever id. Its last
line of output is a JSON document. Does not belong here: what is expected (`test_profiles.py`).
"""

import json
import sys
from contextlib import redirect_stdout
from datetime import date
from io import StringIO
from typing import Any

from roster_pipeline.profiles import PROFILES, Profile, nightly_times

# Not a time of any other profile.
TIME = "22:57"

# All that a person has to write to add a profile.
PROFILES["third_vendor"] = Profile(
    nightly_at=TIME,
    student_email=True,
    student_multi_school=False,
    login_methods=("clever", "classlink"),
    users_csv=False,
    request_roles=("support",),
)

DAY = date(2026, 11, 1)


def main(clever_id: str) -> dict[str, Any]:
    """The result of each step."""
    # Imported only now, so that every module sees three profiles.
    import dagster as dg

    from roster_pipeline.database.engine import open_database
    from roster_pipeline.definitions import defs
    from roster_pipeline.defs.nightly import nightly_schedules
    from roster_pipeline.defs.resources import RosterDatabase
    from roster_pipeline.districts.nights import due_districts, scheduled_at
    from roster_pipeline.settings import settings

    moment = scheduled_at(TIME, DAY)
    added = roster("district", "add", clever_id, "--name", "Third", "--profile", "third_vendor", "--domain", "third.example")
    with open_database(settings()) as database, database.engine.connect() as connection:
        due = {at: [each.clever_id for each in due_districts(connection, scheduled_at(at, DAY))] for at in nightly_times()}
    repository = defs.get_repository_def()
    on_time, _ = nightly_schedules(TIME, clock=lambda _: moment)
    with (
        dg.instance_for_test() as instance,
        dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=moment,
            resources={"roster_database": RosterDatabase()},
            repository_def=repository,
        ) as context,
    ):
        tick = on_time.evaluate_tick(context)
    return {
        "added": added,
        "due": due,
        "schedules": {each.name: each.cron_schedule for each in repository.schedule_defs if each.name.startswith(on_time.name)},
        "tick": [each.partition_key for each in tick.run_requests or []] or tick.skip_message,
        "synced": roster("sync", clever_id, "--json"),
    }


def roster(*arguments: str) -> int:
    """Runs a command, and returns its exit status."""
    from roster_pipeline import cli

    with redirect_stdout(StringIO()):
        try:
            cli.main(arguments)
        except SystemExit as ended:
            return int(ended.code or 0)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])) + "\n")
