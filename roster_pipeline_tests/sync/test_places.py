"""Schools, classrooms, enrollments and the sharing agreement: R6.1-R6.4."""

from datetime import date

import pytest

from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.reference.rows import Record
from roster_pipeline_tests.sync.clever import clever, district_admin, school, section, staff, student, teacher, term
from roster_pipeline_tests.sync.rows import active, enrolled, roles, user


def test_places_are_keyed_on_the_clever_id(district: LiveDistrict) -> None:
    """R6.1: they are renamed, moved and restored as the same rows."""
    people = [student("p1", "ann"), teacher("p2")]
    district.sync(clever(school("s2"), section("c1", ["p1"]), *people))
    before = district.state()
    district.sync(clever(school("s2"), *people, section("c2")))
    assert active(district, "classrooms") == {"c2"}
    district.sync(clever(school("s1", "New Name"), school("s2"), section("c1", at="s2", name="Moved"), section("c2"), *people))
    after = district.state()
    assert before.schools.keys() == after.schools.keys()
    (c1,) = before.classrooms
    (s2,) = (each for each, row in after.schools.items() if row.clever_id == "s2")
    assert (after.classrooms[c1].name, after.classrooms[c1].school_id, after.classrooms[c1].deleted_at) == ("Moved", s2, None)
    assert "New Name" in {row.name for row in after.schools.values()}


def terms_of(district: LiveDistrict) -> dict[str | None, tuple[str | None, ...]]:
    """Name, first and last day of each classroom's term."""

    def day(value: date | None) -> str | None:
        return value.isoformat() if value else None

    return {row.clever_id: (row.term_name, day(row.starts_on), day(row.ends_on)) for row in district.state().classrooms.values()}


def test_a_classroom_carries_its_term(district: LiveDistrict) -> None:
    """R6.1: name and dates, also when the term changes and no section does. Null where Clever names no term."""
    fall, people = term("t1", "Fall", "2025-09-01", "2025-12-20T00:00:00.000Z"), [student("p1", "ann"), teacher("p2")]
    sections = [section("c1", term_id="t1"), section("c2"), section("c3", term_id="elsewhere"), section("c4", term_id="t1")]
    district.sync(clever(fall, *sections, *people))
    autumn, nothing = ("Fall", "2025-09-01", "2025-12-20"), (None, None, None)
    assert terms_of(district) == {"c1": autumn, "c2": nothing, "c3": nothing, "c4": autumn}
    report = district.sync(clever({**fall, "name": "Autumn", "end_date": None}, *sections, *people))
    assert terms_of(district)["c1"] == ("Autumn", "2025-09-01", None)
    assert report.counts["changes"] == {"classrooms": {"update": 2}}
    district.sync(clever(*sections, *people))
    assert set(terms_of(district).values()) == {nothing}


def test_classrooms_of_a_quarantined_term_keep_what_they_have(district: LiveDistrict) -> None:
    """R4.6, R6.1: a term that cannot be read is not missing. A new classroom begins without."""
    fall, people = term("t1", "Fall", "2025-09-01", "2025-12-20"), [student("p1", "ann"), teacher("p2")]
    district.sync(clever(fall, section("c1", term_id="t1"), *people))
    broken = {**fall, "district": 5}
    sections = [section("c1", term_id="t1", name="Renamed"), section("c2", term_id="t1")]
    report = district.sync(clever(broken, *sections, *people))
    assert report.counts["changes"]["classrooms"] == {"create": 1, "update": 1}
    assert terms_of(district) == {"c1": ("Fall", "2025-09-01", "2025-12-20"), "c2": (None, None, None)}


def test_a_classroom_keeps_the_name_that_the_application_gave(district: LiveDistrict) -> None:
    """R6.1: `keep_classroom_names`. When Clever renames, and when it is deleted and restored; until the application gives it back."""
    district.agree(settings={"keep_classroom_names": True})
    people = [student("p1", "ann"), teacher("p2")]
    district.sync(clever(section("c1", name="5A"), section("c2", name="5B"), *people))
    district.execute("update app.classrooms set name = 'Owls' where district_id = :district and clever_id = 'c1'")
    renamed = clever(section("c1", name="5A new"), section("c2", name="5B new"), *people)
    for snapshot in (renamed, clever(section("c2", name="5B new"), *people), renamed, renamed):
        report = district.sync(snapshot)
        assert names(district) == {"c1": "Owls", "c2": "5B new"}
    assert report.counts["changes"] == {}
    district.execute("update app.classrooms set name = '5A new' where district_id = :district and clever_id = 'c1'")
    district.sync(clever(section("c1", name="5A newer"), section("c2", name="5B new"), *people))
    assert names(district) == {"c1": "5A newer", "c2": "5B new"}


