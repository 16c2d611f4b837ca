"""What people decide about holds, on a real database (R13.1 to R13.6).

Does not belong here: what a decision does to a sync (`sync/test_holds.py`), and the commands (`commands/test_cli_holds.py`).
"""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from roster_pipeline.brake_kinds import KINDS
from roster_pipeline.database.engine import Database
from roster_pipeline.errors import PermanentError
from roster_pipeline.profiles import PROFILES
from roster_pipeline.support import held_acts as acts
from roster_pipeline.support import holds
from roster_pipeline.support.holds import Decider
from roster_pipeline_tests.sync.scenario import Scenario, scenario

NOW = datetime(2026, 9, 1, tzinfo=UTC)
ANN, BEN = Decider("Ann", "ticket 1", "staff:ann"), Decider("Ben", None, "staff:ben")


@pytest.fixture
def world(database: Database) -> Iterator[Scenario]:
    with scenario(database) as opened:
        yield opened


@pytest.fixture
def held(world: Scenario) -> Scenario:
    """A district that has stopped sharing a school: its students are held, by district and by school."""
    world.fill({"small": 12, "big": 100})
    world.change.unshare([world.value("select clever_id from app.schools where name = 'small'")])
    assert world.sync().status == "held"
    return world


def ids(world: Scenario) -> list[int]:
    return [row[-1] for row in world.holds()]


def decided(world: Scenario) -> list[tuple[object, ...]]:
    return list(
        world.rows("select status, decided_by, decided_principal, decided_at is null, expires_at is null from ops.holds order by 1")
    )


def audit(world: Scenario) -> list[tuple[object, ...]]:
    query = (
        "select act, subject, given_name, principal, reason, facts ->> 'was' from ops.audit where subject like 'hold %' order by audit_id"
    )
    return list(world.rows(query))


def test_all_or_none(held: Scenario) -> None:
    """R13.5: one of them cannot be decided, so none is."""
    first, second = ids(held)
    with held.database.engine.begin() as connection:
        holds.reject(connection, [second], ANN, now=NOW)
    with held.database.engine.begin() as connection, pytest.raises(PermanentError, match="There is no hold 999"):
        holds.approve(connection, [first, 999], ANN, now=NOW)
    with (
        held.database.engine.begin() as connection,
        pytest.raises(PermanentError, match=f"{second} is rejected and cannot be"),
    ):
        holds.reject(connection, [first, second], ANN, now=NOW)
    assert [row[0] for row in decided(held)] == ["open", "rejected"]
    with held.database.engine.begin() as connection:
        holds.approve(connection, [second, first, first], BEN, now=NOW)
    assert decided(held) == [("approved", "Ben", "staff:ben", False, False)] * 2


def test_a_later_decision_erases_no_earlier_one(held: Scenario) -> None:
    """R13.2, R13.3, R13.4: the audit has each decision, with what the hold was before."""
    first, _ = ids(held)
    with held.database.engine.begin() as connection:
        holds.reject(connection, [first], ANN, now=NOW)
        holds.approve(connection, [first], BEN, now=NOW)
        holds.revoke(connection, first, ANN)
    subject = f"hold {first}"
    assert audit(held) == [
        ("reject", subject, "Ann", "staff:ann", "ticket 1", "open"),
        ("approve", subject, "Ben", "staff:ben", None, "rejected"),
        ("revoke", subject, "Ann", "staff:ann", "ticket 1", "approved"),
    ]
    assert decided(held) == [("open", None, None, True, True)] * 2


def test_a_decision_is_about_what_was_seen(held: Scenario) -> None:
    """R13.3: another plan has another hold. Its hash was not shown."""
    seen = [str(row[0]) for row in held.rows("select plan_hash from ops.holds")]
    old = ids(held)
    student = held.value("select clever_id from app.users where clever_id is not null and deleted_at is null order by user_id desc limit 1")
    held.change.remove_users([student])
    assert held.sync().status == "held"
    (new,) = set(ids(held)) - set(old)
    (superseded,) = set(old) - set(ids(held))
    (same,) = set(old) & set(ids(held))
    for changed in (new, superseded):
        with (
            held.database.engine.begin() as connection,
            pytest.raises(PermanentError, match="has changed since you looked"),
        ):
            holds.approve(connection, [same, changed], ANN, now=NOW, seen=seen)
    with held.database.engine.begin() as connection:
        holds.approve(connection, [same], ANN, now=NOW, seen=seen)
    assert held.holds("approved")[0][-1] == same


