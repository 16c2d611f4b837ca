"""Which window is on, and what the database refuses (R14.1): on ordinary nights, when the clock changes, and at New Year."""

import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import Agreement, record_agreement
from roster_pipeline.districts.nights import PACIFIC
from roster_pipeline.districts.windows import (
    Kind,
    NewWindow,
    Window,
    add_window,
    cancel_window,
    current_windows,
    freezes_ended_at,
    window_at,
    windows_at,
)
from roster_pipeline.errors import RosterError

NOW = datetime(2026, 6, 1, 20, tzinfo=UTC)  # 13:00 in Los Angeles


def add_district(database: Database, clever_id: str = "d1", profile: str = "typing_agent") -> int:
    with database.engine.begin() as connection:
        return record_agreement(connection, Agreement(clever_id, "D", profile, f"{clever_id}.example")).district_id


def add(
    database: Database,
    whose: int | str,
    first: str,
    last: str,
    kind: Kind = "freeze",
    *,
    now: datetime = NOW,
    limits: dict[str, float] | None = None,
) -> Window:
    """A window of a district (its id) or of a profile (its name)."""
    district_id, profile = (whose, None) if isinstance(whose, int) else (None, whose)
    new = NewWindow(district_id, profile, kind, date.fromisoformat(first), date.fromisoformat(last), limits or {})
    with database.engine.begin() as connection:
        return add_window(connection, new, by="Ann", reason="new school year", now=now)


def on_at(database: Database, district_id: int, moment: datetime) -> Window | None:
    with database.engine.connect() as connection:
        return window_at(connection, district_id, moment)


def naive_night(moment: datetime) -> date:
    """The day on which the last noon was, counted from a wall clock in Los Angeles."""
    local = moment.astimezone(PACIFIC)
    return local.date() if local.hour >= 12 else date.fromordinal(local.date().toordinal() - 1)


# The clock goes back on 2026-11-01 and forward on 2027-03-14, both at 02:00.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(moment=datetime(2026, 11, 1, 19, 59, 59, tzinfo=UTC), first=date(2026, 10, 31), nights=1)
@example(moment=datetime(2026, 11, 1, 20, 0, 0, tzinfo=UTC), first=date(2026, 10, 31), nights=1)
@example(moment=datetime(2027, 3, 14, 18, 59, 59, tzinfo=UTC), first=date(2027, 3, 13), nights=1)
@example(moment=datetime(2027, 3, 14, 19, 0, 0, tzinfo=UTC), first=date(2027, 3, 13), nights=1)
@example(moment=datetime(2027, 1, 1, 19, 59, 59, tzinfo=UTC), first=date(2026, 12, 31), nights=1)
@example(moment=datetime(2027, 1, 1, 8, 0, 0, tzinfo=UTC), first=date(2026, 12, 30), nights=2)
@given(
    moment=st.timedeltas(timedelta(), timedelta(days=670)).map(lambda since: NOW + since),
    first=st.dates(date(2026, 6, 2), date(2028, 3, 1)),
    nights=st.integers(1, 92),
)
def test_a_window_is_on_in_its_nights(database: Database, moment: datetime, first: date, nights: int) -> None:
    """R14.1: from noon of the first day to noon after the last one, as a naive calendar says."""
    last = first + timedelta(days=nights - 1)
    with database.engine.connect() as connection, connection.begin() as transaction:
        district_id = record_agreement(connection, Agreement("d", "D", "typing_agent", "d.example")).district_id
        window = add_window(connection, NewWindow(district_id, None, "freeze", first, last, {}), by="Ann", reason="x", now=NOW)
        is_on = window_at(connection, district_id, moment) is not None
        assert is_on == (first <= naive_night(moment) <= last)
        assert is_on == (window.begins_at <= moment < window.ends_at)
        transaction.rollback()


def test_midnight_belongs_to_the_night_before(database: Database) -> None:
    """R14.1: the sync at 21:00 of the last night and the one at 00:00 after it are both in the window."""
    district_id = add_district(database)
    window = add(database, district_id, "2026-07-01", "2026-07-02")
    at = {hour: datetime(2026, 7, day, hour, tzinfo=PACIFIC) for day, hour in ((2, 21), (3, 0), (3, 11))}
    assert all(on_at(database, district_id, moment) == window for moment in at.values())
    assert on_at(database, district_id, datetime(2026, 7, 3, 12, tzinfo=PACIFIC)) is None
    assert on_at(database, district_id, datetime(2026, 7, 1, 11, 59, tzinfo=PACIFIC)) is None