def test_without_the_setting_clever_names_the_classrooms(district: LiveDistrict) -> None:
    """R6.1, R7.2: what the application called it is set back, also when the setting is taken away."""
    snapshot = clever(section("c1", name="5A"), student("p1", "ann"), teacher("p2"))
    for keeps, name in ((True, "Owls"), (False, "5A"), (False, "5A")):
        district.agree(settings={"keep_classroom_names": keeps})
        district.sync(snapshot)
        district.execute("update app.classrooms set name = 'Owls' where district_id = :district")
        district.sync(snapshot)
        assert names(district) == {"c1": name}


def names(district: LiveDistrict) -> dict[str | None, str]:
    """The name of each classroom."""
    return {row.clever_id: row.name for row in district.state().classrooms.values()}


def test_a_section_of_an_unknown_school_is_not_rostered(district: LiveDistrict) -> None:
    """R6.1: it is not created, and an existing one is soft-deleted."""
    people = [student("p1", "ann"), teacher("p2")]
    district.sync(clever(school("s2"), section("c1", at="s2"), section("c2"), *people))
    district.sync(clever(section("c1", at="s2"), section("c2"), section("c3", at="elsewhere"), *people))
    assert active(district, "schools") == {"s1"}
    assert active(district, "classrooms") == {"c2"}


def test_an_unshared_school_is_soft_deleted_with_everything_in_it(district: LiveDistrict) -> None:
    """R6.1, R5.8, R7.1: and is restored with the same ids."""
    there = [school("s2"), section("c2", ["p3"], ["p4"], at="s2"), student("p3", "ben", at="s2"), teacher("p4", at="s2")]
    here = [section("c1", ["p1"], ["p2"]), student("p1", "ann"), teacher("p2")]
    district.sync(clever(*here, *there))
    before = district.state()
    district.sync(clever(*here))
    assert [active(district, each) for each in ("schools", "classrooms", "users")] == [{"s1"}, {"c1"}, {"p1", "p2"}]
    assert enrolled(district, "c2") == set()
    district.sync(clever(*here, *there))
    assert district.state() == before


def test_members_are_enrolled_as_clever_lists_them(district: LiveDistrict) -> None:
    """R6.2: unknown ids and people without the role are left out."""
    people = [student("p1", "ann"), student("p2", "ben"), teacher("p3"), staff("p4")]
    district.sync(clever(section("c1", ["p1", "ghost", "p3", "p1"], ["p3", "p4", "p2"]), *people))
    assert enrolled(district, "c1") == {("p1", "student", False), ("p3", "teacher", True)}


def test_only_the_first_teacher_is_primary_and_only_when_rostered(district: LiveDistrict) -> None:
    """R6.2: only the first in the list can be primary. If that teacher is not rostered, nobody is."""
    people = [student("p1", "ann"), *(teacher(each) for each in ("p2", "p3", "p4"))]
    sections = [section("c1", teachers=["p3", "p2", "p4"]), section("c2", teachers=["ghost", "p2"])]
    district.sync(clever(*sections, *people))
    assert enrolled(district, "c1") == {("p3", "teacher", True), ("p2", "teacher", False), ("p4", "teacher", False)}
    assert enrolled(district, "c2") == {("p2", "teacher", False)}
    district.sync(clever(section("c1", teachers=["p2", "p3"]), section("c2", teachers=["p2"]), *people))
    assert enrolled(district, "c1") == {("p2", "teacher", True), ("p3", "teacher", False)}
    assert enrolled(district, "c2") == {("p2", "teacher", True)}


def test_without_a_list_of_teachers_the_single_teacher_counts(district: LiveDistrict) -> None:
    """R6.2."""
    district.sync(clever(section("c1", teacher="p2"), student("p1", "ann"), teacher("p2")))
    assert enrolled(district, "c1") == {("p2", "teacher", True)}


def test_sections_are_replaced(district: LiveDistrict) -> None:
    """R6.1, R6.2: in a new school year. The old rows stay."""
    people = [student("p1", "ann"), teacher("p2")]
    district.sync(clever(section("c1", ["p1"], ["p2"]), *people))
    district.sync(clever(section("c2", ["p1"], ["p2"]), *people))
    assert active(district, "classrooms") == {"c2"}
    assert enrolled(district, "c1") == set()
    assert len(district.state().enrollments) == 4


