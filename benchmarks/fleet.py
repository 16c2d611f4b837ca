"""A fleet of generated districts, and checks that must hold after any number of nights.

Belongs here: signing districts up, and comparing the rows of `app` with the reference model, and `ops.syncs` with the schedule.
Does not belong here: what happens in a night, and running its syncs (`week.py`, `night.py` and the tests).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import Agreement, all_districts, record_agreement
from roster_pipeline.districts.nights import PACIFIC, night_of, nightly_at, scheduled_at
from roster_pipeline.sandbox import District, Sandbox, generate_district
from roster_pipeline.sandbox.district import decode
from roster_pipeline_tests.reference.driver import LiveDistrict, differences
from roster_pipeline_tests.reference.model import Snapshot, sync

PROFILES = ("typing_agent", "twig_science")

Row = Mapping[str, Any]


def sign_up(database: Database, sandbox: Sandbox, sizes: Sequence[int], *, seed: int = 1, settings: Row | None = None) -> list[str]:
    """Connects a district for each number of students, with the two profiles in turn, and records its agreement. Returns the Clever ids."""
    signed_up = []
    for number, students in enumerate(sizes):
        district = sandbox.add(generate_district(seed + number, students))
        profile = PROFILES[number % len(PROFILES)]
        with database.engine.begin() as connection:
            record_agreement(
                connection, Agreement(district.id, f"District {number + 1}", profile, f"d{number + 1}.example.org", settings=settings)
            )
        signed_up.append(district.id)
    return signed_up


def snapshot(district: District) -> Snapshot:
    """What Clever would send for the district now."""
    with district.lock:
        schools, sections, users, terms = (
            [decode(district.records[kind][key]) for key in district.shared(kind)] for kind in ("schools", "sections", "users", "terms")
        )
        return Snapshot(schools, sections, users, terms)


def differences_from_model(database: Database, sandbox: Sandbox, now: datetime) -> list[str]:
    """SPEC 3-9: what the reference model would change in districts that should be up to date with Clever, a line each.

    Districts that are not active, or have a pending hold, are left out, because they are not up to date.
    """
    lines = []
    for clever_id in up_to_date(database):
        live = LiveDistrict(database, clever_id)
        state = live.state()
        outcome = sync(state, snapshot(sandbox.district(clever_id)), live.rules(), now, live.holds())
        lines += [f"{clever_id}: {line}" for line in differences(outcome.after, state)]
        lines += [f"{clever_id}: would {action} {entity} {key}" for (entity, key), action in outcome.actions.items()]
    return lines


def up_to_date(database: Database) -> list[str]:
    """The active districts without a pending hold."""
    with database.engine.connect() as connection:
        pending = set(connection.execute(sa.text("select district_id from ops.holds where status in ('open', 'approved')")).scalars())
        return [each.clever_id for each in all_districts(connection) if each.status == "active" and each.district_id not in pending]


@dataclass(frozen=True)
class RecordedSync:
    """One row of `ops.syncs`."""

    clever_id: str
    sync_id: int
    trigger: str
    status: str
    is_requested: bool
    began_at: datetime
    ended_at: datetime | None
    message: str | None

    @property
    def night(self) -> date:
        """The date of the night's evening. A night is from noon to noon."""
        return night_of(self.began_at)

    @property
    def is_scheduled(self) -> bool:
        """Whether the schedule started it. The trigger of a district's first sync is `initial`."""
        return self.trigger in ("scheduled", "initial") and not self.is_requested


def recorded_syncs(database: Database) -> list[RecordedSync]:
    """Every sync, oldest first."""
    query = sa.text("""
        select
            clever_id, sync_id, trigger, syncs.status, requested_role is not null as is_requested,
            coalesce(started_at, requested_at) as began_at, finished_at as ended_at, message
        from ops.syncs as syncs
        join app.districts using (district_id)
        order by began_at, sync_id
    """)
    with database.engine.connect() as connection:
        return [RecordedSync(**row) for row in connection.execute(query).mappings()]


