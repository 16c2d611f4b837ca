"""R11.8: which events of a real sync are recorded as alerts, once, in the transaction of the event."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError

from roster_pipeline.alerts.outbox import record_alert
from roster_pipeline.database.engine import Database
from roster_pipeline.errors import RosterError
from roster_pipeline.fleet.recovery import mark_crashed_syncs
from roster_pipeline.sync.ledger import CRASHED, Origin
from roster_pipeline.sync.run import SyncReport, SyncRequest, run_sync
from roster_pipeline_tests.sync.scenario import DISTRICT, Scenario, scenario

SCHEDULED = Origin(trigger="scheduled", requested_role=None)
WIDE = {"brakes": {"role_floor": 1000, "school_floor": 1000}}
TIGHT = {"brakes": {"role_floor": 0, "role_share": 0, "school_floor": 1000}}


@pytest.fixture
def world(database: Database) -> Iterator[Scenario]:
    with scenario(database) as opened:
        yield opened


def recorded(world: Scenario) -> list[tuple[str, dict[str, Any]]]:
    """Kind and facts of every alert, oldest first."""
    return [tuple(row) for row in world.rows("select kind, facts from ops.alerts order by alert_id")]


def kinds(world: Scenario) -> list[str]:
    return [kind for kind, _ in recorded(world)]


def refuse(world: Scenario) -> None:
    """Make every later sync fail, because Clever refuses our credentials."""
    world.settings = world.settings.model_copy(update={"clever_client_secret": SecretStr("wrong")})


def nightly(world: Scenario) -> SyncReport:
    """Sync as the schedule does."""
    return run_sync(world.database, world.settings, SyncRequest(DISTRICT, SCHEDULED), clock=world.clock)


def test_a_successful_sync_makes_no_alert(world: Scenario) -> None:
    """R11.8: neither the first sync nor one that changes a lot."""
    school = world.school("a")
    world.students(school, 3)
    world.sync()
    world.students(school, 3, prefix="new")
    nightly(world)
    assert recorded(world) == []


def test_an_event_makes_one_alert_ever(database: Database) -> None:
    """R11.8: the same occasion makes no second alert, even after the first is closed; another occasion does."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with database.engine.begin() as connection:
        for occasion in (1, 1, 2):
            record_alert(connection, "run_failed", occasion, now=now)
        connection.exec_driver_sql("update ops.alerts set closed_at = now()")
        record_alert(connection, "run_failed", 1, now=now)
        assert connection.exec_driver_sql("select array_agg(event order by alert_id) from ops.alerts").scalar_one() == [
            "run_failed:1",
            "run_failed:2",
        ]


def test_a_failed_sync(world: Scenario) -> None:
    """R11.8: the alert has the message of the sync's row. It is urgent if a person requested the sync, not if the schedule started it."""
    world.students(world.school("a"), 1)
    refuse(world)
    for origin in (Origin(), SCHEDULED):
        with pytest.raises(RosterError):
            run_sync(world.database, world.settings, SyncRequest(DISTRICT, origin))
    rows = world.rows(
        """
        select a.event = 'sync_failed:' || s.sync_id, a.facts ->> 'message' = s.message, a.created_at = s.finished_at, a.is_urgent,
            a.district_id = s.district_id
        from ops.syncs s join ops.alerts a using (sync_id) where s.status = 'failed' order by sync_id
        """
    )
    assert rows == [(True, True, True, True, True), (True, True, True, False, True)]


def test_a_skipped_sync_makes_no_alert(world: Scenario) -> None:
    """R11.8: somebody has paused the district on purpose."""
    world.execute("update app.districts set status = 'paused'")
    with pytest.raises(RosterError):
        world.sync()
    assert recorded(world) == []


def test_an_alert_and_its_cause_are_one_transaction(world: Scenario) -> None:
    """R11.5, R11.8: a sync that cannot commit leaves no alert of its hold. The alert of its failure is recorded together with its row."""
    students = world.students(world.school("a"), 5)
    world.agree(settings=TIGHT)
    world.sync()
    world.change.remove_users(students[:2])
    world.execute(
        """
        create function ops.refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
        create trigger refuse before update on ops.syncs for each row when (new.status = 'held') execute function ops.refuse();
        """
    )
    with pytest.raises(RosterError):
        world.sync()
    assert kinds(world) == ["sync_failed"]
    assert world.holds() == []
    assert world.value("select status from ops.syncs order by sync_id desc limit 1") == "failed"
    world.execute("drop trigger refuse on ops.syncs")
    assert world.sync().status == "held"
    assert kinds(world) == ["sync_failed", "hold_opened"]


