"""The nightly schedules (R11.1), one pair for each nightly time of the profiles (`profiles.py`), on the wall clock in Los Angeles.

Belongs here: the schedules, and how the districts of a night are divided among runs. Does not belong here: which districts are due
(`districts/nights.py`), and what a run does (`sync.py`, `shards.py`).

If few districts are due, each has its own run; if many are due, they share a few runs. A Dagster schedule starts runs of one job only, so
each time has two schedules, and the number of due districts decides which of them requests runs.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, time, timedelta
from math import ceil

import dagster as dg

from roster_pipeline.database.clock import Clock, database_time
from roster_pipeline.defs import shards, sync
from roster_pipeline.defs.districts import districts
from roster_pipeline.defs.resources import RosterDatabase
from roster_pipeline.defs.shards import MAX_RUNTIME, Shard
from roster_pipeline.defs.tags import night_tags
from roster_pipeline.districts.agreement import District
from roster_pipeline.districts.nights import NIGHTLY_TIMES, PACIFIC, due_districts, is_late, night_of
from roster_pipeline.settings import Settings

SHARDS = "_shards"

Tick = Iterator[dg.RunRequest] | dg.SkipReason


def schedule_name(nightly_at: str) -> str:
    """`21:00` -> `nightly_9pm_pt`. Dagster stores under this name whether the schedule is on, so it must not change."""
    at = time.fromisoformat(nightly_at)
    minutes = f"_{at:%M}" if at.minute else ""
    return "nightly_midnight_pt" if at == time(0) else f"nightly_{at.hour % 12 or 12}{minutes}{'am' if at.hour < 12 else 'pm'}_pt"


def nightly_schedules(nightly_at: str, *, clock: Clock = database_time) -> tuple[dg.ScheduleDefinition, dg.ScheduleDefinition]:
    """The two schedules of one nightly time: a run per district, and shards.

    Args:
        nightly_at: on the wall clock in Los Angeles. Dagster handles daylight-saving time.
        clock: how a session reads the time.
    """
    name = schedule_name(nightly_at)
    hour, minute = nightly_at.split(":")

    def schedule(own_name: str, description: str, *, is_shared: bool) -> dg.ScheduleDefinition:
        @dg.schedule(
            name=own_name,
            cron_schedule=f"{int(minute)} {int(hour)} * * *",
            execution_timezone=PACIFIC.key,
            job=shards.job if is_shared else sync.job,
            description=description,
            default_status=dg.DefaultScheduleStatus.RUNNING,
        )
        def night(context: dg.ScheduleEvaluationContext, roster_database: RosterDatabase) -> Tick:
            settings, moment = roster_database.settings, context.scheduled_execution_time
            due = _due(context, roster_database, clock)
            if isinstance(due, dg.SkipReason):
                return due
            if is_shared != (len(due) > settings.roster_shard_from):
                return dg.SkipReason(f"{len(due)} districts are due: {name if is_shared else name + SHARDS} syncs them.")
            return (_shards if is_shared else _a_run_each)(name, moment, due, settings)

        return night

    return (
        schedule(
            name,
            f"At {nightly_at} in Los Angeles: a run for every active district of that time whose start date has come (R11.1).",
            is_shared=False,
        ),
        schedule(
            name + SHARDS,
            f"As {name}, when more than ROSTER_SHARD_FROM districts are due: ROSTER_SHARDS runs share them.",
            is_shared=True,
        ),
    )


SCHEDULES = tuple(schedule for nightly_at in NIGHTLY_TIMES for schedule in nightly_schedules(nightly_at))


def _due(context: dg.ScheduleEvaluationContext, roster_database: RosterDatabase, clock: Clock) -> list[District] | dg.SkipReason:
    """The districts that are due, after adding their partitions; or the reason why none is started."""
    moment, limit = context.scheduled_execution_time, timedelta(minutes=roster_database.settings.roster_late_tick_minutes)
    with roster_database.session() as session:
        if is_late(moment, clock(session), limit):
            return dg.SkipReason(f"Missed by more than {limit}: nothing is started by day. ROSTER_LATE_TICK_MINUTES sets the limit.")
        due = due_districts(session, moment)
    if not due:
        return dg.SkipReason("No district is due.")
    context.instance.add_dynamic_partitions(str(districts.name), [district.clever_id for district in due])
    return due


def _a_run_each(name: str, moment: datetime, due: Sequence[District], settings: Settings) -> Iterator[dg.RunRequest]:
    tags = {**night_tags("scheduled"), MAX_RUNTIME: str(ceil(settings.roster_district_timeout_s))}
    for district in due:
        yield dg.RunRequest(run_key=f"{night_of(moment)}:{name}:{district.clever_id}", partition_key=district.clever_id, tags=tags)


def _shards(name: str, moment: datetime, due: Sequence[District], settings: Settings) -> Iterator[dg.RunRequest]:
    """A district is in the same shard every night and in every evaluation of a tick, whatever other districts are due."""
    for number in range(settings.roster_shards):
        members = [district.clever_id for district in due if district.district_id % settings.roster_shards == number]
        if members:
            yield dg.RunRequest(
                run_key=f"{night_of(moment)}:{name}{SHARDS}:{number}",
                run_config=dg.RunConfig({shards.sync_districts.name: Shard(districts=members)}),
                tags=night_tags("scheduled"),
            )
