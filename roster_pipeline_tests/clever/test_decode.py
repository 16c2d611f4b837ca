"""Pages of bytes become records and findings: allow-list, wrong types, surrogates, foreign districts (R3.4, R3.6, R4.2, R4.5)."""

import json
from typing import Any

import msgspec
import pytest

from roster_pipeline.clever.decode import CollectionDecoder, ListBody, MalformedBodyError, parse_body
from roster_pipeline.clever.records import Record, Section, User, UserWithoutEmail
from roster_pipeline.errors import PermanentError
from roster_pipeline.source.vocabulary import Collection, Finding

from .scripted import DISTRICT, page, person, school

NEVER_DECODED = {
    "dob": "2/11/2007",
    "race": "Unknown",
    "gender": "X",
    "hispanic_ethnicity": "Y",
    "ell_status": "N",
    "location": {"address": "1 Marker Street", "zip": "10459"},
    "email": "copy@marker.example",
    "phone": "555-0100",
}


def decode(
    collection: Collection, *records: Any, keep_student_email: bool = True, decoder: CollectionDecoder | None = None
) -> tuple[list[Any], list[Finding]]:
    decoder = decoder or CollectionDecoder(collection, DISTRICT, keep_student_email=keep_student_email)
    return decoded(json.dumps(page(*(with_asked_role(collection, each) for each in records))).encode(), decoder)


def with_asked_role(collection: Collection, record: Any) -> Any:
    """A record without roles, or one of a student, as Clever returns it in this collection of users."""
    if not collection.role or not isinstance(record, dict) or not isinstance(roles := record.get("roles", {}), dict):
        return record
    return {**record, "roles": {collection.role: {"schools": ["s1"]}, **roles}}


def decoded(body: bytes, decoder: CollectionDecoder) -> tuple[list[Any], list[Finding]]:
    page = decoder.decode(parse_body(body, ListBody).data)
    return page.records, page.findings


def with_student(clever_id: str, **fields: Any) -> dict[str, Any]:
    record = person(clever_id)
    record["roles"]["student"] |= fields
    return record


def section(clever_id: str, **more: Any) -> dict[str, Any]:
    return {"id": clever_id, "district": DISTRICT, "school": "s1", "name": "Maths", "students": ["p1"], "teachers": ["t1"]} | more


def texts(record: Record) -> str:
    return json.dumps(msgspec.to_builtins(record))


@pytest.mark.parametrize("broken_neighbour", [False, True], ids=["whole page", "one by one"])
def test_undeclared_fields_are_not_in_memory(broken_neighbour: bool) -> None:
    """R3.4: the decoder reads only the allow-list of a student with every field, whether it decodes whole pages or one by one."""
    sent = [with_student("p1", **NEVER_DECODED, grade="7") | {"created": "2026-01-01", "not_there_yet": {"first": "Marker"}}]
    if broken_neighbour:
        sent.append(with_student("p2", **NEVER_DECODED, grade=7))
    records, _ = decode(Collection.STUDENTS, *sent)
    assert len(records) == len(sent)
    for record in records:
        assert not any(hasattr(part, name) for part in (record.roles.student, record.roles) for name in NEVER_DECODED)
        assert not any(hasattr(record, name) for name in NEVER_DECODED.keys() - {"email"})
        assert "arker" not in texts(record)


@pytest.mark.parametrize("broken_neighbour", [False, True], ids=["whole page", "one by one"])
def test_a_students_email_is_only_decoded_where_it_is_stored(broken_neighbour: bool) -> None:
    """R3.4: without Profile.student_email the record has no attribute for it. The e-mail of staff is decoded."""
    sent = [person("p1")] + ([person("p2", last_modified=5)] if broken_neighbour else [])
    kept, _ = decode(Collection.STUDENTS, *sent, keep_student_email=True)
    assert [record.email for record in kept] == ["a@b.example"] * len(sent)
    dropped, _ = decode(Collection.STUDENTS, *sent, keep_student_email=False)
    assert all(type(record) is UserWithoutEmail and not hasattr(record, "email") for record in dropped)
    teachers, _ = decode(Collection.TEACHERS, *sent, keep_student_email=False)
    assert all(type(record) is User and record.email for record in teachers)


