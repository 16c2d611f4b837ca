"""How old a district's data is: newer data in the same night (R3.7), and silent districts (R11.8)."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from roster_pipeline.clever.http import Clock, Deadline
from roster_pipeline.clever.tokens import list_tokens
from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import Agreement, record_agreement, set_status
from roster_pipeline.districts.nights import last_scheduled_at, night_ends_at
from roster_pipeline.fleet.freshness import Answers, Pulled, alert_silent, ask_marks, freshness, moved, synced_this_night
from roster_pipeline.sandbox import District, Sandbox, SandboxServer
from roster_pipeline.settings import Settings

A, B, C = "5f00000000000000000000aa", "5f00000000000000000000bb", "5f00000000000000000000cc"
# 21:00 and 00:00 in Los Angeles, and the end of that night.
EVENING = datetime(2026, 11, 20, 5, tzinfo=UTC)
MIDNIGHT = EVENING + timedelta(hours=3)
MORNING = EVENING + timedelta(hours=9)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
OLD, NEW = "2026-11-20T04:00:00.000Z", "2026-11-20T06:00:00.000Z"


class Nights:
    """Writes districts and rows of `ops.syncs`, as a night would."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def district(self, clever_id: str, profile: str = "typing_agent", start_date: date | None = None) -> int:
        """An active district, recorded long ago."""
        agreed = Agreement(clever_id, "Name", profile, "test.example", start_date=start_date)
        district_id = record_agreement(self.connection, agreed).district_id
        self.recorded(clever_id, EVENING - timedelta(days=30))
        return district_id

    def recorded(self, clever_id: str, at: datetime) -> None:
        self.connection.execute(text("update app.districts set active_since = :at where clever_id = :id"), {"at": at, "id": clever_id})

    def sync(self, district_id: int, began: datetime, status: str = "successful", trigger: str = "scheduled", last_sync: Any = OLD) -> int:
        """A sync that took five minutes, or has not ended yet."""
        has_ended = status not in ("queued", "processing")
        statement = """
            insert into ops.syncs (district_id, trigger, status, requested_at, started_at, finished_at, counts)
            values (:d, :trigger, :status, :began, case when :status <> 'queued' then :began end, :ended,
                jsonb_build_object('last_sync', cast(:last_sync as text)))
            returning sync_id
        """
        values = {"d": district_id, "trigger": trigger, "status": status, "began": began, "last_sync": last_sync}
        ended = began + 5 * MINUTE if has_ended else None
        return int(self.connection.execute(text(statement), {**values, "ended": ended}).scalar_one())

    def asked(self, now: datetime) -> list[str]:
        return [each.clever_id for each in synced_this_night(self.connection, now)]

    def stale(self, now: datetime) -> list[str]:
        return [each.district.clever_id for each in freshness(self.connection, now) if not each.is_fresh]

    def alert(self, now: datetime) -> int:
        return alert_silent(self.connection, freshness(self.connection, now), now=now)


@pytest.fixture
def nights(database: Database) -> Iterator[Nights]:
    with database.engine.connect() as opened:
        yield Nights(opened.execution_options(isolation_level="AUTOCOMMIT"))


# --- newer data in the same night ---


@pytest.mark.parametrize(("profile", "moment"), [("typing_agent", EVENING), ("twig_science", MIDNIGHT)])
def test_a_district_is_asked_about_while_its_night_lasts(nights: Nights, profile: str, moment: datetime) -> None:
    """R3.7: from its sync of the night, of any trigger, to the morning."""
    district = nights.district(A, profile)
    nights.sync(district, moment - 10 * MINUTE)
    assert nights.asked(moment + 30 * MINUTE) == []
    nights.sync(district, moment + MINUTE, "held", last_sync=NEW)
    assert nights.asked(moment + 30 * MINUTE) == [A]
    assert synced_this_night(nights.connection, moment + 30 * MINUTE)[0].mark == NEW
    assert nights.asked(MORNING - MINUTE) == [A]
    assert nights.asked(MORNING) == []
    assert nights.asked(EVENING + 23 * HOUR) == []


