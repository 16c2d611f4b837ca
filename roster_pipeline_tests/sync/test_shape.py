"""A field that decides something is missing in a whole collection: the sync fails and writes nothing (R3.6, R4.2)."""

from typing import Any

import pytest

from roster_pipeline.errors import PermanentError
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.reference.rows import Record
from roster_pipeline_tests.sync.clever import clever, school, section, staff, student, teacher

NUMBERS = range(1, 11)
SCHOOLS = [school(f"s{each}") for each in NUMBERS]
SECTIONS = [section(f"c{each}", [f"p{each}"], [f"t{each}"]) for each in NUMBERS]
STUDENTS = [student(f"p{each}", f"u{each}", sis_id=str(each)) for each in NUMBERS]
TEACHERS = [teacher(f"t{each}", f"v{each}", sis_id=str(each)) for each in NUMBERS]


def without(record: Record, field: str) -> Record:
    """The record without this field; a field of the name or of a role as `name.first`."""
    outer, _, inner = field.partition(".")
    if outer == "district":
        return {**record, "district": ""}
    if outer == "roles":
        return {**record, "roles": {role: without(each, inner) if each else each for role, each in record["roles"].items()}}
    if not inner:
        return {name: value for name, value in record.items() if name != outer}
    return {**record, outer: without(record[outer], inner)}


VANISHED = [
    ("schools", SCHOOLS, "name"),
    ("schools", SCHOOLS, "district"),
    ("sections", SECTIONS, "name"),
    ("sections", SECTIONS, "district"),
    ("students", STUDENTS, "name.first"),
    ("students", STUDENTS, "name.last"),
    ("students", STUDENTS, "name"),
    ("students", STUDENTS, "district"),
    ("teachers", TEACHERS, "name.last"),
]


@pytest.mark.parametrize(("collection", "records", "field"), VANISHED, ids=[f"{collection} {field}" for collection, _, field in VANISHED])
def test_a_field_that_has_vanished(district: LiveDistrict, collection: str, records: list[Record], field: str) -> None:
    """R3.6, R4.2: nothing is written, also if most records are byte for byte those of the last snapshot otherwise."""
    others = [each for group in (SCHOOLS, SECTIONS, STUDENTS, TEACHERS) if group is not records for each in group]
    district.sync(clever(*others, *records))
    before = district.rows()
    with pytest.raises(PermanentError, match="shape of Clever's data changed") as caught:
        district.sync(clever(*others, *(without(each, field) for each in records)))
    assert f"10 of 10 {collection}" in str(caught.value)
    assert field.replace("name.", "").split("_")[0] in str(caught.value)
    assert district.rows() == before
    assert district.sync(clever(*others, *records)).status == "successful"


def test_some_records_without_a_field_are_quarantined(district: LiveDistrict) -> None:
    """R4.2: one bad row never stops a district, nor do nine of ten. Records that have not changed count as having the field."""
    district.sync(clever(*SCHOOLS, *SECTIONS, *STUDENTS, *TEACHERS))
    odd = [without(each, "name.last") for each in STUDENTS[:9]]
    report = district.sync(clever(*SCHOOLS, *SECTIONS, *odd, STUDENTS[9], *TEACHERS))
    assert (report.status, report.counts["findings"]) == ("successful", {"users.last_name_missing": 9})


def test_a_first_snapshot_has_nothing_that_could_have_vanished(district: LiveDistrict) -> None:
    """R4.2: its broken records are quarantined, so an error at one of two collections does not hide the other."""
    report = district.sync(clever(*SCHOOLS, *(without(each, "name") for each in STUDENTS), *TEACHERS))
    assert report.counts["findings"] == {"users.first_name_missing": 10, "users.last_name_missing": 10}


def test_a_collection_that_is_shared_for_the_first_time(district: LiveDistrict) -> None:
    """R4.2: per collection, not per resource: broken school admins stop no students."""
    district.sync(clever(*SCHOOLS, *STUDENTS))
    newcomers: list[Any] = [without(staff(f"a{each}"), "name.last") for each in NUMBERS]
    report = district.sync(clever(*SCHOOLS, *STUDENTS, *newcomers))
    assert report.counts["findings"] == {"users.last_name_missing": 10}


@pytest.mark.parametrize("field", ["roles.credentials", "roles.sis_id", "email"])
def test_a_field_that_a_district_can_switch_off(district: LiveDistrict, field: str) -> None:
    """R4.2, R7.3: no error, which nobody could get past. Whether usernames change is for the brake `identities` to hold."""
    district.sync(clever(*SCHOOLS, *STUDENTS))
    report = district.sync(clever(*SCHOOLS, *(without(each, field) for each in STUDENTS)))
    assert report.counts["findings"] == {}
