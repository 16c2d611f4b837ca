"""R18.2: one person is erased, and no later sync brings them back."""

import logging
from datetime import UTC, datetime

import pytest

from roster_pipeline.database.lock import district_lock
from roster_pipeline.errors import PermanentError, SyncRunningError, UsageError
from roster_pipeline.support.erasure import Erasure, erase_person
from roster_pipeline.support.explanation import Ambiguous
from roster_pipeline.support.find_person import UnknownPersonError
from roster_pipeline_tests.reference.driver import SETTINGS, LiveDistrict, leaves_unchanged
from roster_pipeline_tests.sync.clever import clever, section, student, teacher
from roster_pipeline_tests.sync.rows import active, change_user, enrolled, new_user, user

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ZOE, HERE = "b1Zed", "b2Here"
CLASS = section("c1", [ZOE, HERE], ["t1", "t2"])
PEOPLE = (
    student(ZOE, "zoe", name="Zoe Quux", email="zoe@q.example", sis_id="9911"),
    student(HERE, "bo"),
    teacher("t1"),
    teacher("t2"),
)


def erase(district: LiveDistrict, person: str = ZOE, *, reason: str = "ticket 4711", apply: bool = True) -> Erasure:
    found = erase_person(district.database, SETTINGS, district.clever_id, person, by="Kim", reason=reason, apply=apply, now=NOW)
    assert isinstance(found, Erasure)
    return found


def places(district: LiveDistrict, *values: str) -> set[str]:
    """The tables in which one of these texts is."""
    tables = district.execute(
        "select schemaname || '.' || relname as name from pg_stat_user_tables where schemaname not in ('pg_catalog', 'information_schema')"
    )
    found = set()
    for table in (row["name"] for row in tables):
        texts = " ".join(row["row"] for row in district.execute(f"select cast(t as text) as row from {table} as t")).casefold()
        if any(value.casefold() in texts for value in values):
            found.add(table)
    return found


@pytest.fixture
def synced(district: LiveDistrict) -> LiveDistrict:
    """A district with two students and two teachers in one class, synced twice."""
    district.sync(clever(*PEOPLE, CLASS))
    district.sync(clever(*PEOPLE, CLASS, section("c2", [ZOE])))
    return district


def test_a_dry_run_writes_nothing_and_counts_the_same(synced: LiveDistrict) -> None:
    """R18.1, R18.2: without --apply it only says what it would do."""
    with leaves_unchanged(synced):
        planned = erase(synced, apply=False)
    assert planned.purge_id is None
    assert (
        synced.execute(
            "select 1 as n from ops.purges union all select 1 from ops.erased union all select 1 from ops.audit where act = 'erase'"
        )
        == []
    )
    done = erase(synced)
    assert done.counts == planned.counts
    assert done.counts["app.users"] == {"removed": 1}
    assert done.counts["app.enrollments"] == {"removed": 2}
    assert done.counts["staging.sections"] == {"emptied": 2}
    assert done.counts["ops.changes"] == {"emptied": 4}