@pytest.mark.parametrize("blank", ["", None, ...], ids=["empty", "null", "absent"])
def test_blank_optional_values_are_none_and_no_finding(blank: Any) -> None:
    """Clever leaves a value out in three ways, and all mean None. So does blank mandatory text, which the contracts validate."""
    values = dict.fromkeys(["sis_id", "state_id", "student_number", "grade", "school", "credentials"], blank) | {"schools": []}
    name = dict.fromkeys(["first", "middle", "last"], blank)
    record = person("p1", email=blank, name=name, last_modified=blank)
    record["roles"] = {"student": values, "teacher": None}
    (user,), findings = decode(Collection.STUDENTS, without_absent(record))
    assert findings == []
    student = user.roles.student
    assert {student.sis_id, student.state_id, student.student_number, student.grade, student.school} == {None}
    assert {user.email, user.last_modified, user.name.first, user.name.middle, user.name.last} == {None}
    assert student.schools == []
    assert student.credentials.district_username is None
    assert user.roles.teacher is None

    sent = section("c1", **dict.fromkeys(["school", "name", "course", "term_id", "teacher"], blank))
    (found,), findings = decode(Collection.SECTIONS, without_absent(sent))
    assert findings == []
    assert {found.school, found.name, found.course, found.term_id, found.teacher} == {None}


def test_empty_text_is_none_when_the_whole_page_decodes_at_once() -> None:
    """The same without a loop over records: each Struct does it itself."""
    empty = dict.fromkeys(["sis_id", "state_id", "student_number", "grade", "school"], "")
    roles = {
        "student": empty | {"schools": [], "credentials": {"district_username": ""}},
        "teacher": {"sis_id": "", "state_id": "", "school": "", "schools": []},
    }
    name = dict.fromkeys(["first", "middle", "last"], "")
    sent: dict[Collection, dict[str, Any]] = {
        Collection.STUDENTS: {"name": name, "email": "", "last_modified": "", "roles": roles},
        Collection.SECTIONS: dict.fromkeys(["school", "name", "course", "term_id", "teacher", "last_modified"], ""),
        Collection.SCHOOLS: {"name": "", "last_modified": ""},
        Collection.TERMS: {"name": "", "start_date": "", "end_date": ""},
        Collection.COURSES: {"name": "", "number": ""},
    }
    for collection, fields in sent.items():
        for keep_student_email in (True, False):
            records, findings = decode(collection, {"id": "x", "district": DISTRICT} | fields, keep_student_email=keep_student_email)
            assert (len(records), findings) == (1, [])
            assert '""' not in texts(records[0])


def without_absent(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_absent(inner) for key, inner in value.items() if inner is not ...}
    return value


def test_absent_roles_and_objects_have_their_defaults() -> None:
    """A user with only an id, a district and the role that was asked for has all attributes."""
    (user,), findings = decode(Collection.TEACHERS, {"id": "t1", "district": DISTRICT})
    assert (user.name.last, user.roles.student, user.roles.district_admin, findings) == (None, None, None, [])
    (admin,), _ = decode(Collection.DISTRICT_ADMINS, person("a1", roles={"district_admin": {"title": "marker"}}))
    assert admin.roles.district_admin is not None


@pytest.mark.parametrize(
    ("sent", "students", "teachers"),
    [
        ({"students": ["b", "a", "b"], "teachers": ["y", "x", "y"], "teacher": "y"}, ["b", "a"], ["y", "x"]),
        ({"students": ["a", ""], "teachers": [], "teacher": "x"}, ["a", ""], ["x"]),
        ({"students": [], "teachers": ["y"], "teacher": "x"}, [], ["y"]),
        ({"students": [], "teachers": [], "teacher": ""}, [], []),
        ({"students": None, "teachers": None, "teacher": "x"}, None, ["x"]),
        ({"students": None, "teachers": None, "teacher": ""}, None, None),
    ],
)
def test_members_of_a_section(sent: dict[str, Any], students: list[str] | None, teachers: list[str] | None) -> None:
    """R4.7, R6.2: each id once, in Clever's order. If `teachers` is empty or missing, `teacher` is used. A missing list is None."""
    (found,), findings = decode(Collection.SECTIONS, section("c1", **sent))
    assert isinstance(found, Section)
    assert (found.students, found.teachers, findings) == (students, teachers, [])


