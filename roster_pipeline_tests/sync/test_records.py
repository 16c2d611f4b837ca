"""Records of another district, duplicate records and broken records: R3.6, R3.8, R4.2, R4.5, R4.6."""

import pytest

from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, school, section, student, teacher
from roster_pipeline_tests.sync.rows import active, enrolled, quarantine, roles, user, usernames

MONDAY, TUESDAY = "2026-01-05T00:00:00.000Z", "2026-01-06T00:00:00.000Z"


def test_records_of_another_district_count_as_absent(district: LiveDistrict) -> None:
    """R3.6: they are quarantined and never written. An existing user with that id is absent."""
    district.sync(clever(student("p1", "ann"), student("p2", "ben")))
    others = [student("p1", "ann", district="another"), student("p3", "cy", district="another"), section("c1", district="another")]
    report = district.sync(clever(school("s3", district="another"), student("p2", "ben", district=district.clever_id), *others))
    assert active(district, "users") == {"p2"}
    assert active(district, "classrooms") == set()
    foreign = {("users", "p1"), ("users", "p3"), ("sections", "c1"), ("schools", "s3")}
    assert quarantine(district, report.sync_id) == {(*each, "foreign_district") for each in foreign}


def test_records_without_a_district_are_quarantined(district: LiveDistrict) -> None:
    """R3.6, R4.6: nothing new is created from them, and what exists behind them is left unchanged."""
    old = [school("s2"), section("c1", ["p1"], ["p2"]), student("p1", "ann"), teacher("p2"), student("p5", "eve"), student("p6", "fay")]
    district.sync(clever(*old))
    before = district.state()
    unsaid = [school("s2", "New", district=""), section("c1", district=""), student("p1", "zed", name="New Li", district="")]
    newcomers = [school("s3", district=""), section("c2", district=""), student("p3", "cy", district="")]
    report = district.sync(clever(*unsaid, *newcomers, *old[3:]))
    assert district.state() == before
    assert quarantine(district, report.sync_id) == {
        *(("schools", each, "district_missing") for each in ("s2", "s3")),
        *(("sections", each, "district_missing") for each in ("c1", "c2")),
        *(("users", each, "district_missing") for each in ("p1", "p3")),
    }


def test_the_newest_of_two_records_wins(district: LiveDistrict) -> None:
    """R3.8: in any order."""
    old, new = student("p1", "ann", name="Old Li", last_modified=MONDAY), student("p1", "ann", name="New Li", last_modified=TUESDAY)
    for versions in ((old, new), (new, old)):
        district.sync(clever(*versions), page_size=1)
        assert user(district, "p1")["first_name"] == "New"


def test_of_two_records_of_one_age_the_later_wins(district: LiveDistrict) -> None:
    """R3.8."""
    versions = [student("p1", "ann", name="First Li"), student("p1", "ann", name="Second Li")]
    for page_size in (1, 10):
        district.sync(clever(*versions), page_size=page_size)
        assert user(district, "p1")["first_name"] == "Second"


def test_a_broken_newest_record_quarantines_the_person(district: LiveDistrict) -> None:
    """R3.8, R4.6: the older record is not used instead."""
    district.sync(clever(student("p1", "ann", name="Ana Li")))
    versions = [student("p1", "ann", name=" Li", last_modified=TUESDAY), student("p1", "ann", name="Old Li", last_modified=MONDAY)]
    district.sync(clever(*versions))
    assert user(district, "p1")["first_name"] == "Ana"


def test_a_broken_optional_value_is_dropped_and_the_row_stays(twig: LiveDistrict) -> None:
    """R4.2: also if it has the wrong JSON type."""
    twig.sync(clever(student("p1", "ann", email="not an address", grade="fourth", sis_id=7)))
    row = user(twig, "p1")
    assert (row["username"], row["email"], row["grade"], row["sis_id"]) == ("ann", None, None, None)


@pytest.mark.parametrize("blank", ["Ana", " Li", "\t\u2028 \u0007 Li"])
def test_a_broken_mandatory_value_quarantines_a_new_row(district: LiveDistrict, blank: str) -> None:
    """R4.2, R4.6: if the first or last name is missing or blank. Other people are rostered."""
    report = district.sync(clever(student("p1", "ann", name=blank), student("p2", "ben")))
    assert active(district, "users") == {"p2"}
    assert {(resource, clever_id) for resource, clever_id, _ in quarantine(district, report.sync_id)} == {("users", "p1")}