def test_nothing_of_the_person_is_left_and_no_sync_brings_them_back(synced: LiveDistrict, caplog: pytest.LogCaptureFixture) -> None:
    """R18.2: with the same records, with changed ones, and when everything is read again. The others stay as they are."""
    caplog.set_level(logging.DEBUG)
    before = synced.rows()
    zoe = str(user(synced, ZOE)["user_id"])
    done = erase(synced)
    after = synced.rows()
    assert after["users"] == {key: row for key, row in before["users"].items() if key != zoe}
    assert after["enrollments"] == {key: row for key, row in before["enrollments"].items() if key.split(":")[1] != zoe}
    assert places(synced, ZOE, "quux", "zoe", "9911") == set()

    same = clever(*PEOPLE, CLASS, section("c2", [ZOE]))
    reports = [synced.sync(same), synced.sync(same)]
    renamed = (student(ZOE, "zoe2", name="Zoe Quux-Ray", sis_id="9911"), *PEOPLE[1:])
    reports.append(synced.sync(clever(*renamed, section("c1", [HERE, ZOE], ["t2"]))))
    synced.forget()
    reports.append(synced.sync(clever(*renamed, section("c1", [HERE, ZOE], ["t2"]))))
    assert [report.status for report in reports] == ["successful"] * 4
    assert [report.counts["changes"] for report in (reports[0], reports[1], reports[3])] == [{}, {}, {}]
    assert reports[1].counts["settled_since"] == reports[0].sync_id
    for report in reports:
        assert report.counts["findings"] == {"users.erased": 1}
        assert synced.quarantine(report.sync_id) == [("users", "", "erased", "warn")]
        assert report.counts["audits"]["enrollment_unknown_person"] == 0
        assert report.counts["members_missing"] == 0
    assert enrolled(synced, "c1") == {(HERE, "student", False), ("t2", "teacher", True)}
    assert active(synced, "users") == {HERE, "t1", "t2"}
    assert places(synced, ZOE, "quux", "zoe", "9911") == set()
    assert synced.execute("select * from ops.alerts where kind = 'data_quality'") == []
    for value in (ZOE, "Quux", "zoe", "9911"):
        assert value.casefold() not in caplog.text.casefold()
    assert done.clever_ids == 1
    with pytest.raises(UnknownPersonError, match="was erased on 2026-06-01"):
        erase(synced)


def test_who_did_it_is_recorded(synced: LiveDistrict) -> None:
    """R13.2: one row of ops.purges, one of ops.audit, without personal data."""
    user_id = user(synced, ZOE)["user_id"]
    done = erase(synced, "zoe")
    (purge,) = synced.execute("select * from ops.purges")
    assert (purge["purge_id"], purge["kind"], purge["purged_by"], purge["reason"]) == (done.purge_id, "person", "Kim", "ticket 4711")
    assert purge["principal"].startswith("os:")
    assert (purge["users"], purge["counts"], purge["purged_at"]) == (1, done.counts, NOW)
    (act,) = synced.execute("select * from ops.audit where act = 'erase'")
    assert (act["act"], act["given_name"], act["reason"], act["subject"]) == ("erase", "Kim", "ticket 4711", f"user {user_id}")
    assert act["facts"] == {"purge_id": done.purge_id, "counts": done.counts}


def test_a_broken_record_of_an_erased_person(synced: LiveDistrict) -> None:
    """R4.6, R18.2: it neither counts as present, nor is its id stored with its findings."""
    erase(synced)
    broken = student(ZOE, name="Zoe ", sis_id=5)
    report = synced.sync(clever(broken, *PEOPLE[1:], CLASS))
    assert report.counts["findings"] == {"users.erased": 1}
    assert places(synced, ZOE, "zoe") == set()


def test_lists_that_clever_does_not_send_stay_unknown(district: LiveDistrict) -> None:
    """R4.7: taking an id out of one list of a section makes no empty list of the other."""
    without = {**section("c1", [ZOE, HERE])}
    del without["teachers"]
    district.sync(clever(*PEOPLE, CLASS))
    district.sync(clever(*PEOPLE, without))
    erase(district)
    report = district.sync(clever(*PEOPLE, without))
    assert report.counts["findings"] == {"sections.teachers_missing": 1, "users.erased": 1}
    assert enrolled(district, "c1") == {(HERE, "student", False), ("t1", "teacher", True), ("t2", "teacher", False)}


def test_somebody_that_clever_shares_and_nobody_rosters(district: LiveDistrict) -> None:
    """A person without an account: the record goes, and stays away, although nothing in `app` has changed."""
    district.agree(grades=["1", "2"])
    snapshot = clever(student(ZOE, name="Zoe Quux", grade="9"), student(HERE, grade="1"), section("c1", [HERE]))
    district.sync(snapshot)
    district.sync(snapshot)
    done = erase(district)
    assert (done.user_id, done.clever_ids) == (None, 1)
    report = district.sync(snapshot)
    assert report.counts["findings"] == {"users.erased": 1}
    assert report.counts["audits"]["person_outside_agreement"] == 0
    assert places(district, ZOE, "quux") == set()