def test_a_sync_is_not_marked_failed_without_its_alert(world: Scenario) -> None:
    """R11.8: if the alert cannot be written, the row stays `processing`, like that of a crashed sync, until both can be written."""
    world.students(world.school("a"), 1)
    refuse(world)
    world.execute("alter table ops.alerts add constraint full_disk check (kind = '') not valid")
    with pytest.raises(RosterError):
        world.sync()
    with world.database.engine.connect() as opened, pytest.raises(IntegrityError):
        mark_crashed_syncs(opened.execution_options(isolation_level="AUTOCOMMIT"), now=datetime.now(UTC))
    assert world.value("select status from ops.syncs") == "processing"
    world.execute("alter table ops.alerts drop constraint full_disk")
    with world.database.engine.connect() as opened:
        assert mark_crashed_syncs(opened.execution_options(isolation_level="AUTOCOMMIT"), now=datetime.now(UTC)) == 1
    assert kinds(world) == ["sync_failed"]


def test_a_crashed_sync_makes_one_alert(world: Scenario) -> None:
    """R11.4, R11.8: what marks the sync records the alert, also the next sync. The alert of a scheduled sync is not urgent."""
    world.students(world.school("a"), 1)
    crashed = "insert into ops.syncs (district_id, status, requested_role) select district_id, 'processing', {} from app.districts"
    world.execute(crashed.format("'support'"))
    for marked in (1, 0):
        with world.database.engine.connect() as opened:
            assert mark_crashed_syncs(opened.execution_options(isolation_level="AUTOCOMMIT"), now=datetime.now(UTC)) == marked
    world.execute(crashed.format("null"))
    assert world.sync().status == "successful"
    assert recorded(world) == [("sync_failed", {"message": CRASHED})] * 2
    assert world.rows("select is_urgent from ops.alerts order by alert_id") == [(True,), (False,)]


def test_one_alert_per_new_hold(world: Scenario) -> None:
    """R7.4, R7.5: none when a sync finds the same hold again, open or rejected; one when the plan changes; none when it is released."""
    students = world.students(world.school("a"), 6)
    world.agree(settings=TIGHT)
    world.sync()
    world.change.remove_users(students[:2])
    world.sync()
    [hold] = world.holds()
    assert recorded(world) == [
        ("hold_opened", {"hold": "district_role", "hold_id": hold[-1], "role": "student", "acts": 2, "active": 6, "limit": 0.0})
    ]
    assert nightly(world).status == "held"
    world.execute("update ops.holds set status = 'rejected'")
    assert nightly(world).status == "held"
    assert len(recorded(world)) == 1
    world.change.remove_users(students[2:3])
    assert nightly(world).status == "held"
    assert [facts["acts"] for _, facts in recorded(world)] == [2, 3]
    assert world.rows("select is_urgent from ops.alerts order by alert_id") == [(True,), (False,)]
    world.approve()
    assert world.sync().status == "successful"
    assert len(recorded(world)) == 2


def test_each_hold_of_a_sync_makes_an_alert(world: Scenario) -> None:
    """R7.4: the alert of a school's hold has the school's id."""
    students = world.students(world.school("a"), 6)
    world.agree(settings={"brakes": {"role_floor": 0, "role_share": 0, "school_floor": 0, "school_share": 0}})
    world.sync()
    world.change.remove_users(students[:2])
    world.sync()
    assert [(facts["hold"], "school_id" in facts) for _, facts in recorded(world)] == [("district_role", False), ("school_role", True)]


def test_a_dry_run_makes_no_alert(world: Scenario) -> None:
    """R11.8: neither for what would be held nor for bad records."""
    students = world.students(world.school("a"), 3)
    world.agree(settings=TIGHT)
    world.sync()
    world.change.remove_users(students[:2])
    world.change.patch("users", students[2], "district", "5f00000000000000000000ff")
    assert world.plan().plan.holding
    assert recorded(world) == []


def test_crossing_the_licenses_makes_one_alert(world: Scenario) -> None:
    """R9.3: none the next night, and none when it gets worse; another one after the district was within its licenses in between."""
    world.agree(licenses=2, settings=WIDE)
    school = world.school("a")
    students = world.students(school, 2)
    world.sync()
    assert recorded(world) == []
    more = world.students(school, 1, prefix="more")
    nightly(world)
    scope = {"scope": "district", "licenses": 2, "used": 3, "without_seat": 0, "held": 0}
    assert recorded(world) == [("licenses_crossed", {"scopes": [scope]})]
    world.students(school, 1, prefix="worse")
    nightly(world)
    nightly(world)
    assert len(recorded(world)) == 1
    world.change.remove_users([*students, *more])
    nightly(world)
    assert len(recorded(world)) == 1
    world.change.restore_users([*students, *more])
    nightly(world)
    assert kinds(world) == ["licenses_crossed"] * 2