def test_two_people_decide_at_once(held: Scenario) -> None:
    """R13.3: one decision counts, and the other person is refused."""
    chosen = ids(held)
    ready, outcomes = threading.Barrier(2, timeout=30), []

    def decide(decider: Decider) -> None:
        with held.database.engine.begin() as connection:
            ready.wait()
            try:
                holds.approve(connection, chosen, decider, now=NOW)
                outcomes.append("approved")
            except PermanentError as error:
                outcomes.append(error.reason)

    threads = [threading.Thread(target=decide, args=(each,)) for each in (ANN, BEN)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert sorted(outcomes) == [f"Hold {chosen[0]} is approved and cannot be approved.", "approved"]
    assert len({row[1] for row in decided(held)}) == 1
    assert len(audit(held)) == 2


def test_a_used_approval_cannot_be_revoked(held: Scenario) -> None:
    """R13.4: the message names the sync that used it."""
    held.approve()
    report = held.sync()
    assert report.status == "successful"
    used = held.value("select max(hold_id) from ops.holds where status = 'used'")
    with held.database.engine.begin() as connection, pytest.raises(PermanentError) as caught:
        holds.revoke(connection, used, ANN)
    assert f"was used by sync {report.sync_id}" in caught.value.reason
    assert "roster explain" in caught.value.hint
    with held.database.engine.begin() as connection, pytest.raises(PermanentError, match="There is no hold"):
        holds.revoke(connection, 10**6, ANN)


def test_a_revoked_approval_releases_nothing(held: Scenario) -> None:
    """R13.4: the next sync holds the same again, in the same hold."""
    chosen = ids(held)
    held.approve()
    with held.database.engine.begin() as connection:
        for each in chosen:
            holds.revoke(connection, each, ANN)
    active = held.active()
    assert held.sync().status == "held"
    assert held.active() == active
    assert ids(held) == chosen


def test_the_latest_sync_that_ended_on_the_holds_has_them(held: Scenario) -> None:
    """R13.5: `--sync` means that one; `--kind` chooses among them."""
    chosen = ids(held)
    report = held.sync()
    with held.database.engine.begin() as connection:
        assert holds.holds_of_sync(connection, report.sync_id) == sorted(chosen)
        (only,) = holds.holds_of_sync(connection, report.sync_id, kind="school_role")
        assert holds.find_hold(connection, only)["kind"] == "school_role"
        for sync_id, kind in ((report.sync_id - 1, None), (report.sync_id, "relinks"), (-1, None), (1 << 70, None)):
            with pytest.raises(PermanentError, match="has no open hold"):
                holds.holds_of_sync(connection, sync_id, kind=kind)


def test_what_a_hold_holds(held: Scenario) -> None:
    """R13.5: a line for each act, with the person; and holds of one cause in one group."""
    query = """
        select users.clever_id from app.users
        join app.user_roles using (user_id) join app.schools on schools.school_id = user_roles.school_id
        where schools.name = 'small' and user_roles.role = 'student'
    """
    expected = {row[0] for row in held.rows(query)}
    with held.database.engine.begin() as connection:
        rows = holds.list_holds(connection)
        for row in rows:
            found = list(acts.held_acts(connection, row["hold_id"]))
            assert {each.clever_id for each in found} == expected
            assert len(found) == row["counts"]["acts"] == 12
            assert {(each.role, each.school, each.act.split(" ")[0]) for each in found} == {("student", "small", "delete")}
            assert all(each.username for each in found)
        assert [len(group) for group in acts.grouped(connection, rows)] == [2]
        users = acts.held_user_ids(connection, rows[0]["hold_id"])
    assert len(users) == 12
    # A second night with the same plan keeps the rows.
    before = held.rows("select xmin::text, act from ops.held_acts order by 2")
    held.sync()
    assert held.rows("select xmin::text, act from ops.held_acts order by 2") == before


def test_who_may_decide_in_the_district(held: Scenario) -> None:
    """R13.6: by the setting of the district; nobody who is among the held people."""
    with held.database.engine.begin() as connection:
        by_kind = {row["kind"]: row["hold_id"] for row in holds.list_holds(connection)}
        outside = held.value("select max(user_id) from app.users where user_id <> all(:held)", held=_held(held, by_kind["school_role"]))
        inside = min(_held(held, by_kind["school_role"]))
        assert holds.why_owner_may_not_decide(connection, by_kind["school_role"], outside) is None
        assert "among the people" in (holds.why_owner_may_not_decide(connection, by_kind["school_role"], inside) or "")
        assert "Only our support" in (holds.why_owner_may_not_decide(connection, by_kind["district_role"], outside) or "")


def _held(world: Scenario, hold_id: int) -> list[int]:
    with world.database.engine.connect() as connection:
        return sorted(acts.held_user_ids(connection, hold_id))


def test_the_setting_takes_every_kind_and_no_other() -> None:
    """R13.6."""
    allowed = PROFILES["typing_agent"].model_json_schema()["properties"]["district_may_approve"]["items"]["enum"]
    assert sorted(allowed) == sorted(KINDS)
    assert all(profile.district_may_approve == ("school_role", "licenses") for profile in PROFILES.values())
