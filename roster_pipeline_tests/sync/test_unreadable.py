"""What cannot be read is present: missing lists, roles and ids (R4.6, R4.7, R4.8).

Does not belong here: how a record is decoded (`clever/test_decode.py`), and values that are broken (`test_records.py`).
"""

from dataclasses import replace
from typing import Any

import pytest

from roster_pipeline_tests.reference.driver import LiveDistrict, differences, leaves_unchanged
from roster_pipeline_tests.reference.rows import Record, Snapshot
from roster_pipeline_tests.sync.clever import clever, district_admin, school, section, staff, student, teacher, term
from roster_pipeline_tests.sync.rows import active, enrolled, new_school, new_user, quarantine, roles, user, usernames

RECORDS: dict[str, Record] = {
    each["id"]: each
    for each in (
        school("s2"),
        section("c1", ["p1", "p2"], ["p5", "p6"]),
        section("c2", ["p3"], ["p6"], at="s2"),
        section("c7"),
        section("c8"),
        section("c9"),
        student("p1", "ann"),
        student("p2", "ben"),
        student("p3", "cy", at="s2"),
        teacher("p5", "eva"),
        teacher("p6", "gus", schools=["s2"]),
        teacher("p61"),
        staff("p7"),
        *(staff(f"p8{number}", ["s2"]) for number in range(3)),
        district_admin("p9"),
        *(district_admin(f"p9{number}") for number in range(3)),
    )
}


def changed(*records: Record, without: tuple[str, ...] = (), odd: tuple[tuple[str, Any], ...] = ()) -> Snapshot:
    """The usual snapshot with these records added or replaced, and with odd elements."""
    named = {key: each for key, each in RECORDS.items() if key not in without} | {each["id"]: each for each in records}
    return replace(clever(*named.values()), odd=odd)


def but(clever_id: str, *absent: str, **fields: Any) -> Record:
    """A usual record with other fields, or without some."""
    return {name: value for name, value in {**RECORDS[clever_id], **fields}.items() if name not in absent}


def with_role(clever_id: str, **fields: Any) -> Record:
    """A usual person whose one role has other fields; a field that is `...` is absent."""
    ((name, role),) = RECORDS[clever_id]["roles"].items()
    changed_role = {key: value for key, value in {**role, **fields}.items() if value is not ...}
    return but(clever_id, roles={name: changed_role})


@pytest.fixture
def there(district: LiveDistrict) -> LiveDistrict:
    """A district that has been synced once."""
    district.sync(changed())
    return district


SECTIONS: dict[str, tuple[Record, str]] = {
    "school absent": (but("c1", "school"), "school_missing"),
    "school null": (but("c1", school=None), "school_missing"),
    "school blank": (but("c1", school=" "), "school_missing"),
    "school a number": (but("c1", school=5), "school_type"),
    "school no id": (but("c1", school="the first"), "school_format"),
    "students absent": (but("c1", "students"), "students_missing"),
    "students null": (but("c1", students=None), "students_missing"),
    "students text": (but("c1", students="p1"), "students_type"),
    "students blank text": (but("c1", students=""), "students_type"),
    "students an object": (but("c1", students={}), "students_type"),
    "a student null": (but("c1", students=["p1", None]), "students_type"),
    "a student blank": (but("c1", students=["p1", ""]), "students_format"),
    "a student no id": (but("c1", students=["p1", "the second"]), "students_format"),
    "teachers a number": (but("c1", teachers=5), "teachers_type"),
    "teachers blank text": (but("c1", teachers=""), "teachers_type"),
    "a teacher an object": (but("c1", teachers=[{"id": "p5"}]), "teachers_type"),
    "a teacher blank": (but("c1", teachers=["", "p6"]), "teachers_format"),
}


def test_a_section_whose_lists_cannot_be_read_is_quarantined(there: LiveDistrict) -> None:
    """R4.7, R4.6: the classroom and its enrollments stay exactly as they are. A new section is not created."""
    for case, (broken, rule) in SECTIONS.items():
        with leaves_unchanged(there):
            report = there.sync(changed(broken, {**broken, "id": "c3"}))
        assert quarantine(there, report.sync_id) == {("sections", "c1", rule), ("sections", "c3", rule)}, case
    there.sync(changed(section("c1", ["p1"], ["p5"])))
    assert enrolled(there, "c1") == {("p1", "student", False), ("p5", "teacher", True)}


