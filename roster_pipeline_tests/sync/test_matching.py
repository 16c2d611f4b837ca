"""Which user a person in Clever is: R5.1-R5.4, R8.3."""

import pytest

from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, district_admin, section, staff, student, teacher
from roster_pipeline_tests.sync.rows import actions, active, change_user, enrolled, new_user, roles, user, usernames

LONG_AGO = "2025-01-01T00:00:00+00:00"


def test_the_clever_id_decides_and_a_name_never_takes_a_linked_user(district: LiveDistrict) -> None:
    """R5.1: p1 keeps the account with any name. p2, who now has p1's old name, is another user."""
    district.sync(clever(student("p1", "ann")))
    ann = user(district, "p1")["user_id"]
    district.sync(clever(student("p1", "anna", name="Other Name"), student("p2", "ann")))
    assert user(district, "p1")["user_id"] == ann
    assert user(district, "p2")["user_id"] != ann
    assert usernames(district) == {"p1": "anna", "p2": "ann"}


def test_an_existing_user_of_the_name_is_adopted(district: LiveDistrict) -> None:
    """R5.2: the same name in another spelling. The user keeps the user id and gets source `clever`."""
    district.sync(clever())  # Not the first sync (R7.6).
    ann = new_user(district, "ANN ")
    report = district.sync(clever(student("p1", "ann", name="Ana Clever")))
    row = user(district, "p1")
    assert (row["user_id"], row["source"], row["first_name"], row["last_name"], row["username"]) == (ann, "clever", "Ana", "Clever", "ann")
    assert actions(district, report.sync_id, "users") == ["adopt"]


def test_a_soft_deleted_user_is_adopted_and_restored(district: LiveDistrict) -> None:
    """R5.2, R5.4: logged as `adopt` alone."""
    district.sync(clever())  # Not the first sync (R7.6).
    ann = new_user(district, "ann", deleted_at=LONG_AGO)
    report = district.sync(clever(student("p1", "ann")))
    assert (user(district, "p1")["user_id"], user(district, "p1")["deleted_at"]) == (ann, None)
    assert actions(district, report.sync_id, "users") == ["adopt"]


def test_an_active_candidate_goes_before_deleted_ones(district: LiveDistrict) -> None:
    """R5.2."""
    district.sync(clever())  # Not the first sync (R7.6).
    new_user(district, "ann", deleted_at=LONG_AGO)
    ann = new_user(district, "ann")
    district.sync(clever(student("p1", "ann")))
    assert user(district, "p1")["user_id"] == ann


def test_several_deleted_candidates_are_none(district: LiveDistrict) -> None:
    """R5.2: there must be exactly one candidate. Two deleted users with one name cannot be distinguished."""
    district.sync(clever())  # Not the first sync (R7.6).
    candidates = {new_user(district, "ann", deleted_at=LONG_AGO) for _ in range(2)}
    district.sync(clever(student("p1", "ann")))
    assert user(district, "p1")["user_id"] not in candidates


def test_two_people_of_one_name_adopt_nobody(district: LiveDistrict) -> None:
    """R5.2: exactly one on each side. The existing account is soft-deleted, and both people get their Clever id as username."""
    district.sync(clever())  # Not the first sync (R7.6).
    ann = new_user(district, "ann")
    district.sync(clever(student("p1", "ann"), student("p2", "ann")))
    assert ann not in {user(district, each)["user_id"] for each in ("p1", "p2")}
    assert usernames(district) == {"p1": "p1", "p2": "p2"}


def test_adoption_stays_within_the_role_family(district: LiveDistrict) -> None:
    """R5.2: a teacher's account does not become a student's."""
    district.sync(clever())  # Not the first sync (R7.6).
    ann = new_user(district, "ann", "teacher")
    district.sync(clever(student("p1", "ann")))
    assert user(district, "p1")["user_id"] != ann


def test_protected_and_barred_users_are_never_adopted(district: LiveDistrict) -> None:
    """R8.1, R8.3."""
    district.sync(clever())  # Not the first sync (R7.6).
    ann = new_user(district, "ann", protected=True)
    ben = new_user(district, "ben", do_not_restore=True, deleted_at=LONG_AGO)
    district.sync(clever(student("p1", "ann"), student("p2", "ben")))
    assert {user(district, each)["user_id"] for each in ("p1", "p2")}.isdisjoint({ann, ben})
    assert usernames(district) == {str(ann): "ann", "p1": "p1", "p2": "ben"}


def test_admins_do_not_match_by_their_district_username(district: LiveDistrict) -> None:
    """R5, SPEC 1: an admin's username is always the Clever id."""
    district.sync(clever())  # Not the first sync (R7.6).
    ann = new_user(district, "ann", "teacher")
    district.sync(clever(teacher("p1", "ann", district_admin=True)))
    assert user(district, "p1")["user_id"] != ann