def test_every_id_of_the_person_stays_away(district: LiveDistrict) -> None:
    """R5.3, R5.10: the id before a relink, and that of a second record. Other people still get new ids as ever."""
    twice = student("u9", name="Zoe Quux", sis_id="9911")
    district.sync(clever(student("u0", "zoe", name="Zoe Quux", sis_id="9911"), student("u7", "eva", name="Eva Ray", sis_id="7")))
    district.sync(clever(student(ZOE, "zoe", name="Zoe Quux", sis_id="9911"), student("u7", "eva", name="Eva Ray", sis_id="7")))
    district.sync(clever(student(ZOE, "zoe", name="Zoe Quux", sis_id="9911"), twice, student("u7", "eva", name="Eva Ray", sis_id="7")))
    eva = user(district, "u7")["user_id"]
    assert erase(district).clever_ids == 3
    for clever_id in ("u0", ZOE, "u9"):
        district.sync(clever(student(clever_id, "zoe", name="Zoe Quux"), student("u8", "eva", name="Eva Ray", sis_id="7")))
    assert active(district, "users") == {"u8"}
    assert user(district, "u8")["user_id"] == eva


def test_rows_that_the_application_refers_to_are_blanked(synced: LiveDistrict) -> None:
    """R18.1: no personal value is left, the row is soft-deleted, and the application's row stays; also with `on delete cascade`."""
    user_id = user(synced, ZOE)["user_id"]
    synced.execute("create schema game")
    synced.execute("create table game.scores (player bigint references app.users on delete cascade, score int)")
    synced.execute("insert into game.scores values (:u, 7)", u=user_id)
    done = erase(synced)
    assert done.counts["app.users"] == {"blanked": 1}
    (row,) = synced.execute("select * from app.users where user_id = :u", u=user_id)
    kept = {name for name, value in row.items() if value is not None}
    assert kept == {
        *("user_id", "district_id", "source", "protected", "do_not_restore", "login_methods", "deleted_at", "created_at", "updated_at")
    }
    assert (row["login_methods"], row["source"]) == ([], "app")
    assert synced.execute("select score from game.scores") == [{"score": 7}]
    assert synced.execute("select 1 as n from app.user_roles where user_id = :u", u=user_id) == []
    assert places(synced, ZOE, "quux", "zoe", "9911") == set()
    report = synced.sync(clever(*PEOPLE, CLASS, section("c2", [ZOE])))
    assert report.counts["changes"] == {}


def test_a_row_that_keeps_another_one(synced: LiveDistrict) -> None:
    """The application refers to an enrollment: it stays, soft-deleted, and so does the blanked user behind it."""
    user_id = user(synced, ZOE)["user_id"]
    synced.execute("""
        create table app.grades (
            classroom bigint, person bigint, role text, foreign key (classroom, person, role) references app.enrollments, grade int
        )
    """)
    synced.execute(
        "insert into app.grades select classroom_id, user_id, role, 1 from app.enrollments where user_id = :u limit 1", u=user_id
    )
    done = erase(synced)
    assert done.counts["app.enrollments"] == {"removed": 1, "blanked": 1}
    assert done.counts["app.users"] == {"blanked": 1}
    assert done.counts["app.user_roles"] == {"removed": 1}
    assert places(synced, ZOE, "quux", "zoe", "9911") == set()


@pytest.mark.parametrize("flag", ["protected", "do_not_restore"])
def test_people_that_support_marked_are_erased(synced: LiveDistrict, flag: str) -> None:
    """R8.1, R8.3: the marks bind syncs. The tombstone keeps the person away, so no account has to stay for it."""
    change_user(synced, ZOE, **{flag: True})
    assert erase(synced).counts["app.users"] == {"removed": 1}
    synced.sync(clever(*PEOPLE, CLASS))
    assert active(synced, "users") == {HERE, "t1", "t2"}


def test_an_account_owner_is_refused(synced: LiveDistrict) -> None:
    """A district without an account owner could ask for nothing."""
    user_id = new_user(synced, "boss", role="account_owner")
    with leaves_unchanged(synced), pytest.raises(PermanentError, match=f"User {user_id} is the account owner"):
        erase(synced, "boss")