@pytest.mark.parametrize("teachers", [..., None], ids=["absent", "null"])
def test_teachers_that_are_missing_stay(there: LiveDistrict, teachers: Any) -> None:
    """R4.7: it is reported, and everything else of the section follows Clever. A new section begins without teachers."""
    absent = ("teachers",) if teachers is ... else ()
    fields = {} if teachers is ... else {"teachers": None}
    snapshot = changed(but("c1", *absent, name="New", students=["p1"], **fields), {**but("c2", *absent, **fields), "id": "c3"})
    report = there.sync(snapshot)
    assert enrolled(there, "c1") == {("p1", "student", False), ("p5", "teacher", True), ("p6", "teacher", False)}
    assert enrolled(there, "c3") == {("p3", "student", False)}
    assert report.counts["findings"]["sections.teachers_missing"] == 2
    assert quarantine(there, report.sync_id) == set()
    assert report.counts["audits"]["section_without_teacher"] == 3
    with leaves_unchanged(there):
        there.sync(snapshot)


def test_missing_teachers_end_with_the_person_or_the_role(there: LiveDistrict) -> None:
    """R4.7."""
    there.sync(changed(but("c1", "teachers"), without=("p6",)))
    assert enrolled(there, "c1") == {("p1", "student", False), ("p2", "student", False), ("p5", "teacher", True)}
    there.sync(changed(but("c1", "teachers"), staff("p5")))
    assert enrolled(there, "c1") == {("p1", "student", False), ("p2", "student", False)}


def test_the_one_teacher_that_clever_names_is_used(there: LiveDistrict) -> None:
    """R4.7, R6.2: `teacher` where `teachers` is missing; a teacher who is not rostered is nobody's. An empty list is a list."""
    there.sync(changed(but("c1", "teachers", teacher="p6")))
    assert ("p6", "teacher", True) in enrolled(there, "c1")
    assert not any(each == "p5" for each, _, _ in enrolled(there, "c1"))
    report = there.sync(changed(but("c1", "teachers", teacher="ghost")))
    assert {role for _, role, _ in enrolled(there, "c1")} == {"student"}
    assert report.counts["audits"]["enrollment_unknown_person"] == 1
    there.sync(changed())
    there.sync(changed(but("c1", teachers=[])))
    assert {role for _, role, _ in enrolled(there, "c1")} == {"student"}


def test_teachers_of_the_application_stay_too(there: LiveDistrict) -> None:
    """R4.7, R8.1: the enrollment of a protected teacher, of a source that is not Clever, is not written."""
    by_hand = new_user(there, "by hand", "teacher", protected=True)
    there.sync(changed())
    there.execute(
        "insert into app.enrollments (classroom_id, user_id, role)"
        " select classroom_id, :user, 'teacher' from app.classrooms where district_id = :district and clever_id = 'c1'",
        user=by_hand,
    )
    with leaves_unchanged(there):
        there.sync(changed(but("c1", "teachers")))
    there.sync(changed())
    assert all(each != str(by_hand) for each, _, _ in enrolled(there, "c1"))


PEOPLE: dict[str, tuple[str, Record, str]] = {
    "roles absent": ("teachers", but("p5", "roles"), "roles_missing"),
    "roles null": ("students", but("p1", roles=None), "roles_missing"),
    "roles text": ("staff", but("p7", roles="staff"), "roles_type"),
    "roles empty": ("teachers", but("p5", roles={}), "roles_missing"),
    "another role": ("teachers", but("p5", roles=RECORDS["p1"]["roles"]), "roles_missing"),
    "the role null": ("district_admins", but("p9", roles={"district_admin": None}), "roles_missing"),
    "the role a list": ("district_admins", but("p9", roles={"district_admin": []}), "district_admin_type"),
    "no schools": ("teachers", with_role("p5", schools=...), "schools_missing"),
    "schools null": ("staff", with_role("p7", schools=None), "schools_missing"),
    "schools text": ("teachers", with_role("p5", schools="s1"), "schools_type"),
    "a school null": ("staff", with_role("p7", schools=["s1", None]), "schools_type"),
    "a school blank": ("staff", with_role("p7", schools=["s1", ""]), "staff_schools_format"),
    "a teacher's school no id": ("teachers", with_role("p5", schools=["the first"]), "teacher_schools_format"),
    "a student at no school": ("students", with_role("p1", school=..., schools=None), "schools_missing"),
    "a student's school a number": ("students", with_role("p1", school=5), "school_type"),
}


