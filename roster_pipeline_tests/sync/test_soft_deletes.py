"""What is soft-deleted, what is corrected, and what is protected: R7.1, R7.2, R8.1; and order makes no difference: R5.7."""

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline_tests.reference.driver import LiveDistrict, leaves_unchanged
from roster_pipeline_tests.reference.model import Snapshot
from roster_pipeline_tests.sync.clever import clever, school, section, student, teacher
from roster_pipeline_tests.sync.rows import active, change_user, enrolled, new_school, new_user, roles, user, usernames

YEAR_END = clever(
    school("s2"), section("c1", ["p1", "p2"], ["p3", "p4"]), student("p1", "ann"), student("p2", "ben"), teacher("p3"), teacher("p4")
)
PEOPLE = YEAR_END.users


def test_what_is_not_shared_any_more_is_soft_deleted(district: LiveDistrict) -> None:
    """R7.1: schools, classrooms, users, roles and enrollments, all with the same time. No row is removed."""
    district.sync(YEAR_END)
    before = district.rows()
    district.sync(clever(section("c2"), student("p1", "ann"), teacher("p3")))
    after = district.rows()
    assert all(rows.keys() <= after[table].keys() for table, rows in before.items())
    ended = [row["deleted_at"] for rows in after.values() for row in rows.values() if row["deleted_at"]]
    assert (len(ended), len(set(ended))) == (1 + 1 + 2 + 2 + 4, 1)


def test_a_second_sync_writes_nothing(district: LiveDistrict) -> None:
    """R7.2: no row of app, not even with the same values, and no row of ops.changes."""
    district.sync(YEAR_END)
    with leaves_unchanged(district):
        report = district.sync(YEAR_END)
    assert district.changes(report.sync_id) == []


def test_a_change_by_hand_is_corrected(district: LiveDistrict) -> None:
    """R7.2: in every table of rostered rows."""
    district.sync(YEAR_END)
    before = district.state()
    change_user(district, "p1", first_name="Hand", grade="12", school_id=None, login_methods=["google"], source="app")
    change_user(district, "p2", deleted_at="2025-01-01")
    district.execute("update app.schools set name = 'Hand' where district_id = :district")
    district.execute("update app.classrooms set name = 'Hand', deleted_at = '2025-01-01' where district_id = :district")
    district.execute("update app.user_roles set deleted_at = '2025-01-01' where district_id = :district")
    district.execute("update app.enrollments set is_primary = false, source = 'app' where district_id = :district")
    assert district.state() != before
    district.sync(YEAR_END)
    assert district.state() == before


def test_an_enrollment_made_by_hand_ends(district: LiveDistrict) -> None:
    """R7.2: the enrollments of a rostered classroom follow Clever."""
    district.sync(YEAR_END)
    before = enrolled(district, "c1")
    district.execute(
        "insert into app.enrollments (classroom_id, user_id, role)"
        " select classroom_id, user_id, 'student' from app.classrooms, app.users"
        " where classrooms.district_id = :district and users.district_id = :district and users.clever_id = 'p3'"
    )
    assert enrolled(district, "c1") != before
    district.sync(YEAR_END)
    assert enrolled(district, "c1") == before


def test_existing_data_of_the_application_ends(district: LiveDistrict) -> None:
    """R7.2, R8.1: rows of source `app` that match nothing and are not protected."""
    new_user(district, "cy")
    district.execute("insert into app.classrooms (district_id, name) values (:district, 'By hand')")
    kept = [new_user(district, "dot", protected=True), new_school(district, protected=True)]
    district.sync(YEAR_END)
    state = district.state()
    of_the_app = {
        (type(row).__name__, each)
        for rows in (state.users, state.schools, state.classrooms)
        for each, row in rows.items()
        if not row.clever_id
    }
    left = {
        (type(row).__name__, each)
        for rows in (state.users, state.schools)
        for each, row in rows.items()
        if not row.clever_id and not row.deleted_at
    }
    assert left == {("User", kept[0]), ("School", kept[1])}
    assert len(of_the_app) == 6  # two users with a school each, one school and one classroom more


@pytest.mark.parametrize("is_deleted", [False, True])
def test_nothing_of_a_protected_row_changes(district: LiveDistrict, is_deleted: bool) -> None:
    """R8.1: neither name, school and roles of an active row, nor `deleted_at` of a deleted one."""
    district.sync(YEAR_END)
    deleted_at = "2025-01-01" if is_deleted else None
    change_user(district, "p1", protected=True, first_name="Hand", username="hand", deleted_at=deleted_at)
    for table in ("schools", "classrooms"):
        protect = f"update app.{table} set protected = true, name = 'Hand', deleted_at = :at where district_id = :district"
        district.execute(protect, at=deleted_at)
    before = district.rows()
    district.sync(
        clever(school("s1", "New"), school("s2"), section("c1", name="New"), student("p1", "ann", at="s2", name="New Name"), *PEOPLE[1:])
    )
    district.sync(clever(school("s2"), *PEOPLE[1:]))
    after = district.rows()
    for table in ("schools", "classrooms", "user_roles"):
        mine = {
            key
            for key, row in before[table].items()
            if row.get("user_id", user(district, "p1")["user_id"]) == user(district, "p1")["user_id"]
        }
        assert {key: after[table][key] for key in mine} == {key: before[table][key] for key in mine}
    person = str(user(district, "p1")["user_id"])
    assert after["users"][person] == before["users"][person]