def test_text_is_stored_clean(district: LiveDistrict) -> None:
    """R4.5: composed, trimmed, without control characters. All other characters of names stay."""
    district.sync(
        clever(student("p1", " A\u0007nn\u0301a\ud800 ", name="Zoe\u0301\tAnn O\u2019Neil\u200d-\u674e\r\n"), section("c1", name="A\nB"))
    )
    row = user(district, "p1")
    assert (row["username"], row["first_name"], row["last_name"]) == ("An\u0144a", "Zo\u00e9 Ann", "O\u2019Neil\u200d-\u674e")
    (classroom,) = district.state().classrooms.values()
    assert classroom.name == "A B"


def test_an_existing_person_behind_a_quarantined_row_is_left_unchanged(district: LiveDistrict) -> None:
    """R4.6: name, roles and enrollments stay, although Clever lists the person elsewhere now."""
    district.sync(clever(school("s2"), section("c1", ["p1"]), section("c2", at="s2"), student("p1", "ann"), student("p2", "ben")))
    before = user(district, "p1"), roles(district, "p1"), enrolled(district, "c1")
    elsewhere = student("p1", "ben", at="s2", name=" Li")
    district.sync(clever(school("s2"), section("c1"), section("c2", ["p1"], at="s2"), elsewhere, student("p2", "ann")))
    assert (user(district, "p1"), roles(district, "p1"), enrolled(district, "c1")) == before
    assert enrolled(district, "c2") == set()
    assert usernames(district) == {"p1": "ann", "p2": "p2"}


def test_an_existing_classroom_behind_a_quarantined_row_is_left_unchanged(district: LiveDistrict) -> None:
    """R4.6: with its enrollments. A new one is not created."""
    people = [student("p1", "ann"), student("p2", "ben"), teacher("p3")]
    district.sync(clever(section("c1", ["p1"], ["p3"]), *people))
    before = district.state()
    district.sync(clever(section("c1", ["p2"], name=" "), section("c2", ["p1"], name=""), *people))
    assert district.state() == before


def test_an_existing_school_behind_a_quarantined_row_is_left_unchanged(district: LiveDistrict) -> None:
    """R4.6, R6.1, R7.4: with its classrooms, their enrollments, and the roles at it."""
    there = [section("c2", ["p3"], ["p4"], at="s2"), student("p3", "ben", at="s2"), teacher("p4", at="s2")]
    district.sync(clever(school("s2"), *there, student("p1", "ann")))
    before = district.state()
    district.sync(clever(school("s2", " "), section("c2", [], ["p4"], at="s2"), section("c3", at="s2"), *there[1:], student("p1", "ann")))
    assert district.state() == before
    report = district.sync(clever(school("s2", " "), *there, student("p1", "ann", name="New Name")))
    assert [(each["entity"], each["action"]) for each in district.changes(report.sync_id)] == [("users", "update")]


def test_a_student_who_moves_to_a_quarantined_school_is_left_unchanged(district: LiveDistrict) -> None:
    """R4.6, R5.8: the school counts as present, so its broken row leaves nobody without a role. The student moves when it is fixed."""
    rest = [teacher("p2"), teacher("p3", at="s2")]
    district.sync(clever(school("s2"), student("p1", "ann"), *rest))
    before = district.state()
    district.sync(clever(school("s2", ""), student("p1", "ann", at="s2"), *rest))
    assert district.state() == before
    district.sync(clever(school("s2"), student("p1", "ann", at="s2"), *rest))
    assert roles(district, "p1") == {("student", "s2")}


def test_a_new_school_behind_a_quarantined_row_is_not_created(district: LiveDistrict) -> None:
    """R4.6: nor are its classrooms and people."""
    district.sync(clever(school("s2", ""), section("c2", at="s2"), student("p2", "ben", at="s2"), student("p1", "ann")))
    assert [active(district, each) for each in ("schools", "classrooms", "users")] == [{"s1"}, set(), {"p1"}]


def test_a_student_has_the_preferred_name_if_the_district_says_so(district: LiveDistrict) -> None:
    """R3.4, SPEC 1: `student_name`. A part that is absent or blank is the legal one, and the setting acts on unchanged records too."""
    ann, ben = student("p1", "ann", name="Ana Li"), student("p2", "ben", name="Ben Ng")
    ann["roles"]["student"]["preferred_name"] = {"first": "Alex", "middle": None, "last": " "}
    ben["roles"]["student"]["preferred_name"] = {"first": 5, "last": "No"}
    snapshot = clever(ann, ben)
    for which, expected in (("legal", ("Ana", "Li")), ("preferred", ("Alex", "Li")), ("legal", ("Ana", "Li"))):
        district.agree(settings={"student_name": which})
        district.sync(snapshot)
        assert (user(district, "p1")["first_name"], user(district, "p1")["last_name"]) == expected
        assert user(district, "p2")["first_name"] == "Ben"