OPTIONAL = {
    "email_type": person("p1", email=5),
    "middle_name_type": person("p1", name={"first": "Ada", "middle": ["x"], "last": "Byron"}),
    "last_modified_type": person("p1", last_modified=5),
    "sis_id_type": with_student("p1", sis_id=100095233),
    "state_id_type": with_student("p1", state_id={}),
    "student_number_type": with_student("p1", student_number=1.5),
    "grade_type": with_student("p1", grade="Grade 7"),
    "credentials_type": with_student("p1", credentials="marker"),
    "district_username_type": with_student("p1", credentials={"district_username": 7}),
}


@pytest.mark.parametrize(("rule", "record"), OPTIONAL.items(), ids=OPTIONAL.keys())
def test_a_broken_optional_value_is_dropped_and_reported(rule: str, record: dict[str, Any]) -> None:
    """R4.2: the record stays, with all other values. The records around it are not affected."""
    records, findings = decode(Collection.STUDENTS, person("p0"), record, person("p2"))
    assert findings == [Finding("p1", rule, "warn")]
    assert [found.id for found in records] == ["p0", "p1", "p2"]
    assert (records[1].name.first, records[1].name.last, records[1].roles.student.school) == ("Ada", "Byron", "s1")
    assert "arker" not in repr(findings)


MANDATORY: dict[str, tuple[Collection, dict[str, Any]]] = {
    "first_name_type": (Collection.STUDENTS, person("x", name={"first": 5, "last": "Byron"})),
    "last_name_type": (Collection.TEACHERS, person("x", name={"first": "Ada", "last": ["Byron"]})),
    "name_type": (Collection.STAFF, person("x", name="Ada Byron")),
    "roles_type": (Collection.STUDENTS, person("x", roles=["student"])),
    "student_type": (Collection.STUDENTS, person("x", roles={"student": True})),
    "school_type": (Collection.STUDENTS, with_student("x", school=5)),
    "schools_type": (Collection.STUDENTS, with_student("x", schools="s1")),
    "district_type": (Collection.STUDENTS, person("x", district=5)),
}
MANDATORY_ELSEWHERE: dict[str, tuple[Collection, dict[str, Any]]] = {
    "name_type": (Collection.SCHOOLS, school("x", name=5)),
    "school_type": (Collection.SECTIONS, section("x", school=["s1"])),
    "students_type": (Collection.SECTIONS, section("x", students="p1")),
    "teachers_type": (Collection.SECTIONS, section("x", teachers=["t1", 5])),
}


@pytest.mark.parametrize(("rule", "case"), [*MANDATORY.items(), *MANDATORY_ELSEWHERE.items()])
def test_a_broken_mandatory_value_rejects_the_row(rule: str, case: tuple[Collection, dict[str, Any]]) -> None:
    """R4.2, R4.6: the record is left out, with a finding under its id. Mandatory are also fields without which a person looks absent."""
    collection, record = case
    records, findings = decode(collection, {"id": "w", "district": DISTRICT}, record)
    assert [found.id for found in records] == ["w"]
    assert findings == [Finding("x", rule, "error")]