def test_the_districts_own_window_goes_before_its_profiles(database: Database) -> None:
    """R14.1: both may overlap; other districts of the profile have the profile's."""
    ours, other = add_district(database), add_district(database, "d2")
    foreign = add_district(database, "d3", "twig_science")
    profiles = add(database, "typing_agent", "2026-06-01", "2026-06-10")
    own = add(database, ours, "2026-06-05", "2026-06-06", "additions_only")
    moment = datetime(2026, 6, 5, 21, tzinfo=PACIFIC)
    assert (on_at(database, ours, moment), on_at(database, other, moment), on_at(database, foreign, moment)) == (own, profiles, None)
    assert on_at(database, ours, moment + timedelta(days=2)) == profiles
    with database.engine.connect() as connection:
        assert windows_at(connection, moment) == {ours: own, other: profiles}
        assert [each.window_id for each in current_windows(connection, district_id=ours)] == [profiles.window_id, own.window_id]
        assert current_windows(connection, district_id=foreign) == []


@pytest.mark.parametrize(
    ("first", "last", "kind", "limits", "says"),
    [
        ("2026-05-20", "2026-05-31", "freeze", {}, "wholly in the past"),
        ("2026-07-02", "2026-07-01", "freeze", {}, "ends .* before it begins"),
        ("2026-07-01", "2026-10-01", "freeze", {}, "at most 92 nights; this one would have 93"),
        ("2026-07-01", "2026-08-01", "rollover", {}, "at most 31 nights; this one would have 32"),
        ("2026-07-01", "2126-07-01", "freeze", {}, "must be a night up to"),
        ("2026-07-01", "2026-07-01", "additions_only", {"role_share": 0.6}, "Only a rollover window has limits"),
    ],
)
def test_what_is_no_window_is_refused(database: Database, first: str, last: str, kind: Kind, limits: dict[str, float], says: str) -> None:
    """R14.1: in words, and nothing is written."""
    district_id = add_district(database)
    with pytest.raises(RosterError, match=says):
        add(database, district_id, first, last, kind, limits=limits)
    with database.engine.connect() as connection:
        assert current_windows(connection) == []
        assert connection.execute(text("select count(*) from ops.audit")).scalar_one() == 0


def test_the_longest_windows_and_one_that_has_begun(database: Database) -> None:
    """R14.1: 92 nights, 31 of a rollover; one that began yesterday is on."""
    district_id = add_district(database)
    assert add(database, district_id, "2026-07-01", "2026-09-30", "additions_only").window_id
    assert add(database, district_id, "2026-10-01", "2026-10-31", "rollover").window_id
    window = add(database, district_id, "2026-05-31", "2026-06-01")
    assert on_at(database, district_id, NOW) == window


def test_overlapping_windows_are_refused(database: Database) -> None:
    """R14.1: the last night of one is the first of another; the day after is not. A cancelled window leaves its nights."""
    district_id = add_district(database)
    first = add(database, district_id, "2026-07-01", "2026-07-05")
    with pytest.raises(RosterError, match=rf"overlap those of window {first.window_id} \(freeze, the nights of 2026-07-01 to 2026-07-05\)"):
        add(database, district_id, "2026-07-05", "2026-07-08", "rollover")
    add(database, district_id, "2026-07-06", "2026-07-08", "rollover")
    with database.engine.begin() as connection:
        cancel_window(connection, first.window_id, by="Ann", reason=None, now=NOW)
    assert add(database, district_id, "2026-07-05", "2026-07-05").window_id


def test_a_window_that_is_over_cannot_be_cancelled_to_make_room(database: Database) -> None:
    """R14.1: the message says where the new one can begin."""
    district_id = add_district(database)
    first = add(database, district_id, "2026-05-30", "2026-06-01")
    with pytest.raises(RosterError, match="It is over: --from 2026-06-02 begins after it"):
        add(database, district_id, "2026-06-01", "2026-06-03", now=first.ends_at)