def test_a_multi_school_student_is_rostered_at_the_primary_school(district: LiveDistrict) -> None:
    """R6.3: `typing_agent`. In several classrooms of that school, and in none of another one."""
    sections = [section("c1", ["p1"]), section("c2", ["p1"]), section("c3", ["p1"], at="s2")]
    district.sync(clever(school("s2"), *sections, student("p1", "ann", schools=["s2"]), teacher("p2")))
    assert [len(enrolled(district, each)) for each in ("c1", "c2", "c3")] == [1, 1, 0]


def test_a_multi_school_student_is_rostered_everywhere(twig: LiveDistrict) -> None:
    """R6.3: `twig_science`."""
    sections = [section("c1", ["p1"]), section("c3", ["p1"], at="s2")]
    twig.sync(clever(school("s2"), *sections, student("p1", "ann", schools=["s2"]), teacher("p2")))
    assert [len(enrolled(twig, each)) for each in ("c1", "c3")] == [1, 1]


def test_a_student_whose_primary_school_moves_moves_along(district: LiveDistrict) -> None:
    """R6.3: role, primary school and enrollments."""
    sections = [section("c1", ["p1"]), section("c2", ["p1"], at="s2")]
    rest = [school("s2"), *sections, teacher("p2")]
    district.sync(clever(*rest, student("p1", "ann", schools=["s2"])))
    district.sync(clever(*rest, student("p1", "ann", at="s2", schools=["s1"])))
    assert roles(district, "p1") == {("student", "s2")}
    assert [len(enrolled(district, each)) for each in ("c1", "c2")] == [0, 1]


def listed(clever_id: str, username: str, primary: str | None, *schools: str) -> Record:
    """A student with these values in `roles.student.school` and `roles.student.schools`."""
    record = student(clever_id, username)
    record["roles"]["student"] |= {"school": primary, "schools": list(schools)}
    return record


@pytest.mark.parametrize("primary", [None, "", "elsewhere", "s3"])
def test_without_a_primary_school_the_first_of_the_list_counts(district: LiveDistrict, primary: str | None) -> None:
    """R6.3: where it is blank, not shared, or not agreed. The student was there before, and stays."""
    district.agree(schools=[("S1", None), ("S2", None)])
    rest = [school("s2"), school("s3"), section("c1", ["p1"]), section("c2", ["p1"], at="s2"), teacher("p2")]
    district.sync(clever(*rest, listed("p1", "ann", "s1", "s1", "s2")))
    before = user(district, "p1")
    district.sync(clever(*rest, listed("p1", "ann", primary, "elsewhere", "s3", "s2", "s1")))
    assert roles(district, "p1") == {("student", "s2")}
    assert [len(enrolled(district, each)) for each in ("c1", "c2")] == [0, 1]
    district.sync(clever(*rest, listed("p1", "ann", primary, "elsewhere", "s1", "s2")))
    assert roles(district, "p1") == {("student", "s1")}
    assert user(district, "p1")["user_id"] == before["user_id"]


def test_the_school_of_a_student_is_one_that_is_shared_and_agreed(twig: LiveDistrict) -> None:
    """R5.8, R6.3: `app.users.school_id`, also where a student is rostered at several schools."""
    twig.sync(
        clever(school("s2"), listed("p1", "ann", "elsewhere", "elsewhere", "s2", "s1"), listed("p3", "bea", "s1", "s2"), teacher("p2"))
    )
    assert roles(twig, "p1") == roles(twig, "p3") == {("student", "s1"), ("student", "s2")}
    assert [at(twig, each) for each in ("p1", "p3")] == ["s2", "s1"]


def test_a_held_or_quarantined_primary_school_counts_as_shared(district: LiveDistrict) -> None:
    """R4.6, R6.3, R7.4: the student stays there until the school can be read, or the hold is released."""
    here, there = [listed("p1", "ann", "s1", "s1"), teacher("p2")], [listed("p3", "cy", "s2", "s2"), listed("p4", "dot", "s2", "s2", "s1")]
    district.sync(clever(school("s2"), *here, *there))
    district.sync(clever(school("s2", " "), *here, *there))
    assert roles(district, "p4") == {("student", "s2")}
    district.agree(settings={"brakes": {"school_floor": 0, "school_share": 0}})
    district.sync(clever(*here, *there))
    assert roles(district, "p4") == {("student", "s2")}
    assert at(district, "p4") == "s2"
    (hold,) = district.holds()
    district.approve(hold)
    district.sync(clever(*here, *there))
    assert active(district, "users") == {"p1", "p2", "p4"}
    assert roles(district, "p4") == {("student", "s1")}
    assert at(district, "p4") == "s1"