def test_a_held_person_is_erased_and_the_hold_is_decided_again(district: LiveDistrict) -> None:
    """R7.5: the approval was of a plan with the person, so it releases nothing afterwards."""
    district.agree(settings={"brakes": {"role_floor": 0, "role_share": 0}})
    people = [student(f"p{n}", f"n{n}") for n in range(3)]
    district.sync(clever(*PEOPLE, *people, CLASS))
    less = clever(*PEOPLE[1:], *people[2:], section("c1", [HERE], ["t1", "t2"]))
    assert district.sync(less).status == "held"
    ((hold_id, hold),) = district.holds().items()
    assert hold.status == "open"
    district.approve(hold_id)
    done = erase(district)
    assert (done.pending_holds, done.counts["app.users"]) == (1, {"removed": 1})
    report = district.sync(less)
    assert report.status == "held"
    assert [each.status for each in district.holds().values()] == ["superseded", "open"]
    assert places(district, ZOE, "quux", "zoe", "9911") == set()


def test_several_candidates_are_refused(synced: LiveDistrict) -> None:
    """Nobody is erased by a guess."""
    for _ in range(2):
        new_user(synced, "ana", deleted_at="2026-01-01")
    with leaves_unchanged(synced):
        found = erase_person(synced.database, SETTINGS, synced.clever_id, "ana", by="Kim", reason="ticket", apply=True, now=NOW)
    assert isinstance(found, Ambiguous)
    assert len(found.matches) == 2


@pytest.mark.parametrize("reason", ["Zoe Quux's mother asked", "account ZOE", f"erase {ZOE.lower()}", "number 9911"])
def test_a_reason_that_names_the_person_is_refused(synced: LiveDistrict, reason: str) -> None:
    """It is kept in ops.purges and ops.audit."""
    with leaves_unchanged(synced), pytest.raises(UsageError) as refused:
        erase(synced, reason=reason)
    assert "quux" not in str(refused.value).casefold()


def test_a_teachers_name_in_the_names_of_classes(district: LiveDistrict) -> None:
    """SPEC 12: active ones are listed, because only the district can rename them. Old names and old values go."""
    people = (teacher("t1", name="Vera Quux"), teacher("t2"), student(HERE))
    district.sync(clever(*people, section("c1", [HERE], ["t1"], name="Quux - Math"), section("c2", [HERE], ["t1"], name="Quux - Art")))
    district.sync(clever(*people, section("c1", [HERE], ["t1"], name="Quux - Math")))
    done = erase(district, "t1")
    (math,) = district.execute("select classroom_id from app.classrooms where clever_id = 'c1'")
    assert done.classroom_ids == [math["classroom_id"]]
    assert places(district, "quux") == {"app.classrooms", "staging.sections"}
    district.sync(clever(*people, section("c1", [HERE], ["t1"], name="Math")))
    assert places(district, "quux") == {"ops.changes"}


def test_what_the_person_signed(synced: LiveDistrict) -> None:
    """A request of an owner is signed with the username."""
    synced.execute("update ops.syncs set requested_by = ' Zoe@D.example'")
    done = erase(synced)
    assert done.counts["ops.syncs"] == {"emptied": 2}
    assert places(synced, "zoe") == set()


def test_a_running_sync_keeps_the_lock(synced: LiveDistrict) -> None:
    """R11.2: exit status 4, and nothing is done, also in a dry run."""
    with synced.database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        with district_lock(connection, synced.district_id, synced.clever_id), leaves_unchanged(synced):
            for apply in (False, True):
                with pytest.raises(SyncRunningError):
                    erase(synced, apply=apply)


def test_another_district_is_left_alone(synced: LiveDistrict, twig: LiveDistrict) -> None:
    """The same Clever id is somebody else there, and has no tombstone."""
    twig.sync(clever(student(ZOE)))
    with leaves_unchanged(twig):
        erase(synced)
    assert twig.sync(clever(student(ZOE))).counts["changes"] == {}
    hashes = synced.execute("select salt, clever_id_hash from ops.erased")
    erase(twig)
    assert len({row["salt"] for row in synced.execute("select salt from ops.erased")}) == 2
    assert len(hashes) == 1