_HERE = {"schools": ["s1"]}
ROLES: dict[str, tuple[Collection, dict[str, Any], str]] = {
    "no roles": (Collection.STUDENTS, {}, "roles_missing"),
    "roles null": (Collection.STUDENTS, {"roles": None}, "roles_missing"),
    "no role": (Collection.TEACHERS, {"roles": {}}, "roles_missing"),
    "another role only": (Collection.TEACHERS, {"roles": {"student": _HERE}}, "roles_missing"),
    "the role null": (Collection.STAFF, {"roles": {"staff": None, "teacher": _HERE}}, "roles_missing"),
    "a district admin's role null": (Collection.DISTRICT_ADMINS, {"roles": {"district_admin": None}}, "roles_missing"),
    "no schools": (Collection.TEACHERS, {"roles": {"teacher": {"school": "s1"}}}, "schools_missing"),
    "schools null": (Collection.STAFF, {"roles": {"staff": {"schools": None}}}, "schools_missing"),
    "schools of another role": (Collection.TEACHERS, {"roles": {"teacher": _HERE, "staff": {}}}, "schools_missing"),
    "a student at no school": (Collection.STUDENTS, {"roles": {"student": {"school": None, "schools": None}}}, "schools_missing"),
    "a student at a blank one": (Collection.STUDENTS, {"roles": {"student": {"school": ""}}}, "schools_missing"),
    "the role is text": (Collection.TEACHERS, {"roles": {"teacher": "yes"}}, "teacher_type"),
    "schools are text": (Collection.TEACHERS, {"roles": {"teacher": {"schools": "s1"}}}, "schools_type"),
    "schools are blank text": (Collection.TEACHERS, {"roles": {"teacher": {"schools": ""}}}, "schools_type"),
    "a school is null": (Collection.STUDENTS, {"roles": {"student": {"school": "s1", "schools": ["s1", None]}}}, "schools_type"),
}


@pytest.mark.parametrize("broken_neighbour", [False, True], ids=["whole page", "one by one"])
@pytest.mark.parametrize("case", ROLES)
def test_a_person_whose_roles_cannot_be_read(case: str, *, broken_neighbour: bool) -> None:
    """R4.7: is left out, with one finding. The people around are not affected."""
    collection, fields, rule = ROLES[case]
    there = {"id": "w", "district": DISTRICT, "roles": {collection.role: {"schools": []}}} | ({"email": 5} if broken_neighbour else {})
    body = json.dumps(page(there, {"id": "x", "district": DISTRICT} | fields)).encode()
    records, findings = decoded(body, CollectionDecoder(collection, DISTRICT, keep_student_email=True))
    assert [found.id for found in records] == ["w"]
    assert [each for each in findings if each.clever_id != "w"] == [Finding("x", rule, "error")]


@pytest.mark.parametrize(
    ("role", "schools"),
    [
        ({"school": "s1"}, ["s1"]),
        ({"schools": ["s1", "s2"]}, ["s1", "s2"]),
        ({"school": None, "schools": []}, []),
        ({"school": "s1", "schools": ["s2"]}, ["s1", "s2"]),
    ],
)
def test_a_students_school_can_be_read_from_either_field(role: dict[str, Any], schools: list[str]) -> None:
    """R4.7, R5.8: an empty list is a list."""
    (found,), findings = decode(Collection.STUDENTS, {"id": "x", "district": DISTRICT, "roles": {"student": role}})
    assert (found.roles.student.all_schools, findings) == (schools, [])


def test_every_broken_field_of_a_row_is_reported() -> None:
    """R4.2: one finding per rule."""
    record = person("x", name={"first": 1, "last": 2}, email=3)
    _, findings = decode(Collection.STUDENTS, record)
    assert findings == [
        Finding("x", "first_name_type", "error"),
        Finding("x", "last_name_type", "error"),
        Finding("x", "email_type", "warn"),
    ]


@pytest.mark.parametrize("record", [person(""), person("x") | {"id": 5}, person("x") | {"id": None}, {"name": "x"}, 5, None, []])
def test_a_row_without_a_readable_id(record: Any) -> None:
    """R4.2: its finding has no id. An id is never made from a number."""
    records, findings = decode(Collection.STUDENTS, person("p1"), record)
    assert [found.id for found in records] == ["p1"]
    assert findings == [Finding("", "id_missing", "error")]


def test_an_item_without_its_wrapper_is_a_row_without_an_id() -> None:
    """The other records of the page are decoded."""
    body = json.dumps({"data": [{"data": school("a")}, {"uri": "/x"}, 7], "links": []}).encode()
    records, findings = decoded(body, CollectionDecoder(Collection.SCHOOLS, DISTRICT, keep_student_email=True))
    assert [found.id for found in records] == ["a"]
    assert findings == [Finding("", "id_missing", "error")] * 2