def at(district: LiveDistrict, clever_id: str) -> str | None:
    """The Clever id of a user's school."""
    school_id = user(district, clever_id)["school_id"]
    return district.state().schools[school_id].clever_id if school_id is not None else None


def test_teachers_may_teach_anywhere(district: LiveDistrict) -> None:
    """R6.3 is about students."""
    district.sync(clever(school("s2"), section("c2", [], ["p2"], at="s2"), teacher("p2"), student("p1", "ann")))
    assert enrolled(district, "c2") == {("p2", "teacher", True)}


def test_the_agreement_bounds_the_schools(district: LiveDistrict) -> None:
    """R6.4: names are compared like usernames, and two schools with one name are both inside. Others are not rostered."""
    district.agree(schools=[("north", None)])
    schools = [school("s1", " NORTH "), school("s2", "North"), school("s3", "South")]
    people = [
        student("p1", "ann", at="s1"),
        student("p2", "ben", at="s2"),
        student("p3", "cy", at="s3"),
        teacher("p4", at="s3", schools=["s2"]),
    ]
    district.sync(clever(*schools, section("c3", at="s3"), *people, staff("p5", ["s3"]), district_admin("p6")))
    assert active(district, "schools") == {"s1", "s2"}
    assert active(district, "users") == {"p1", "p2", "p4", "p6"}
    assert roles(district, "p4") == {("teacher", "s2")}
    assert active(district, "classrooms") == set()


def test_a_recorded_clever_id_goes_before_the_name(district: LiveDistrict) -> None:
    """R6.4: the agreed school was renamed at Clever, and another school has its name now."""
    district.agree(schools=[("North", None)])
    district.execute("update app.agreed_schools set clever_id = 's1' where district_id = :district")
    district.sync(clever(school("s1", "Renamed"), school("s2", "North"), student("p1", "ann")))
    assert active(district, "schools") == {"s1"}


def test_a_student_shared_in_several_schools_is_inside_if_any_is(twig: LiveDistrict) -> None:
    """R6.4: only at the agreed schools."""
    twig.agree(schools=[("S2", None)])
    twig.sync(clever(school("s2"), student("p1", "ann", schools=["s2"]), student("p2", "ben")))
    assert active(twig, "users") == {"p1"}
    assert roles(twig, "p1") == {("student", "s2")}


def test_the_agreement_bounds_the_grades(district: LiveDistrict) -> None:
    """R6.4: a student without a known grade is inside. Staff have no grade."""
    district.agree(grades=["3", "Kindergarten"])
    grades = {"p1": "3", "p2": "4", "p3": None, "p4": "Kindergarten", "p5": "fourth"}
    district.sync(clever(*(student(each, each * 2, grade=grade) for each, grade in grades.items()), teacher("p6")))
    assert active(district, "users") == {"p1", "p3", "p4", "p5", "p6"}


def test_people_who_leave_the_agreement_are_soft_deleted_and_restored(district: LiveDistrict) -> None:
    """R6.4, R5.4."""
    snapshot = clever(section("c1", ["p1", "p2"]), student("p1", "ann", grade="3"), student("p2", "ben", grade="4"), teacher("p3"))
    district.sync(snapshot)
    before = district.state()
    district.agree(grades=["4"])
    district.sync(snapshot)
    assert active(district, "users") == {"p2", "p3"}
    assert enrolled(district, "c1") == {("p2", "student", False)}
    district.agree(grades=[])
    district.sync(snapshot)
    assert district.state() == before


def test_the_primary_school_is_a_column_of_the_user(district: LiveDistrict) -> None:
    """SPEC 2: null if that school is not rostered."""
    district.sync(clever(student("p1", "ann"), teacher("p2", at="elsewhere", schools=["s1"])))
    (place,) = (each for each, row in district.state().schools.items() if row.clever_id == "s1")
    assert [user(district, each)["school_id"] for each in ("p1", "p2")] == [place, None]