def test_the_night_on_both_nights_of_a_clock_change() -> None:
    """R3.7, R11.1: the night ends at six on the wall clock, after eight hours in spring and ten in autumn."""
    for noon, hours in (("2026-11-01T20:00", 10), ("2027-03-14T20:00", 8), ("2026-11-20T20:00", 9)):
        moment = last_scheduled_at("21:00", datetime.fromisoformat(noon).replace(tzinfo=UTC))
        assert night_ends_at(moment) - moment == hours * HOUR


@pytest.mark.parametrize("status", ["queued", "processing"])
def test_a_district_that_is_about_to_be_synced_is_not_asked_about(nights: Nights, status: str) -> None:
    """R3.7: also if that sync was requested before the night."""
    district = nights.district(A)
    nights.sync(district, EVENING + MINUTE)
    nights.sync(district, EVENING - HOUR, status, "on_demand")
    assert nights.asked(EVENING + HOUR) == []


def test_only_applied_syncs_count(nights: Nights) -> None:
    """R3.7: a district whose sync failed or was skipped has no data of this night. An inactive district is not asked about."""
    district = nights.district(A)
    nights.sync(district, EVENING + MINUTE, "failed")
    nights.sync(district, EVENING + MINUTE, "skipped")
    assert nights.asked(EVENING + HOUR) == []
    nights.sync(district, EVENING + 2 * MINUTE)
    assert nights.asked(EVENING + HOUR) == [A]
    set_status(nights.connection, A, "active", "paused")
    assert nights.asked(EVENING + HOUR) == []


def test_three_refreshes_a_night(nights: Nights) -> None:
    """R3.7: at most, even if Clever loads data all night. The refreshes of the night before do not count."""
    district = nights.district(A)
    for number in range(3):
        nights.sync(district, EVENING - timedelta(days=1) + number * HOUR, trigger="refresh")
    nights.sync(district, EVENING + MINUTE)
    for number in range(3):
        assert nights.asked(EVENING + 8 * HOUR) == [A]
        nights.sync(district, EVENING + (number + 1) * HOUR, "failed" if number else "successful", "refresh")
    assert nights.asked(EVENING + 8 * HOUR) == []


def test_which_districts_have_newer_data() -> None:
    """R3.7: those with another last_sync than in the pull. A district without a last_sync, or without an answer, has none."""
    pulled = [Pulled(1, A, OLD), Pulled(2, B, OLD), Pulled(3, C, None), Pulled(4, "d", OLD), Pulled(5, "e", OLD)]
    answers = Answers({A: NEW, B: OLD, C: NEW, "d": None}, 5)
    assert moved(pulled, answers) == [(pulled[0], NEW), (pulled[2], NEW)]


def settings_for(server: SandboxServer) -> Settings:
    return Settings(
        _env_file=None,
        clever_api_url=server.url,
        clever_auth_url=server.url,
        clever_client_id="sandbox",
        clever_client_secret="sandbox-secret",
    )


def test_clever_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    """R3.7: a district that cannot be asked is left out, and logged by its id only."""
    sandbox = Sandbox(*(District({"id": each, "name": "Marker", "last_sync": NEW}) for each in (A, B, C)))
    sandbox.misbehave("status", f"/v3.0/districts/{B}", status=403)
    with SandboxServer(sandbox) as server:
        settings = settings_for(server)
        answers = ask_marks(settings, list_tokens(settings), [A, B, "unknown", C], deadline=Deadline(40))
    assert answers == Answers({A: NEW, C: NEW}, 4)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert B in caplog.text
    assert "Marker" not in caplog.text


def test_asking_ends_in_time() -> None:
    """R3.7: the districts that there is no time for are left for the next round, which begins with the first of them."""
    now = iter([0.0] + [0.0] * 6 + [100.0] * 1000)
    clock = Clock(monotonic=lambda: next(now))
    sandbox = Sandbox(*(District({"id": f"d{number}", "name": "D", "last_sync": NEW}) for number in range(20)))
    with SandboxServer(sandbox) as server:
        settings = settings_for(server)
        answers = ask_marks(settings, list_tokens(settings), [f"d{number}" for number in range(20)], deadline=Deadline(40, clock))
    assert 0 < answers.asked < 20
    assert set(answers.marks) == {f"d{number}" for number in range(answers.asked)}