def wrong_syncs(syncs: Iterable[RecordedSync]) -> list[str]:
    """R11.2, R11.4: syncs of one district that overlap, and syncs that have not ended although no process is running, a line each."""
    by_district: dict[str, list[RecordedSync]] = {}
    for each in syncs:
        by_district.setdefault(each.clever_id, []).append(each)
    lines = []
    for clever_id, rows in by_district.items():
        lines += [f"{clever_id}: sync {each.sync_id} is {each.status}" for each in rows if each.ended_at is None]
        ran = [each for each in rows if each.status != "skipped"]
        lines += [
            f"{clever_id}: syncs {one.sync_id} and {other.sync_id} overlap"
            for one, other in pairwise(ran)
            if one.ended_at is not None and one.ended_at > other.began_at
        ]
    return lines


def differences_from_schedule(
    database: Database, nights: Sequence[date], syncs: Iterable[RecordedSync], exceptions: Mapping[tuple[date, str], int]
) -> list[str]:
    """R11.1: every active district has one scheduled sync a night, and not before its time. Returns a line for each difference.

    Args:
        exceptions: the expected number of scheduled syncs, by evening and Clever id, for nights with an intended fault.
    """
    scheduled = [each for each in syncs if each.is_scheduled]
    found = Counter((each.night, each.clever_id) for each in scheduled)
    with database.engine.connect() as connection:
        times = {each.clever_id: nightly_at(each) for each in all_districts(connection)}
    lines = []
    for night in nights:
        for clever_id, time in times.items():
            expected = exceptions.get((night, clever_id), 1 if time else 0)
            if found[night, clever_id] != expected:
                lines.append(f"{clever_id}: {found[night, clever_id]} scheduled syncs in the night of {night}, not {expected}")
    for each in scheduled:
        time = times[each.clever_id]
        if time and each.began_at < moment_of(time, each.night):
            lines.append(f"{each.clever_id}: sync {each.sync_id} began before {time}")
    return lines


def moment_of(nightly_at: str, night: date) -> datetime:
    """The moment (UTC) of a nightly time in the night of this evening. Midnight is the beginning of the next day."""
    return scheduled_at(nightly_at, night if nightly_at > "12:00" else date.fromordinal(night.toordinal() + 1))


def table(nights: Sequence[date], districts: Sequence[str], syncs: Iterable[RecordedSync]) -> str:
    """The syncs of each district by night, in the order in which they began: trigger and status, abbreviated."""
    cells: dict[tuple[str, date], list[str]] = {}
    for each in syncs:
        cells.setdefault((each.clever_id, each.night), []).append(f"{each.trigger[:2]}:{each.status[:4]}")
    texts = {at: " ".join(_folded(cell)) for at, cell in cells.items()}
    widths = [max([10, *(len(texts.get((district, night), "")) for district in districts)]) for night in nights]
    lines = [" ".join(["district", *(f"{night:%a %d %b}".ljust(width) for night, width in zip(nights, widths, strict=True))])]
    for number, district in enumerate(districts, 1):
        row = (texts.get((district, night), "-").ljust(width) for night, width in zip(nights, widths, strict=True))
        lines.append(" ".join([f"{number:>8}", *row]).rstrip())
    return "\n".join([*lines, "sc scheduled, in initial, re refresh, on on demand; succ successful, fail failed, held held, skip skipped"])


def _folded(cell: Sequence[str]) -> list[str]:
    """Replaces equal cells by one, with their number."""
    return [each if times == 1 else f"{times}x{each}" for each, times in Counter(cell).items()]


def alerts(database: Database) -> dict[str, tuple[int, int]]:
    """By kind: how many alerts were recorded, and how many of them every receiver has accepted."""
    query = sa.text("select kind, count(*), count(closed_at) from ops.alerts group by kind order by kind")
    with database.engine.connect() as connection:
        return {kind: (recorded, accepted) for kind, recorded, accepted in connection.execute(query)}


def local(moment: datetime) -> str:
    """The time in Los Angeles, for people."""
    return f"{moment.astimezone(PACIFIC):%a %d %b %H:%M:%S}"