@pytest.mark.parametrize(
    "foreign", [school("x", district="other"), school("x", district="other", name=5)], ids=["whole", "with a broken name"]
)
def test_foreign_rows_are_not_yielded(foreign: dict[str, Any]) -> None:
    """R3.6: the only finding is that it is foreign, whatever else is wrong with it."""
    records, findings = decode(Collection.SCHOOLS, school("a"), foreign, school("b"))
    assert [found.id for found in records] == ["a", "b"]
    assert findings == [Finding("x", "foreign_district", "error")]


@pytest.mark.parametrize("blank", ["", None, ...], ids=["empty", "null", "absent"])
@pytest.mark.parametrize("broken", [{}, {"last_modified": 5}], ids=["whole", "with a broken value"])
@pytest.mark.parametrize("collection", Collection)
def test_a_row_without_a_district_is_left_out(collection: Collection, broken: dict[str, Any], blank: Any) -> None:
    """R3.6: of every collection. Nobody knows whose record it is, so it is quarantined, not trusted."""
    without = without_absent({"id": "x", "district": blank} | broken)
    records, findings = decode(collection, {"id": "a", "district": DISTRICT}, without)
    assert [found.id for found in records] == ["a"]
    assert Finding("x", "district_missing", "error") in findings


def check_shape(pages: list[list[dict[str, Any]]]) -> None:
    decoder = CollectionDecoder(Collection.SCHOOLS, DISTRICT, keep_student_email=True)
    for records in pages:
        decode(Collection.SCHOOLS, *records, decoder=decoder)
    decoder.check_shape()


def test_a_type_that_changed_for_most_rows_stops_the_district() -> None:
    """R4.2: it has to be in more than half of the records of all pages, and in more than one. Optional fields do not count."""
    good, bad = school("a"), school("b", name=5)
    check_shape([[bad]])
    check_shape([[bad, bad], [good, good]])
    check_shape([[school("c", last_modified=5)] * 3])
    check_shape([])
    with pytest.raises(PermanentError, match="shape of Clever's data changed: name has an unexpected type in 3 of 5 schools"):
        check_shape([[good, bad], [good, bad, bad]])
    with pytest.raises(PermanentError, match="id has an unexpected type in 2 of 2"):
        check_shape([[school("a") | {"id": 5}], [school("a") | {"id": 6}]])


@pytest.mark.parametrize(
    ("escaped", "read"),
    [
        (r"Zo\ud800e", "Zoe"),
        (r"Zo\udc00e", "Zoe"),
        (r"\ud800\ud83d\ude00\udfff", "\U0001f600"),
        (r"\\ud800", r"\ud800"),
        (r"\\ud800 \ud800", r"\ud800 "),
        (r"\\\ud800x", r"\x"),
        (r"\"\ud800\"", '""'),
        ("Zo\\u00eb \\ud800", "Zoë "),
        ("Zoë\\uDBFF", "Zoë"),
    ],
)
def test_lone_surrogates_are_removed(escaped: str, read: str) -> None:
    """R4.5: JSON allows them, UTF-8 does not. Whole pairs and escaped backslashes stay as they are."""
    body = json.dumps(page(school("a", name="NAME"), school("b", name="B"))).replace("NAME", escaped).encode()
    records, findings = decoded(body, CollectionDecoder(Collection.SCHOOLS, DISTRICT, keep_student_email=True))
    assert [(found.id, found.name) for found in records] == [("a", read), ("b", "B")]
    assert findings == []


def test_surrogates_do_not_hide_a_malformed_body() -> None:
    """R3.2: a cut body is still malformed after its surrogates are removed."""
    with pytest.raises(MalformedBodyError):
        parse_body(b'{"data": [{"data": {"id": "a", "name": "\\ud800"}}', ListBody)
    with pytest.raises(MalformedBodyError):
        parse_body(b'{"data": ["\\ud800"], "links": 5}', ListBody)