def test_a_person_whose_roles_cannot_be_read_is_quarantined(there: LiveDistrict) -> None:
    """R4.7, R4.6: user, roles and enrollments stay exactly as they are. A new person is not created."""
    for case, (collection, broken, rule) in PEOPLE.items():
        odd = ((collection, {"data": broken}), (collection, {"data": {**broken, "id": "p20"}}))
        with leaves_unchanged(there):
            report = there.sync(changed(without=(broken["id"],), odd=odd))
        assert quarantine(there, report.sync_id) == {("users", broken["id"], rule), ("users", "p20", rule)}, case
    with leaves_unchanged(there):
        there.sync(changed())


def test_an_empty_list_of_schools_is_no_role(there: LiveDistrict) -> None:
    """R4.7, R5.8: it can be read. People who had an account are counted apart, every night."""
    nowhere = with_role("p5", school=None, schools=[]), with_role("p7", schools=[]), with_role("p1", school=None, schools=["elsewhere"])
    for _ in range(2):
        report = there.sync(changed(*nowhere, staff("p20", [])))
        assert {"p1", "p5", "p7"} & active(there, "users") == set()
        assert report.counts["audits"]["linked_person_without_role"] == 3
        assert report.counts["audits"]["person_without_role"] == 4


def test_a_role_that_one_of_two_collections_does_not_show(there: LiveDistrict) -> None:
    """R4.7: the record has been seen, byte for byte, but never among teachers: there its role cannot be read."""
    odd = (("teachers", {"data": RECORDS["p1"]}),)
    for is_forgotten in (False, True):
        if is_forgotten:
            there.forget()
        with leaves_unchanged(there):
            report = there.sync(changed(odd=odd))
        assert quarantine(there, report.sync_id) == {("users", "p1", "roles_missing")}


NO_ID: dict[str, Any] = {
    "null": None,
    "text": "row",
    "a number": 7,
    "a list": [],
    "no record": {"uri": "/v3.0/users/p1"},
    "an empty record": {"data": {}},
    "a null record": {"data": None},
    "an id that is null": {"data": {"id": None, "name": "A"}},
    "an id that is a number": {"data": {"id": 5, "roles": {}}},
    "a blank id": {"data": {"id": " ", "name": "A", "roles": {}}},
    "an id with a blank": {"data": {"id": "p 1", "name": "A", "students": [], "roles": {}}},
}


def test_an_element_without_a_readable_id_deletes_no_student(there: LiveDistrict) -> None:
    """R4.8: nobody knows which student it is. Users, roles and enrollments of students that the pull does not show stay."""
    for case, element in NO_ID.items():
        snapshot = changed(without=("p1", "p3"), odd=(("students", element),))
        before = there.state()
        report = there.sync(snapshot)
        assert differences(before, there.state()) == [], case
        assert report.status == "successful"
        assert [row[:2] for row in quarantine(there, report.sync_id)] == [("users", "")], case
        assert there.reasons()["p1"] == ("frozen", "unreadable", None)
    with leaves_unchanged(there):
        there.sync(snapshot)
    there.sync(changed(without=("p1", "p3")))
    assert {"p1", "p3"} & active(there, "users") == set()


COLLECTIONS: dict[str, tuple[str, ...]] = {
    "schools": ("s2",),
    "sections": ("c1",),
    "students": ("p1",),
    "teachers": ("p5",),
    "staff": ("p7",),
    "district_admins": ("p9",),
}


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_nothing_of_the_collection_is_deleted(there: LiveDistrict, collection: str) -> None:
    """R4.8: in each collection, rows without a Clever id too. What other collections no longer show is soft-deleted."""
    by_hand = {role: new_user(there, f"hand {role}", role) for role in ("student", "teacher", "school_admin", "district_admin")}
    new_school(there, "Hand")
    there.execute("insert into app.classrooms (district_id, name) values (:district, 'Hand')")
    removed = tuple(each for ids in COLLECTIONS.values() for each in ids)
    with_one_left = changed(without=removed, odd=((collection, None),))
    before = there.rows()
    there.sync(with_one_left)
    after = there.rows()
    table = {"schools": "schools", "sections": "classrooms"}.get(collection, "users")
    (stays,) = COLLECTIONS[collection]
    assert stays in active(there, table)
    for resource, ids in COLLECTIONS.items():
        if resource != collection:
            found = active(there, {"schools": "schools", "sections": "classrooms"}.get(resource, "users"))
            # Everything at a school that stays, stays: its sections and roles.
            assert not set(ids) & found, resource
    kept = {"students": "student", "teachers": "teacher", "staff": "school_admin", "district_admins": "district_admin"}.get(collection)
    for role, user_id in by_hand.items():
        assert (after["users"][str(user_id)] == before["users"][str(user_id)]) == (role == kept)
    hand = {each: [row["deleted_at"] for row in after[each].values() if row["name"] == "Hand"] for each in ("schools", "classrooms")}
    assert (hand["schools"] == [None]) == (collection == "schools")
    assert (None in hand["classrooms"]) == (collection == "sections")


