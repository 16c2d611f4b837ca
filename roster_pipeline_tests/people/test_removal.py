"""`roster admins remove`: the way out for an account that no sync changes (R8.1, R8.2)."""

import pytest

from roster_pipeline.database.lock import district_lock
from roster_pipeline.errors import PermanentError, SyncRunningError
from roster_pipeline.people.removal import remove_person
from roster_pipeline_tests.commands.conftest import Roster
from roster_pipeline_tests.people.world import ANN, DISTRICT, OTHER, SETTINGS, SUE, World, counts, run


def remove(world: World, username: str, *, district: str = DISTRICT) -> int:
    return remove_person(world.database, SETTINGS, district, username, by="the office", reason="left").user_id


def test_the_account_ends_with_everything_it_has(world: World, roster: Roster) -> None:
    """R8.2: soft delete, roles and enrollments, each with its history, and the act. Nobody else changes; an import restores the account."""
    run(world, ANN, "ann,Ann,Lee,school_admin,South,ann@example.org", SUE)
    world.execute("insert into app.classrooms (district_id, name) values (:id, 'Art')")
    world.execute("""
        insert into app.enrollments (classroom_id, user_id, role) select classroom_id, user_id, 'teacher'
        from app.classrooms, app.users where username = 'ann'
    """)
    sue = world.user("sue")
    ended = roster("admins", "remove", " ANN", "--district", DISTRICT, "--by", "the office", "--reason", "left", "--json")
    user_id = world.rows("select user_id from app.users where username = 'ann'")[0]["user_id"]
    assert (ended.status, ended.document["user_id"], ended.document["roles"], ended.document["enrollments"]) == (0, user_id, 2, 1)
    assert (world.user("ann")["is_active"], world.user("ann")["roles"], world.user("sue")) == (False, [], sue)
    (act,) = world.rows("select * from ops.audit where act = 'remove'")
    assert (act["given_name"], act["reason"], act["subject"]) == ("the office", "left", f"user {user_id}")
    history = world.rows("select * from ops.changes where audit_id = (select max(audit_id) from ops.audit) order by entity, entity_id")
    assert [(each["entity"], each["action"]) for each in history] == [
        ("enrollments", "soft_delete"),
        ("user_roles", "role_loss"),
        ("user_roles", "role_loss"),
        ("users", "soft_delete"),
    ]
    assert all(each["before"] == {"deleted_at": None} and each["after"]["deleted_at"] for each in history)
    assert "remove by the office" in roster("explain", DISTRICT, str(user_id)).out
    assert counts(run(world, ANN)) == (0, 1, 0, 0)
    assert world.user("ann")["roles"] == ["teacher North csv"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("update app.users set username = 'other'", "No user of the district has that username"),
        ("update app.users set source = 'clever', protected = false", "is rostered from Clever, not imported"),
        ("update app.users set source = 'app'", "was made in the application, not imported"),
        ("update app.users set deleted_at = now()", "is deactivated already"),
        ("insert into app.user_roles (user_id, role) select user_id, 'account_owner' from app.users", "is the account owner"),
    ],
)
def test_accounts_that_it_does_not_end(world: World, change: str, reason: str) -> None:
    """R8.2: refused in words that name the reason and not the person, and nothing is changed."""
    run(world, ANN)
    world.execute(change)
    before = world.everything()
    with pytest.raises(PermanentError, match=reason) as raised:
        remove(world, "ann")
    assert raised.value.hint
    assert "ann" not in f"{raised.value} {raised.value.hint}".lower().split()
    assert world.everything() == before


def test_of_another_district(world: World) -> None:
    """R8.2: usernames are those of one district."""
    run(world, ANN)
    with pytest.raises(PermanentError, match="No user of the district"):
        remove(world, "ann", district=OTHER)


def test_not_while_a_sync_runs(world: World) -> None:
    """R11.2: exit status 4."""
    run(world, ANN)
    with world.database.engine.connect() as connection:
        locking = connection.execution_options(isolation_level="AUTOCOMMIT")
        district_id = world.rows("select district_id from app.users")[0]["district_id"]
        with district_lock(locking, district_id, DISTRICT), pytest.raises(SyncRunningError):
            remove(world, "ann")