def test_two_people_at_once(database: Database) -> None:
    """R14.1: the second one waits for the first, and is refused with the window that was there first."""
    district_id = add_district(database)
    new = NewWindow(district_id, None, "freeze", date(2026, 7, 1), date(2026, 7, 2), {})
    ended: list[Any] = []

    def second() -> None:
        try:
            with database.engine.begin() as connection:
                ended.append(add_window(connection, new, by="Bea", reason="x", now=NOW))
        except RosterError as error:
            ended.append(error)

    with database.engine.begin() as connection:
        window = add_window(connection, new, by="Ann", reason="x", now=NOW)
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(1)
        assert not ended  # it waits
    thread.join(30)
    assert len(ended) == 1
    assert f"window {window.window_id} " in str(ended[0])


@pytest.mark.parametrize(
    "statement",
    [
        "update ops.windows set last_night = last_night + 1",
        "update ops.windows set kind = 'rollover', cancelled_by = 'x', cancelled_at = now()",
        "update ops.windows set reason = 'another'",
        "delete from ops.windows",
        "truncate ops.windows",
    ],
)
def test_a_window_never_changes(database: Database, statement: str) -> None:
    """R14.1: the database refuses it to everybody."""
    add(database, add_district(database), "2026-07-01", "2026-07-05")
    with database.engine.begin() as connection, pytest.raises(sa.exc.ProgrammingError, match="only cancelled once"):
        connection.execute(text(statement))


def test_a_cancelled_window_stays_cancelled(database: Database) -> None:
    """R14.1: it was on until then. It is not cancelled twice, taken back, or cancelled when it is over."""
    district_id = add_district(database)
    window = add(database, district_id, "2026-06-01", "2026-06-05")
    until = NOW + timedelta(hours=2)
    with database.engine.begin() as connection:
        cancel_window(connection, window.window_id, by="Bea", reason="loaded", now=until)
    assert on_at(database, district_id, until - timedelta(seconds=1)) is not None
    assert on_at(database, district_id, until) is None
    with database.engine.begin() as connection, pytest.raises(RosterError, match="was cancelled at"):
        cancel_window(connection, window.window_id, by="Bea", reason=None, now=until)
    with database.engine.begin() as connection, pytest.raises(sa.exc.ProgrammingError, match="only cancelled once"):
        connection.execute(text("update ops.windows set cancelled_at = null, cancelled_by = null"))
    other = add(database, district_id, "2026-06-03", "2026-06-03")
    with database.engine.begin() as connection, pytest.raises(RosterError, match="is over"):
        cancel_window(connection, other.window_id, by="Bea", reason=None, now=other.ends_at)
    with database.engine.connect() as connection:
        acts = connection.execute(text("select act, given_name, subject, facts ->> 'kind' from ops.audit order by audit_id"))
        assert [tuple(row) for row in acts] == [
            ("window_add", "Ann", f"window {window.window_id}", "freeze"),
            ("window_cancel", "Bea", f"window {window.window_id}", "freeze"),
            ("window_add", "Ann", f"window {other.window_id}", "freeze"),
        ]


def test_when_a_freeze_ended(database: Database) -> None:
    """R14.2: silence is counted from there: noon after the last night, or the cancellation; not if another window was on then."""
    ours, other = add_district(database), add_district(database, "d2")
    window = add(database, "typing_agent", "2026-06-01", "2026-06-05")
    add(database, other, "2026-06-05", "2026-06-06", "additions_only")
    with database.engine.connect() as connection:
        assert freezes_ended_at(connection, window.ends_at - timedelta(seconds=1)) == {}
        assert freezes_ended_at(connection, window.ends_at) == {ours: window.ends_at}
    second = add(database, other, "2026-06-10", "2026-06-20")
    cancelled_at = second.begins_at + timedelta(days=2)
    with database.engine.begin() as connection:
        cancel_window(connection, second.window_id, by="Ann", reason=None, now=cancelled_at)
        assert freezes_ended_at(connection, second.ends_at) == {ours: window.ends_at, other: cancelled_at}