def test_a_term_without_a_readable_id_takes_nothing_from_its_sections(district: LiveDistrict) -> None:
    """R4.8, R6.1: a term that the pull does not show may be it. A section with a term that is shown, or without one, follows Clever. A term
    that is not shown and cannot be there ends."""
    fall, spring = term("t1", "Fall", "2026-08-01", "2026-12-20"), term("t2", "Spring", "2027-01-10", "2027-06-01")
    sections = [section(each, term_id=at) for each, at in (("c1", "t1"), ("c2", "t2"), ("c3", "t1"), ("c4", "t1"))]
    district.sync(changed(*sections, fall, spring))
    moved = [sections[0], sections[1], section("c3", term_id="t2"), section("c4"), section("c5", term_id="t1")]
    report = district.sync(changed(*moved, {**spring, "name": "Second"}, odd=(("terms", None),)))
    assert quarantine(district, report.sync_id) == {("terms", "", "id_missing")}
    names = {row.clever_id: row.term_name for row in district.state().classrooms.values()}
    assert [names[each] for each in ("c1", "c2", "c3", "c4", "c5")] == ["Fall", "Second", "Second", None, None]
    district.sync(changed(*moved, spring))
    names = {row.clever_id: row.term_name for row in district.state().classrooms.values()}
    assert [names[each] for each in ("c1", "c2", "c3", "c4", "c5")] == [None, "Spring", "Spring", None, None]


def test_a_collection_of_one_element_without_an_id_is_not_empty(there: LiveDistrict) -> None:
    """R4.8, R7.3: nothing is deleted, so nothing is held."""
    admins = ("p9", "p90", "p91", "p92")
    with leaves_unchanged(there):
        report = there.sync(changed(without=admins, odd=(("district_admins", None),)))
    assert report.status == "successful"


def test_what_the_pull_shows_follows_clever(there: LiveDistrict) -> None:
    """R4.8: a student who is shown is updated, leaves a classroom, and loses the role if Clever says so; new ones are created."""
    odd = (("students", None),)
    there.sync(changed(student("p1", "zoe"), section("c1", ["p1"], ["p5", "p6"]), teacher("p2", "ben"), student("p11", "new"), odd=odd))
    assert usernames(there)["p1"] == "zoe"
    assert enrolled(there, "c1") == {("p1", "student", False), ("p5", "teacher", True), ("p6", "teacher", False)}
    assert roles(there, "p2") == {("teacher", "s1")}
    assert "p11" in active(there, "users")


def test_nobody_of_the_role_is_relinked(there: LiveDistrict) -> None:
    """R4.8, R5.3: the old id may be in the element. The person waits, without a second account, and is relinked at the next sync."""
    before = user(there, "p1")
    moved = {**RECORDS["p1"], "id": "p30"}
    with leaves_unchanged(there):
        there.sync(changed(moved, without=("p1",), odd=(("students", None),)))
    assert there.reasons()["p30"] == ("none", "relink_waits", None)
    there.sync(changed(moved, without=("p1",)))
    assert user(there, "p30")["user_id"] == before["user_id"]


def test_a_relink_across_roles_waits_too(there: LiveDistrict) -> None:
    """R4.8, R5.3: a teacher comes back under a new id, also as a student. The old account is no student's, and stays all the same."""
    before = user(there, "p5")
    moved = {**RECORDS["p5"], "id": "p31", "roles": {**RECORDS["p5"]["roles"], "student": RECORDS["p1"]["roles"]["student"]}}
    moved["roles"]["student"] = {**moved["roles"]["student"], "credentials": {"district_username": "eva"}}
    with leaves_unchanged(there):
        there.sync(changed(moved, without=("p5",), odd=(("students", None),)))
    there.sync(changed(moved, without=("p5",)))
    assert user(there, "p31")["user_id"] == before["user_id"]


def test_an_unlinked_user_keeps_the_name(there: LiveDistrict) -> None:
    """R4.8, R5.5: a user that the pull may have unreadably keeps the username, and a person who has it as Clever id waits."""
    new_user(there, "p40", "teacher")
    there.sync(changed(student("p40", "kim"), odd=(("teachers", None),)))
    assert "p40" not in active(there, "users")
    there.sync(changed(student("p40", "kim")))
    assert usernames(there)["p40"] == "kim"
