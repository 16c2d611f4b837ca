"""Generated districts: the same bytes for the same seed, the recorded ratios, and the oddities of real rosters."""

from collections import Counter
from typing import Any

import pytest

from roster_pipeline.sandbox import District, generate_district
from roster_pipeline.sandbox.district import KINDS
from roster_pipeline.sandbox.names import ODD


@pytest.fixture(scope="module")
def district() -> District:
    return generate_district(1, 4000)


def with_role(district: District, role: str) -> dict[str, dict[str, Any]]:
    """id -> the role's object, of all users that have the role."""
    return {key: district.get("users", key)["roles"][role] for key in district.shared("users", role)}


def sections(district: District) -> list[dict[str, Any]]:
    """All sections."""
    return [district.get("sections", key) for key in district.shared("sections")]


def test_same_seed_same_bytes() -> None:
    """Ids, records and token are the same. Another seed gives no id of the first."""
    one, again, other = generate_district(5, 200), generate_district(5, 200), generate_district(6, 200)
    assert (one.record, one.token, one.records, one.roles) == (again.record, again.token, again.records, again.roles)
    assert (one.id, one.access_token) != (other.id, other.access_token)
    for kind in KINDS:
        assert one.records[kind].keys().isdisjoint(other.records[kind])


def test_recorded_ratios(district: District) -> None:
    """The ratios of Clever's recorded sandbox district of 1,004 students."""
    students, teachers = with_role(district, "student"), with_role(district, "teacher")
    members = [len(section["students"]) for section in sections(district)]
    assert len(students) == 4000
    assert sum(members) / 4000 == pytest.approx(8.9, abs=0.2)
    assert sum(members) / len(members) == pytest.approx(23.7, abs=1)
    assert min(members) >= 14
    assert max(members) <= 50
    schools = Counter(len(student["schools"]) for student in students.values())
    assert (schools[2] + schools[3]) / 4000 == pytest.approx(0.26, abs=0.03)
    assert schools[3] / 4000 == pytest.approx(0.04, abs=0.015)
    assert sum(len(section["teachers"]) > 1 for section in sections(district)) / len(members) == pytest.approx(0.12, abs=0.03)
    assert len(teachers) == pytest.approx(360, abs=5)
    teaching = {teacher for section in sections(district) for teacher in section["teachers"]}
    assert len(teachers.keys() - teaching) / len(teachers) == pytest.approx(0.13, abs=0.05)
    assert len(district.shared("schools")) == 8
    assert len(with_role(district, "contact")) == 4000


def test_sections_and_students_agree(district: District) -> None:
    """A student's `schools` has the schools of all sections, the primary one first. teacher == teachers[0]. No student is twice in one."""
    students = with_role(district, "student")
    schools = district.records["schools"]
    for section in sections(district):
        assert section["teacher"] == section["teachers"][0]
        assert len(set(section["students"])) == len(section["students"])
        for student in section["students"]:
            assert student not in students or section["school"] not in schools or section["school"] in students[student]["schools"]
    assert all(student["school"] == student["schools"][0] for student in students.values())


def test_oddities_of_real_rosters(district: District) -> None:
    """R4.5, R5.5, R5.8, R6.1, R6.2: each kind occurs, in small numbers."""
    users = [district.get("users", key) for key in district.shared("users")]
    assert {(user["name"].get("first"), user["name"]["last"]) for user in users} >= set(ODD)
    usernames = [student["credentials"]["district_username"] for student in with_role(district, "student").values()]
    assert 4 <= usernames.count("") <= 12
    exact, folded = Counter(usernames), Counter(name.lower() for name in usernames)
    assert any(count > 1 for name, count in folded.items() if name)
    assert any(count > 1 and exact[name] < count for name, count in folded.items())
    students, teachers = with_role(district, "student"), with_role(district, "teacher")
    assert any(set(section["students"]) - students.keys() for section in sections(district))
    assert any(set(section["teachers"]) - teachers.keys() for section in sections(district))
    assert any(section["school"] not in district.records["schools"] for section in sections(district))
    combinations = set(district.roles.values())
    assert combinations >= {("teacher", "staff"), ("teacher", "district_admin"), ("student",), ("contact",)}
    assert {0, 1, 2} <= {len(staff["schools"]) for staff in with_role(district, "staff").values()}
    taught = {student for section in sections(district) for student in section["students"]}
    assert students.keys() - taught


def test_missing_values_are_absent_or_blank_but_never_null(district: District) -> None:
    """The 2,098 recorded users have no null. `last_modified` is never missing."""
    fields: dict[str, Counter[str]] = {}
    for key in district.shared("users", "student"):
        user = district.get("users", key)
        assert user["last_modified"]
        for name, value in {**user, **user["roles"]["student"]}.items():
            assert value is not None
            fields.setdefault(name, Counter())["blank" if value == "" else "there"] += 1
    assert fields["gender"]["blank"] > 0
    for optional in ("email", "dob", "state_id", "student_number", "grade", "race"):
        assert 0 < fields[optional].total() < 4000, optional


@pytest.mark.parametrize("students", [1, 2, 13, 50])
def test_small_districts_are_complete(students: int) -> None:
    """Three schools, a teacher at each, and users of every role."""
    district = generate_district(1, students)
    assert len(district.shared("schools")) == 3
    assert all(district.shared("users", role) for role in ("student", "teacher", "staff", "district_admin", "contact"))
    assert len(district.shared("users", "student")) == students


def test_without_oddities_everything_can_be_rostered() -> None:
    """Usernames are not blank, and unique. There is no id that does not exist, and no staff without a school."""
    district = generate_district(1, 2000, oddities=False)
    usernames = [role["credentials"]["district_username"] for name in ("student", "teacher") for role in with_role(district, name).values()]
    assert len(set(usernames)) == len(usernames)
    assert "" not in usernames
    students, teachers = with_role(district, "student"), with_role(district, "teacher")
    for section in sections(district):
        assert set(section["students"]) <= students.keys()
        assert set(section["teachers"]) <= teachers.keys()
        assert section["school"] in district.records["schools"]
    assert all(staff["schools"] for staff in with_role(district, "staff").values())
