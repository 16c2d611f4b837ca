"""Which user a person in Clever is: R5.1-R5.4, R8.3."""

from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, district_admin, student, teacher
from roster_pipeline_tests.sync.rows import actions, active, change_user, new_user, user, usernames

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


def test_relinking_needs_sis_id_or_both_names(district: LiveDistrict) -> None:
    """R5.3: the same username is not enough. First and last name must be equal too, in any spelling."""
    district.sync(clever(student("p1", "ann", name="Ana Li"), student("p2", "ben", name="Ben Ng")))
    ann, ben = (user(district, each)["user_id"] for each in ("p1", "p2"))
    district.sync(clever(student("p8", "ann", name="Ana Ng"), student("p9", "ben", name="BEN ng")))
    assert user(district, "p8")["user_id"] != ann
    assert user(district, "p9")["user_id"] == ben


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
