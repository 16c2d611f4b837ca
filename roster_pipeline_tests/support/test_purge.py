"""Which users a purge removes, which it never removes, and what is removed with them."""

import logging
from datetime import UTC, date, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.districts.agreement import UnknownDistrictError
from roster_pipeline.errors import PermanentError, SyncRunningError, TransientError, UsageError
from roster_pipeline.support import purge as module
from roster_pipeline.support.purge import Purge, plan_purge, purge_users
from roster_pipeline_tests.reference.driver import SETTINGS, LiveDistrict, leaves_unchanged
from roster_pipeline_tests.sync.clever import clever, section, student, teacher
from roster_pipeline_tests.sync.rows import active, new_user, user

DAY = date(2026, 3, 1)  # syncs of the tests are of 1 January
NOW = datetime(2026, 6, 1, tzinfo=UTC)
STAY = student("u2"), teacher("t2")


def purge(district: LiveDistrict, *, deleted_before: date = DAY, limit: int = 100, by: str = "ops-7") -> Purge:
    return purge_users(district.database, SETTINGS, district.clever_id, deleted_before=deleted_before, limit=limit, by=by, now=NOW)


def plan(district: LiveDistrict, *, deleted_before: date = DAY) -> Purge:
    return plan_purge(district.database, SETTINGS, district.clever_id, deleted_before=deleted_before, now=NOW)


def values(district: LiveDistrict, user_id: int) -> list[Any]:
    """For each row of the user's history: whether it has values."""
    query = (
        "select before is not null or after is not null as has from ops.changes where district_id = :district and user_id = :u order by 1"
    )
    return [row["has"] for row in district.execute(query, u=user_id)]


def purges(district: LiveDistrict) -> list[tuple[Any, ...]]:
    query = "select purged_by, purged_at, users, deleted_before from ops.purges where district_id = :district order by purge_id"
    return [tuple(row.values()) for row in district.execute(query)]


@pytest.fixture
def deleted(district: LiveDistrict) -> dict[str, int]:
    """u1 (student) and t1 (teacher), both in class c1, are soft-deleted; u2 and t2 stay. User ids by Clever id."""
    district.sync(clever(student("u1"), teacher("t1"), *STAY, section("c1", ["u1", "u2"], ["t1", "t2"])))
    district.sync(clever(*STAY, section("c1", ["u2"], ["t2"])))
    return {each: user(district, each)["user_id"] for each in ("u1", "u2", "t1")}


@pytest.fixture
def two(district: LiveDistrict) -> tuple[int, int]:
    """User ids of two soft-deleted users made in the application, the first one with a row of history."""
    first, second = (new_user(district, name, deleted_at="2026-01-01") for name in ("ana", "bo"))
    district.execute(
        "insert into ops.changes (sync_id, district_id, entity, entity_id, user_id, action, after)"
        """ values (1, :district, 'users', cast(:u as text), :u, 'update', '{"first_name": "Ana"}')""",
        u=first,
    )
    return first, second