def test_a_new_clever_id_for_the_same_person_is_relinked(district: LiveDistrict) -> None:
    """R5.3: same name, same sis_id, and the old Clever id is no longer shared."""
    district.sync(clever(student("p1", "ann", sis_id="7"), student("p2", "ben")))
    ann = user(district, "p1")["user_id"]
    report = district.sync(clever(student("p9", "ann", sis_id="7", name="New Name"), student("p2", "ben")))
    assert user(district, "p9")["user_id"] == ann
    assert active(district, "users") == {"p9", "p2"}
    assert actions(district, report.sync_id, "users") == ["relink"]


@pytest.mark.parametrize(
    ("username", "sis_id", "name", "is_relinked"),
    [
        ("ANN", "7", "Other Name", True),
        (" Ann", "8", "ANA li", True),
        ("other", "7", "Ana LI", True),
        (None, "7", "Ana Li", True),
        ("ann", None, "Ana Li", True),
        ("ann", "8", "Ana Ng", False),
        ("other", "7", "Eva Li", False),
        ("other", "8", "Ana Li", False),
        ("ann", None, "Eva Li", False),
        (None, "7", "Ana Ng", False),
    ],
)
def test_two_of_three_relink(district: LiveDistrict, username: str | None, sis_id: str | None, name: str, *, is_relinked: bool) -> None:
    """R5.3: the username that Clever gives, the sis_id, both names. Usernames and names compare in any spelling."""
    district.sync(clever(student("p1", "ann", sis_id="7", name="Ana Li"), student("p2", "ben")))
    ann = user(district, "p1")["user_id"]
    district.sync(clever(student("p9", username, sis_id=sis_id, name=name), student("p2", "ben")))
    assert (user(district, "p9")["user_id"] == ann) is is_relinked


def test_what_is_empty_on_both_sides_does_not_agree(district: LiveDistrict) -> None:
    """R5.3: neither an absent username nor an absent sis_id is one of the two, with the same names."""
    district.sync(clever(student("p1"), student("p2", "ben")))
    before = user(district, "p1")["user_id"]
    district.sync(clever(student("p9"), student("p2", "ben")))
    assert user(district, "p9")["user_id"] != before


def test_a_teacher_who_becomes_a_school_admin_under_a_new_id_keeps_the_account(district: LiveDistrict) -> None:
    """R5.3: Clever merges two records under a new id. The username becomes the Clever id, and what Clever gives stays known."""
    district.sync(clever(teacher("p1", "eva", sis_id="t7"), student("p2", "ben"), section("c1", ["p2"], ["p1"])))
    eva = user(district, "p1")["user_id"]
    merged = clever(teacher("p9", "eva", sis_id="t7", staff=["s1"]), student("p2", "ben"), section("c1", ["p2"], ["p9"]))
    report = district.sync(merged)
    row = user(district, "p9")
    assert (row["user_id"], row["username"], row["district_username"]) == (eva, "p9", "eva")
    assert actions(district, report.sync_id, "users") == ["relink"]
    assert ("p9", "teacher", True) in enrolled(district, "c1")


def test_an_admin_is_relinked_by_what_clever_gives(district: LiveDistrict) -> None:
    """R5.3: an admin who has no sis_id, and whose username is the Clever id before and after."""
    district.sync(clever(staff("p1", username="sam"), student("p2", "ben")))
    sam = user(district, "p1")["user_id"]
    district.sync(clever(staff("p9", username="sam"), student("p2", "ben")))
    row = user(district, "p9")
    assert (row["user_id"], row["username"], row["district_username"]) == (sam, "p9", "sam")


def test_who_was_refused_the_username_is_relinked_by_it(district: LiveDistrict) -> None:
    """R5.3: the username that Clever gives counts, not the one that the user got (R5.5). It stays when the user is soft-deleted."""
    district.sync(clever(student("p1", "ann", name="Ana Li"), student("p2", "ANN", name="Ben Ng"), student("p3", "cy")))
    ben = user(district, "p2")["user_id"]
    district.sync(clever(student("p1", "ann", name="Ana Li"), student("p3", "cy")))
    assert user(district, "p2")["district_username"] == "ANN"
    district.sync(clever(student("p1", "ann", name="Ana Li"), student("p9", "ann", name="Ben Ng"), student("p3", "cy")))
    assert user(district, "p9")["user_id"] == ben


def test_the_username_of_a_role_family_stays_there(district: LiveDistrict) -> None:
    """R5.3: a teacher with a student's username, sis_id and names is somebody else."""
    district.sync(clever(student("p1", "ann", sis_id="7", name="Ana Li"), student("p2", "ben")))
    ann = user(district, "p1")["user_id"]
    district.sync(clever(teacher("p9", "ann", sis_id="7", name="Ana Li"), student("p2", "ben")))
    assert user(district, "p9")["user_id"] != ann