# --- silent districts ---


def test_silent_after_26_hours(nights: Nights) -> None:
    """R11.8: counted from the end of the last applied sync. A failed sync does not count."""
    district = nights.district(A)
    nights.sync(district, EVENING)
    nights.sync(district, EVENING + 20 * HOUR, "failed")
    ended = EVENING + 5 * MINUTE
    assert nights.stale(ended + 26 * HOUR) == []
    assert nights.stale(ended + 26 * HOUR + MINUTE) == [A]
    nights.sync(district, ended + 26 * HOUR, "held")
    assert nights.stale(ended + 27 * HOUR) == []


def test_only_districts_that_should_sync_can_be_silent(nights: Nights) -> None:
    """R11.1, R11.8: they are active, and their start date has come. The 26 hours count from the start date at the earliest."""
    nights.district(A)
    nights.district(B, start_date=date(2026, 11, 20))
    assert nights.stale(EVENING) == [A]
    starts = datetime(2026, 11, 20, 8, tzinfo=UTC)
    assert [each.district.clever_id for each in freshness(nights.connection, starts)] == [A, B]
    assert nights.stale(starts + 26 * HOUR) == [A]
    assert nights.stale(starts + 26 * HOUR + MINUTE) == [A, B]
    set_status(nights.connection, A, "active", "paused")
    assert nights.stale(starts) == []


def test_a_new_district_has_26_hours(nights: Nights) -> None:
    """R11.8: before its first sync, the 26 hours count from its agreement."""
    nights.district(A)
    nights.recorded(A, EVENING)
    assert nights.stale(EVENING + 26 * HOUR) == []
    assert nights.stale(EVENING + 27 * HOUR) == [A]


def test_a_success_in_the_future_is_no_success(nights: Nights) -> None:
    """R11.6: nobody knows how old it is. The last one before it counts, and so does the next one."""
    district = nights.district(A)
    nights.sync(district, EVENING)
    nights.sync(district, EVENING + 400 * 24 * HOUR)
    assert nights.stale(EVENING + 26 * HOUR) == []
    assert nights.stale(EVENING + 27 * HOUR) == [A]
    nights.sync(district, EVENING + 27 * HOUR)
    assert nights.stale(EVENING + 28 * HOUR) == []


def test_a_district_that_is_active_since_the_future_is_silent(nights: Nights) -> None:
    """R11.6: not for as long as the clock was wrong."""
    nights.district(A)
    nights.recorded(A, EVENING + 400 * 24 * HOUR)
    assert nights.stale(EVENING) == [A]


def test_a_sync_in_the_future_does_not_count_as_one_of_this_night(nights: Nights) -> None:
    """R11.6, R3.7: its refreshes do not use up those of every night until then."""
    district = nights.district(A)
    for _ in range(3):
        nights.sync(district, EVENING + 400 * 24 * HOUR, trigger="refresh", last_sync=NEW)
    assert nights.asked(EVENING + HOUR) == []
    nights.sync(district, EVENING + MINUTE)
    assert nights.asked(EVENING + HOUR) == [A]


def test_a_silent_district_makes_one_alert(nights: Nights) -> None:
    """R11.8: until it has been synced and is silent again. A district that was never synced makes one too."""
    district = nights.district(A)
    never = nights.district(B)
    first = nights.sync(district, EVENING)
    assert nights.alert(EVENING + HOUR) == 1
    assert nights.alert(EVENING + 30 * HOUR) == 1
    assert nights.alert(EVENING + 60 * HOUR) == 0
    second = nights.sync(district, EVENING + 61 * HOUR)
    assert nights.alert(EVENING + 62 * HOUR) == 0
    assert nights.alert(EVENING + 99 * HOUR) == 1
    rows = nights.connection.execute(text("select kind, district_id, sync_id, facts, is_urgent from ops.alerts order by alert_id")).all()
    assert [tuple(row) for row in rows] == [
        ("district_silent", never, None, {"hours": 721}, False),
        ("district_silent", district, first, {"hours": 29}, False),
        ("district_silent", district, second, {"hours": 37}, False),
    ]