def test_a_protected_classroom_keeps_its_own_enrollments(district: LiveDistrict) -> None:
    """R8.1."""
    district.sync(YEAR_END)
    before = enrolled(district, "c1")
    district.execute("update app.classrooms set protected = true where district_id = :district")
    district.sync(clever(section("c1", ["p2"], ["p4"]), *PEOPLE))
    assert enrolled(district, "c1") == before


def test_enrollments_of_protected_people_follow_clever(district: LiveDistrict) -> None:
    """R8.1: in rostered classrooms."""
    district.sync(YEAR_END)
    change_user(district, "p1", protected=True)
    district.sync(clever(section("c1", ["p2"], ["p3", "p4"]), section("c2", ["p1"]), *PEOPLE))
    assert ("p1", "student", False) not in enrolled(district, "c1")
    assert enrolled(district, "c2") == {("p1", "student", False)}


def test_an_account_owner_survives_every_sync(district: LiveDistrict) -> None:
    """R8.1: an account owner is always protected."""
    owner = new_user(district, "owner", "account_owner")
    before = [row for key, row in district.state().users.items() if key == owner]
    district.sync(YEAR_END)
    assert [row for key, row in district.state().users.items() if key == owner] == before
    assert usernames(district)[str(owner)] == "owner"


def test_protection_ends_when_support_says_so(district: LiveDistrict) -> None:
    """R8.1."""
    district.sync(YEAR_END)
    change_user(district, "p1", protected=True, first_name="Hand")
    district.sync(YEAR_END)
    assert user(district, "p1")["first_name"] == "Hand"
    change_user(district, "p1", protected=False)
    district.sync(YEAR_END)
    assert user(district, "p1")["first_name"] == "Ana"


def test_a_user_deactivated_by_hand_loses_roles_and_enrollments(district: LiveDistrict) -> None:
    """R7.2, R8.3: such a user is not rostered, so neither are roles and enrollments."""
    district.sync(YEAR_END)
    change_user(district, "p1", deleted_at="2025-01-01", do_not_restore=True)
    district.sync(YEAR_END)
    assert roles(district, "p1") == set()
    assert {each for each, *_ in enrolled(district, "c1")} == {"p2", "p3", "p4"}


def test_districts_do_not_affect_each_other(database: Database) -> None:
    """R7.1, R5.1: same ids, same names."""
    here, there = LiveDistrict.sign_up(database), LiveDistrict.sign_up(database, "twig_science")
    there.sync(YEAR_END)
    with leaves_unchanged(there):
        here.sync(YEAR_END)
        here.sync(clever(student("p1", "ben"), student("p2", "ann"), teacher("p3")))
    assert active(there, "users") == {"p1", "p2", "p3", "p4"}


@pytest.mark.parametrize("page_size", [1, 2])
def test_order_and_page_size_do_not_matter(database: Database, page_size: int) -> None:
    """R5.7: contested names, adoptions, relinks and co-teachers are the same in reverse order."""
    first = clever(
        section("c1", ["p1", "p2"], ["p8", "p9"]),
        *(student(f"p{n}", f"name{n % 3}", sis_id=str(n)) for n in range(1, 8)),
        teacher("p8"),
        teacher("p9"),
    )
    then = clever(section("c1", ["p2"], ["p9"]), *(student(f"q{n}", f"name{n % 4}", sis_id=str(n)) for n in range(1, 8)), teacher("p9"))
    ends = []
    for turned in (False, True):
        district = LiveDistrict.sign_up(database)
        new_user(district, "name1")
        new_user(district, "NAME2", deleted_at="2025-01-01")
        for snapshot in (first, then):
            district.sync(_backwards(snapshot) if turned else snapshot, page_size=page_size if turned else 100)
        state = district.state()
        ends.append(
            [sorted((row.clever_id or "", row.username, row.deleted_at is None) for row in state.users.values()), enrolled(district, "c1")]
        )
    assert ends[0] == ends[1]


def _backwards(snapshot: Snapshot) -> Snapshot:
    return Snapshot(snapshot.schools[::-1], snapshot.sections[::-1], snapshot.users[::-1])
