"""One person in two records of a snapshot: R5.10."""

from typing import Any

import pytest

from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.reference.rows import Record
from roster_pipeline_tests.sync.clever import clever, school, section, student, teacher
from roster_pipeline_tests.sync.rows import active, change_user, enrolled, new_user, roles, user

LONG_AGO = "2025-01-01T00:00:00+00:00"
ANN = student("p1", "ann", sis_id="7", name="Ana Li")
TWIN = student("p9", "ann2", sis_id="7", name="ANA li")
OTHERS = (student("p2", "ben", name="Ben Ng"), teacher("p3", "eva"))


def of_plan(district: LiveDistrict, clever_id: str) -> tuple[Any, ...]:
    """Decision, rule and user of the last plan."""
    query = "select decision, rule, user_id from reconcile.user_matches where district_id = :district and clever_id = :id"
    (row,) = district.execute(query, id=clever_id)
    return tuple(row.values())


def test_the_new_id_comes_a_night_before_the_old_one_goes(district: LiveDistrict) -> None:
    """R5.10, R5.3: one account, in the classes of both records; it moves to the new id once the old one is removed."""
    district.sync(clever(ANN, *OTHERS, section("c1", ["p1", "p2"], ["p3"])))
    ann = user(district, "p1")["user_id"]
    both = clever(ANN, TWIN, *OTHERS, section("c1", ["p1", "p2"], ["p3"]), section("c2", ["p9"], ["p3"]))
    report = district.sync(both)
    assert active(district, "users") == {"p1", "p2", "p3"}
    assert report.counts["audits"]["duplicate_record"] == 1
    assert of_plan(district, "p9") == ("none", "duplicate_record", ann)
    assert [("p1", "student", False) in enrolled(district, each) for each in ("c1", "c2")] == [True, True]
    assert user(district, "p1")["district_username"] == "ann"
    assert not list(district.changes(district.sync(both).sync_id))
    report = district.sync(clever(TWIN, *OTHERS, section("c1", ["p9", "p2"], ["p3"]), section("c2", ["p9"], ["p3"])))
    assert (user(district, "p9")["user_id"], report.counts["audits"]["duplicate_record"]) == (ann, 0)
    assert ("p9", "student", False) in enrolled(district, "c2")


@pytest.mark.parametrize(
    "second",
    [
        student("p9", "ann2", sis_id="8", name="Ana Li"),
        student("p9", "ann2", sis_id="7", name="Ana Ng"),
        student("p9", "ann2", name="Ana Li"),
        teacher("p9", "ann2", sis_id="7", name="Ana Li"),
    ],
)
def test_another_person_gets_an_account(district: LiveDistrict, second: Record) -> None:
    """R5.10: the sis_id, both names and the role family must be the same."""
    district.sync(clever(ANN, *OTHERS))
    report = district.sync(clever(ANN, second, *OTHERS))
    assert active(district, "users") == {"p1", "p2", "p3", "p9"}
    assert report.counts["audits"]["duplicate_record"] == 0


def test_nobody_is_a_duplicate_of_an_empty_sis_id(district: LiveDistrict) -> None:
    """R5.10."""
    district.sync(clever(student("p1", "ann"), *OTHERS))
    district.sync(clever(student("p1", "ann"), student("p9", "ann2"), *OTHERS))
    assert "p9" in active(district, "users")


def test_a_section_that_lists_both_records_enrolls_once(district: LiveDistrict) -> None:
    """R5.10, R6.2: the first teacher is primary, by either record."""
    eva, again = teacher("p1", "eva", sis_id="7"), teacher("p9", "eva2", sis_id="7")
    district.sync(clever(eva, student("p2", "ben")))
    district.sync(clever(eva, again, student("p2", "ben"), section("c1", ["p2"], ["p9", "p1"]), section("c2", ["p2"], ["p1", "p9"])))
    assert [enrolled(district, each) for each in ("c1", "c2")] == [{("p1", "teacher", True), ("p2", "student", False)}] * 2


def test_the_second_record_gives_no_roles(district: LiveDistrict) -> None:
    """R5.10: enrollments only. Where the profile gives a student one school, another school's section is left out (R6.3)."""
    district.sync(clever(school("s1"), school("s2"), ANN, *OTHERS))
    second = student("p9", "ann2", sis_id="7", name="Ana Li", at="s2")
    report = district.sync(clever(school("s1"), school("s2"), ANN, second, *OTHERS, section("c2", ["p9"], ["p3"], at="s2")))
    assert roles(district, "p1") == {("student", "s1")}
    assert enrolled(district, "c2") == {("p3", "teacher", True)}
    assert report.counts["audits"]["enrollment_other_school"] == 1


def test_it_is_recognised_before_an_adoption(district: LiveDistrict) -> None:
    """R5.10, R5.2: an account without a Clever id that has the second record's username is not adopted by it."""
    district.sync(clever(ANN, *OTHERS))
    handmade = new_user(district, "ann2")
    district.sync(clever(ANN, TWIN, *OTHERS))
    (row,) = district.execute("select clever_id, deleted_at is null as is_active from app.users where user_id = :id", id=handmade)
    assert tuple(row.values()) == (None, False)


def test_a_second_record_does_not_get_round_a_deactivation(district: LiveDistrict) -> None:
    """R5.10, R8.3: support has deactivated the user on purpose; neither record gives another account."""
    district.sync(clever(ANN, *OTHERS))
    change_user(district, "p1", deleted_at=LONG_AGO, do_not_restore=True)
    district.sync(clever(ANN, TWIN, *OTHERS, section("c1", ["p9"], ["p3"])))
    assert active(district, "users") == {"p2", "p3"}
    assert enrolled(district, "c1") == {("p3", "teacher", True)}


def test_two_linked_users_stay_two(district: LiveDistrict) -> None:
    """R5.10: only a new record is a duplicate, and only of one user."""
    district.sync(clever(ANN, TWIN, *OTHERS))
    third = student("p8", "ann3", sis_id="7", name="Ana Li")
    report = district.sync(clever(ANN, TWIN, third, *OTHERS))
    assert active(district, "users") == {"p1", "p2", "p3", "p8", "p9"}
    assert report.counts["audits"]["duplicate_record"] == 0


def test_a_record_outside_the_agreement_makes_no_duplicate(district: LiveDistrict) -> None:
    """R5.10, R6.4: nobody could sign in by a record that is not rostered, so the other one is a person like any other."""
    district.sync(clever(school("s1"), school("s2"), ANN, *OTHERS))
    district.agree(schools=[("S2", None)])
    second = student("p9", "ann2", sis_id="7", name="Ana Li", at="s2")
    district.sync(clever(school("s1"), school("s2"), ANN, second, *OTHERS))
    assert active(district, "users") == {"p9"}