def test_a_school_over_its_own_licenses(world: Scenario) -> None:
    """R9.1, R9.3: the school makes an alert also when its district is over already. The alert names every scope that is over."""
    small, big = world.school("small"), world.school("big")
    world.agree(licenses=2, schools=[("small", 1), ("big", None)], settings=WIDE)
    world.students(big, 3, prefix="big")
    nightly(world)
    world.students(small, 2, prefix="small")
    nightly(world)
    nightly(world)
    assert [[each["scope"] for each in facts["scopes"]] for _, facts in recorded(world)] == [["district"], [small, "district"]]


def test_the_policy_hold_makes_only_the_alert_of_its_hold(world: Scenario) -> None:
    """R9.2, R9.3: one event, one alert; students who come later make a new hold."""
    world.agree(licenses=2, over_license_policy="hold")
    school = world.school("a")
    world.students(school, 3)
    nightly(world)
    nightly(world)
    assert [(kind, facts.get("hold"), facts.get("acts")) for kind, facts in recorded(world)] == [("hold_opened", "licenses", 1)]
    world.students(school, 1, prefix="late")
    nightly(world)
    assert [facts["acts"] for _, facts in recorded(world)] == [1, 2]


def test_a_record_of_another_district(world: Scenario) -> None:
    """R3.6, R4.4: one alert, not one every night; another one when there are more such records, and when they come back."""
    students = world.students(world.school("a"), 5)
    nightly(world)
    foreign = "5f00000000000000000000ff"
    world.change.patch("users", students[0], "district", foreign)
    for _ in range(2):
        nightly(world)
    assert recorded(world) == [("data_quality", {"rules": {"users.foreign_district": 1}})]
    world.change.patch("users", students[1], "district", foreign)
    nightly(world)
    assert [facts["rules"] for _, facts in recorded(world)] == [{"users.foreign_district": 1}, {"users.foreign_district": 2}]
    for student in students[:2]:
        world.change.patch("users", student, "district", DISTRICT)
    nightly(world)
    world.change.patch("users", students[0], "district", foreign)
    nightly(world)
    assert len(recorded(world)) == 3


def test_errors_make_alerts_and_warnings_do_not(world: Scenario) -> None:
    """R4.2, R4.4: a quarantined record and an audit of severity error do; a dropped value and an audit that only warns do not."""
    students = world.students(world.school("a"), 3)
    world.sync()
    world.change.patch("users", students[0], "last_modified", "yesterday")
    world.change.change_username(students[1], "")
    nightly(world)
    assert recorded(world) == []
    world.change.patch("users", students[0], "name.last", "")
    nightly(world)
    assert recorded(world) == [("data_quality", {"rules": {"users.last_name_missing": 1}})]
    newcomer = world.district.new_id()
    world.execute(
        """insert into app.users (district_id, username, first_name, last_name, protected)
           select district_id, :name, 'O', 'Ld', true from app.districts""",
        name=newcomer,
    )
    world.change.add_user("student", "N", "N", schools=[world.school("b")], user=newcomer, grade="3")
    nightly(world)
    assert recorded(world)[1:] == [("data_quality", {"rules": {"clever_id_taken": 1}})]


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("name", "Ada Byron", "name_type"),
        ("roles", ["student"], "roles_type"),
        ("id", None, "id_missing"),
        ("district", None, "district_missing"),
    ],
)
def test_what_the_decoder_rejects_makes_an_alert(world: Scenario, field: str, value: Any, rule: str) -> None:
    """R4.9, R11.8: every rule of severity error is in the list that alerts are made from, wherever the broken record is found."""
    student, *_ = world.students(world.school("a"), 3)
    nightly(world)
    world.change.patch("users", student, field, value)
    nightly(world)
    assert recorded(world) == [("data_quality", {"rules": {f"users.{rule}": 1}})]


def test_a_district_that_clever_itself_reports_in_error(world: Scenario) -> None:
    """R11.8: counted in every sync, and reported when it begins. Other words, such as `pending`, are counted only."""
    world.students(world.school("a"), 2)
    for state, alerts in (("running", 0), ("error", 1), ("error", 1), ("pending", 1), ("error", 2), (None, 2)):
        world.change.set_district(state=state)
        nightly(world)
        assert world.value("select counts ->> 'clever_state' from ops.syncs order by sync_id desc limit 1") == state
        assert kinds(world) == ["district_in_error"] * alerts


def test_the_outbox_holds_nothing_personal(world: Scenario) -> None:
    """SPEC 12: it has ids and counts only, for every kind of alert that a sync can cause."""
    marker = "Zzyzxmarker"
    world.agree(licenses=1, settings=TIGHT)
    school = world.school(marker)
    students = world.students(school, 4, prefix=marker)
    world.sync()
    world.change.remove_users(students[:1])
    world.change.patch("users", students[1], "name.last", "")
    world.sync()
    refuse(world)
    with pytest.raises(RosterError):
        world.sync()
    assert set(kinds(world)) == {"licenses_crossed", "hold_opened", "data_quality", "sync_failed"}
    assert marker.lower() not in str(world.rows("select * from ops.alerts")).lower()