def test_an_admin_role_of_the_application_leaves_the_username(district: LiveDistrict) -> None:
    """SPEC 1: the username is the Clever id of people that Clever gives an admin role. A role of another source is no such role."""
    district.sync(clever(teacher("p1", "eva"), student("p2", "ben")))
    for role in ("school_admin", "district_admin"):
        district.execute(
            """
            insert into app.user_roles (user_id, role, school_id)
            select users.user_id, :role, case when :role = 'school_admin' then schools.school_id end
            from app.users as users
            inner join app.schools as schools using (district_id)
            where users.district_id = :district and users.clever_id = 'p1'
            """,
            role=role,
        )
    district.sync(clever(teacher("p1", "eva", name="Eva Changed"), student("p2", "ben")))
    assert (usernames(district)["p1"], user(district, "p1")["login_methods"]) == ("eva", ["clever", "password"])
    assert {role for role, _ in roles(district, "p1")} == {"teacher", "school_admin", "district_admin"}


def test_no_relink_while_the_old_id_is_in_the_snapshot(district: LiveDistrict) -> None:
    """R5.3, R4.6: a quarantined person counts as present."""
    district.sync(clever(student("p1", "ann", sis_id="7")))
    ann = user(district, "p1")["user_id"]
    district.sync(clever(student("p1", "ann", sis_id="7", name=" Li"), student("p9", "ann", sis_id="7")))
    assert user(district, "p1")["user_id"] == ann
    assert usernames(district) == {"p1": "ann", "p9": "p9"}


def test_two_possible_people_relink_nobody(district: LiveDistrict) -> None:
    """R5.3: exactly one pair on each side."""
    district.sync(clever(student("p1", "ann", sis_id="7"), student("p2", "ben")))
    ann = user(district, "p1")["user_id"]
    district.sync(clever(student("p8", "ann", sis_id="7"), student("p9", "ann", sis_id="7"), student("p2", "ben")))
    assert ann not in {user(district, each)["user_id"] for each in ("p8", "p9")}


def test_a_returning_person_is_the_same_user(district: LiveDistrict) -> None:
    """R5.4: a person who was removed and returns has the same user id."""
    district.sync(clever(student("p1", "ann"), student("p2", "ben")))
    ann = user(district, "p1")["user_id"]
    without = district.sync(clever(student("p2", "ben")))
    assert active(district, "users") == {"p2"}
    back = district.sync(clever(student("p1", "ann"), student("p2", "ben")))
    assert (user(district, "p1")["user_id"], user(district, "p1")["deleted_at"]) == (ann, None)
    assert [actions(district, each.sync_id, "users") for each in (without, back)] == [["soft_delete"], ["restore"]]


def test_people_without_a_match_are_created(district: LiveDistrict) -> None:
    """R5.4."""
    report = district.sync(clever(student("p1", "ann"), district_admin("p2")))
    assert actions(district, report.sync_id, "users") == ["create", "create"]
    assert {user(district, each)["source"] for each in ("p1", "p2")} == {"clever"}


def test_a_user_deactivated_by_hand_stays_deactivated(district: LiveDistrict) -> None:
    """R8.3: although Clever still sends the person. Without the flag, the next sync restores the user."""
    district.sync(clever(student("p1", "ann"), student("p2", "ben")))
    change_user(district, "p1", deleted_at=LONG_AGO, do_not_restore=True)
    district.sync(clever(student("p1", "ann", name="New Name"), student("p2", "ben")))
    row = user(district, "p1")
    assert (row["deleted_at"].isoformat(), row["first_name"]) == (LONG_AGO, "Ana")
    change_user(district, "p1", do_not_restore=False)
    district.sync(clever(student("p1", "ann"), student("p2", "ben")))
    assert user(district, "p1")["deleted_at"] is None


def test_a_relink_of_a_user_deactivated_by_hand_changes_only_the_clever_id(district: LiveDistrict) -> None:
    """R8.3: a new Clever id does not restore the user."""
    district.sync(clever(student("p1", "ann", sis_id="7"), student("p2", "ben")))
    before = user(district, "p1")["user_id"]
    change_user(district, "p1", deleted_at=LONG_AGO, do_not_restore=True)
    report = district.sync(clever(student("p9", "ann", sis_id="7"), student("p2", "ben")))
    assert (user(district, "p9")["user_id"], user(district, "p9")["deleted_at"].isoformat()) == (before, LONG_AGO)
    assert actions(district, report.sync_id, "users") == ["relink"]
    assert active(district, "users") == {"p2"}