def test_users_deleted_before_the_day_are_removed(
    district: LiveDistrict, deleted: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    """SPEC 12: so are their roles, enrollments and old values. Ids, actions and other users stay. Who asked is recorded and not logged."""
    caplog.set_level(logging.DEBUG)
    history = district.execute("select sync_id, entity, entity_id, user_id, action, changed_at from ops.changes order by 1, 2, 3")
    before = district.rows()

    planned = plan(district)
    assert district.rows() == before
    assert purges(district) == []
    found = purge(district)

    assert planned.user_ids == found.user_ids == sorted([deleted["u1"], deleted["t1"]])
    assert planned.by_role == found.by_role
    school_id = user(district, "u2")["school_id"]
    assert found.by_role == [
        {"role": "student", "school_id": school_id, "school": "S1", "users": 1},
        {"role": "teacher", "school_id": school_id, "school": "S1", "users": 1},
    ]
    assert planned.removed == {}
    assert {name: found.removed[name] for name in ("users", "roles", "enrollments")} == {"users": 2, "roles": 2, "enrollments": 2}

    after = district.rows()
    ids = {str(each) for each in found.user_ids}
    assert after["users"] == {key: row for key, row in before["users"].items() if key not in ids}
    assert after["user_roles"] == {key: row for key, row in before["user_roles"].items() if key.split(":")[0] not in ids}
    assert after["enrollments"] == {key: row for key, row in before["enrollments"].items() if key.split(":")[1] not in ids}
    assert (after["schools"], after["classrooms"]) == (before["schools"], before["classrooms"])

    assert district.execute("select sync_id, entity, entity_id, user_id, action, changed_at from ops.changes order by 1, 2, 3") == history
    assert found.removed["changes_emptied"] == len(values(district, deleted["u1"])) + len(values(district, deleted["t1"]))
    assert not any(values(district, deleted["u1"]) + values(district, deleted["t1"]))
    assert all(values(district, deleted["u2"]))
    assert purges(district) == [("ops-7", NOW, 2, DAY)]
    assert f"district {district.clever_id}: 2 users purged" in caplog.text
    assert "ops-7" not in caplog.text

    again = purge(district)
    assert (again.user_ids, again.removed) == ([], {})
    assert purges(district) == [("ops-7", NOW, 2, DAY)]


def test_the_next_sync_has_no_changes_and_a_returning_person_is_new(district: LiveDistrict, deleted: dict[str, int]) -> None:
    """R5.4, R7.2: there is no account to restore."""
    purge(district)
    assert district.sync(clever(*STAY, section("c1", ["u2"], ["t2"]))).counts["changes"] == {}
    district.sync(clever(student("u1"), *STAY, section("c1", ["u1", "u2"], ["t2"])))
    assert active(district, "users") == {"u1", "u2", "t2"}
    assert user(district, "u1")["user_id"] not in deleted.values()


def test_the_day_begins_at_midnight_in_los_angeles(district: LiveDistrict, two: tuple[int, int]) -> None:
    """A user that was deleted on that day, by the calendar there, stays."""
    for user_id, deleted_at in zip(two, ("2026-03-01 07:59:59+00", "2026-03-01 08:00:00+00"), strict=True):
        district.execute("update app.users set deleted_at = :at where user_id = :u", at=deleted_at, u=user_id)
    assert purge(district).user_ids == [two[0]]


@pytest.mark.parametrize("flag", ["protected", "do_not_restore"])
def test_users_that_support_marked_stay(district: LiveDistrict, two: tuple[int, int], flag: str) -> None:
    """R8.1, R8.3: without the row, a later sync could roster them again."""
    district.execute(f"update app.users set {flag} = true where user_id = :u", u=two[0])
    assert purge(district).user_ids == [two[1]]


def test_users_that_clever_shares_stay(district: LiveDistrict, deleted: dict[str, int]) -> None:
    """R4.6, R6.4: also if the person is shared and not rostered, or quarantined."""
    district.agree(grades=["1", "2"])
    district.sync(clever(student("u2", grade="9"), teacher("t2"), teacher("t1", name="Broken "), section("c1", ["u2"])))
    assert user(district, "u2")["deleted_at"] is not None
    assert district.execute("select resource, clever_id from staging.quarantined") == [{"resource": "users", "clever_id": "t1"}]
    # The last plan matches the same people. Here the snapshot alone has to be enough.
    district.execute("delete from reconcile.user_matches where district_id = :district")
    assert purge(district).user_ids == [deleted["u1"]]


def test_users_that_a_waiting_plan_matches_stay(database: Database) -> None:
    """R5.2, R7.6: a deleted account that is to be adopted once the first sync is approved."""
    district = LiveDistrict.sign_up(database, settings={"auto_initial": False})
    adopted = new_user(district, "ana", deleted_at="2026-01-01")
    other = new_user(district, "bo", deleted_at="2026-01-01")
    new_user(district, "eva")
    snapshot = clever(student("u1", "ana"), teacher("t1"), section("c1"))
    assert district.sync(snapshot).status == "held"
    assert purge(district).user_ids == [other]
    district.approve(1)
    district.sync(snapshot)
    assert user(district, "u1")["user_id"] == adopted


def test_users_of_every_source_and_without_a_role(district: LiveDistrict) -> None:
    """Also users made in the application or imported, once they are no longer protected; no active user."""
    made = new_user(district, "ana", role=None, deleted_at="2026-01-01")
    imported = new_user(district, "bo", role="district_admin", source="csv", deleted_at="2026-01-01")
    new_user(district, "eva")
    found = purge(district)
    assert found.user_ids == [made, imported]
    assert found.by_role == [
        {"role": "district_admin", "school_id": None, "school": None, "users": 1},
        {"role": None, "school_id": None, "school": None, "users": 1},
    ]


def test_another_district_is_left_alone(district: LiveDistrict, twig: LiveDistrict, deleted: dict[str, int]) -> None:
    """The same Clever ids belong to other people there."""
    twig.sync(clever(student("u1"), student("u2")))
    twig.sync(clever(student("u2")))
    with leaves_unchanged(twig):
        assert len(purge(district).user_ids) == 2
    assert all(values(twig, user(twig, "u1")["user_id"]))


def test_more_than_the_limit_is_refused_at_exactly_one_more(district: LiveDistrict, two: tuple[int, int]) -> None:
    with leaves_unchanged(district), pytest.raises(PermanentError, match="2 users would be purged, more than the limit of 1"):
        purge(district, limit=1)
    assert purges(district) == []
    assert values(district, two[0]) == [True]
    assert purge(district, limit=2).removed["users"] == 2


def test_the_last_30_days_are_refused(district: LiveDistrict) -> None:
    """By the calendar of Los Angeles, where it is still 31 May."""
    for attempt in (plan, purge):
        with pytest.raises(UsageError) as refused:
            attempt(district, deleted_before=date(2026, 5, 2))
        assert "2026-05-01" in refused.value.hint
        assert attempt(district, deleted_before=date(2026, 5, 1)).user_ids == []


def test_a_running_sync_is_not_disturbed(database: Database, district: LiveDistrict, two: tuple[int, int]) -> None:
    """R11.2: a purge takes the district's lock; planning one does not."""
    with database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        with district_lock(connection, district.district_id, district.clever_id):
            with leaves_unchanged(district), pytest.raises(SyncRunningError):
                purge(district)
            assert plan(district).user_ids == list(two)
    assert purge(district).user_ids == list(two)


@pytest.mark.parametrize("when", ["", "deferrable initially deferred"])
def test_rows_of_the_application_that_refer_to_a_user_refuse_it(district: LiveDistrict, two: tuple[int, int], when: str) -> None:
    """A table of the application refers to a user: nothing is removed, and the message names the table, not the user."""
    district.execute("create schema game")
    district.execute(f"create table game.scores (user_id bigint constraint scores_user references app.users {when}, score int)")
    district.execute("insert into game.scores values (:u, 1)", u=two[1])
    with leaves_unchanged(district), pytest.raises(PermanentError) as refused:
        purge(district)
    assert refused.value.reason == "Rows of game.scores refer to users who would be purged (constraint scores_user). Nothing was removed."
    assert purges(district) == []
    assert values(district, two[0]) == [True]
    district.execute("delete from game.scores")
    assert purge(district).removed["users"] == 2


def test_a_user_restored_meanwhile_is_not_removed(district: LiveDistrict, two: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The application restores a user after the candidates are read: the whole purge fails."""
    remove = module._remove

    def restored_first(*arguments: Any, **more: Any) -> dict[str, int]:
        district.execute("update app.users set deleted_at = null where user_id = :u", u=two[0])
        return remove(*arguments, **more)

    monkeypatch.setattr(module, "_remove", restored_first)
    with pytest.raises(TransientError):
        purge(district)
    assert district.rows()["users"].keys() == {str(each) for each in two}
    assert purges(district) == []


def test_an_unknown_district(database: Database) -> None:
    for attempt in (plan, purge):
        with pytest.raises(UnknownDistrictError):
            attempt(LiveDistrict(database, "nobody"))
    with database.engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from ops.purges")).scalar_one() == 0
