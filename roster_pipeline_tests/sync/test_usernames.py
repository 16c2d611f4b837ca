"""Usernames, and how people sign in: R5.5, R5.6, R5.9."""

import pytest

from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, district_admin, staff, student, teacher
from roster_pipeline_tests.sync.rows import active, change_user, new_user, quarantine, user, usernames


def test_the_username_is_the_districts_or_the_clever_id(district: LiveDistrict) -> None:
    """SPEC 1: admins always sign in by their Clever id."""
    people = [
        student("p1", "ann"),
        student("p2", " "),
        teacher("p3", "tea"),
        teacher("p4", "boss", staff=["s1"]),
        staff("p5"),
        district_admin("p6"),
    ]
    district.sync(clever(*people))
    assert usernames(district) == {"p1": "ann", "p2": "p2", "p3": "tea", "p4": "p4", "p5": "p5", "p6": "p6"}


@pytest.mark.parametrize("spelling", ["ANN", " ann ", "\uff41\uff4e\uff4e"])
def test_newcomers_who_claim_one_name_are_treated_alike(district: LiveDistrict, spelling: str) -> None:
    """R5.5: case, width and surrounding space make no difference. Neither gets the name."""
    district.sync(clever(student("p1", "ann"), student("p2", spelling)))
    assert usernames(district) == {"p1": "p1", "p2": "p2"}


def test_a_user_who_has_the_name_and_claims_it_keeps_it(district: LiveDistrict) -> None:
    """R5.5: whatever the Clever ids of newcomers are."""
    district.sync(clever(student("p5", "ann")))
    district.sync(clever(student("p1", "ANN"), student("p5", "ann"), student("p9", "ann")))
    assert usernames(district) == {"p1": "p1", "p5": "ann", "p9": "p9"}


def test_renamed_and_returning_people_have_no_better_right_than_newcomers(district: LiveDistrict) -> None:
    """R5.5: only an active user who has the name has a right to it."""
    district.sync(clever(student("p1", "ann"), student("p2", "ben")))
    district.sync(clever(student("p2", "ben")))
    district.sync(clever(student("p1", "ann"), student("p2", "ann")))
    assert usernames(district) == {"p1": "p1", "p2": "p2"}


def test_a_protected_users_name_is_never_given_away(district: LiveDistrict) -> None:
    """R5.5, R8.1."""
    district.sync(clever())  # Not the first sync (R7.6).
    ann = new_user(district, "ann", "teacher", protected=True)
    district.sync(clever(student("p1", "Ann")))
    assert usernames(district) == {str(ann): "ann", "p1": "p1"}


def test_a_clever_id_belongs_to_its_person(district: LiveDistrict) -> None:
    """R5.5: also if another user already has it as a username."""
    district.sync(clever(student("p1", "p2")))
    assert usernames(district) == {"p1": "p2"}
    district.sync(clever(student("p1", "p2"), student("p2")))
    assert usernames(district) == {"p1": "p1", "p2": "p2"}


def test_a_person_whose_clever_id_is_a_protected_users_name_is_quarantined(district: LiveDistrict) -> None:
    """R5.5: an existing user is left unchanged, and a new one is not created."""
    district.sync(clever(student("p1", "ann")))
    protected = [new_user(district, each, "teacher", protected=True) for each in ("p1", "P2")]
    report = district.sync(clever(student("p1", "ben"), student("p2", "cy")))
    assert usernames(district) == {"p1": "ann", str(protected[0]): "p1", str(protected[1]): "P2"}
    assert {(resource, clever_id) for resource, clever_id, _ in quarantine(district, report.sync_id)} == {("users", "p1"), ("users", "p2")}


def test_a_person_whose_clever_id_is_a_quarantined_users_name_is_quarantined(district: LiveDistrict) -> None:
    """R4.6, R5.5: a user that is left unchanged keeps the name, and the sync succeeds."""
    district.sync(clever(student("p1", "p2")))
    report = district.sync(clever(student("p1", "p2", name=" Li"), student("p2"), student("p3", "cy")))
    assert report.status == "successful"
    assert usernames(district) == {"p1": "p2", "p3": "cy"}


def test_usernames_swap(district: LiveDistrict) -> None:
    """R5.6."""
    district.sync(clever(student("p1", "ann"), student("p2", "ben")))
    district.sync(clever(student("p1", "ben"), student("p2", "ann")))
    assert usernames(district) == {"p1": "ben", "p2": "ann"}


def test_usernames_rotate_and_are_handed_on(district: LiveDistrict) -> None:
    """R5.6: three people rotate. A newcomer gets the name of a leaver, and the newcomer's id was another user's name."""
    district.sync(clever(student("p1", "ann"), student("p2", "ben"), student("p3", "cy"), student("p4", "dot"), student("p5", "p6")))
    district.sync(clever(student("p3", "ann"), student("p2", "cy"), student("p1", "ben"), student("p5", "eve"), student("p6", "dot")))
    assert usernames(district) == {"p1": "ben", "p2": "cy", "p3": "ann", "p5": "eve", "p6": "dot"}


def test_a_soft_deleted_users_name_is_free(district: LiveDistrict) -> None:
    """R5.6."""
    district.sync(clever(student("p1", "ann"), student("p2", "ben")))
    district.sync(clever(student("p2", "ben")))
    district.sync(clever(student("p2", "ben"), teacher("p3", "ann")))
    assert usernames(district) == {"p2": "ben", "p3": "ann"}
    assert active(district, "users") == {"p2", "p3"}


def test_a_username_changed_by_hand_is_corrected(district: LiveDistrict) -> None:
    """R5.5, R7.2: the name goes to the person that has it at Clever."""
    district.sync(clever(student("p1", "ann"), student("p2", "ben")))
    change_user(district, "p1", username="cy")
    district.sync(clever(student("p1", "ann"), student("p2", "cy")))
    assert usernames(district) == {"p1": "ann", "p2": "cy"}


def test_login_methods_follow_the_username(district: LiveDistrict) -> None:
    """R5.9: people whose username is the Clever id can sign in only through Clever."""
    district.sync(clever(student("p1", "ann"), student("p2"), district_admin("p3")))
    methods = {each: user(district, each)["login_methods"] for each in ("p1", "p2", "p3")}
    assert methods == {"p1": ["clever", "password"], "p2": ["clever"], "p3": ["clever"]}


def test_google_needs_a_stored_email(twig: LiveDistrict) -> None:
    """R5.9."""
    twig.sync(clever(student("p1", "ann", email="a@x.example"), student("p2", "ben"), student("p3", email="c@x.example")))
    methods = {each: user(twig, each)["login_methods"] for each in ("p1", "p2", "p3")}
    assert methods == {"p1": ["clever", "password", "google"], "p2": ["clever", "password"], "p3": ["clever"]}


def test_the_district_decides_which_methods_are_enabled(district: LiveDistrict) -> None:
    """R5.9: `login_methods` of the district's settings; Clever always works."""
    district.agree(settings={"login_methods": ["microsoft"]})
    district.sync(clever(student("p1", "ann"), student("p2")))
    assert {each: user(district, each)["login_methods"] for each in ("p1", "p2")} == {"p1": ["clever", "microsoft"], "p2": ["clever"]}
