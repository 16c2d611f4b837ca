"""Clever leaves a field out, for one record and for all: nothing is lost (R4.7). Each field of each Struct of `clever/records.py` is tried.

Does not belong here: what the pipeline does instead (`test_unreadable.py`), and the brakes on values that become empty (`test_brakes.py`).
"""

import copy
from collections.abc import Iterator
from itertools import chain
from typing import Any, get_args

import msgspec
import pytest

from roster_pipeline.clever import records
from roster_pipeline.clever.absence import Absent, meaning_of_absence
from roster_pipeline.clever.decode import SingleBody, parse_district
from roster_pipeline.clever.records import District, Wire, record_type
from roster_pipeline.errors import PermanentError
from roster_pipeline.source.vocabulary import Collection
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.reference.rows import Record, Snapshot

NOW = "2026-01-05T00:00:00.000Z"
# A student without `schools` is at `school` alone: SPEC says that one of the two is enough.
SCHOOLS = {"school": "s1", "schools": ["s1"]}


def _role(clever_id: str) -> dict[str, Any]:
    return {"sis_id": clever_id, "state_id": clever_id, "credentials": {"district_username": f"name {clever_id}"}}


_OF_STUDENTS = {"student_number": "7", "grade": "3", "preferred_name": {"first": "An", "middle": "N", "last": "Li"}}


def _person(clever_id: str, role: str, fields: dict[str, Any]) -> Record:
    name = {"first": "Ana", "middle": "M", "last": clever_id}
    return {"id": clever_id, "name": name, "email": f"{clever_id}@x.example", "last_modified": NOW, "roles": {role: fields}}


def _section(number: int) -> Record:
    members = {"students": ["p1", "p2", "p3"], "teachers": ["t1"], "teacher": "t1"}
    return {"id": f"c{number}", "name": f"C{number}", "school": "s1", "course": "k1", "term_id": "y1", "last_modified": NOW, **members}


# Three records of each collection, with every field.
THERE: dict[Collection, list[Record]] = {
    Collection.SCHOOLS: [{"id": f"s{each}", "name": f"S{each}", "last_modified": NOW} for each in (1, 2, 3)],
    Collection.TERMS: [{"id": f"y{each}", "name": "Year", "start_date": "2026-01-01", "end_date": "2026-12-31"} for each in (1, 2, 3)],
    Collection.COURSES: [{"id": f"k{each}", "name": "Course", "number": "1"} for each in (1, 2, 3)],
    Collection.SECTIONS: [_section(each) for each in (1, 2, 3)],
    Collection.STUDENTS: [_person(each, "student", {**SCHOOLS, **_role(each), **_OF_STUDENTS}) for each in ("p1", "p2", "p3")],
    Collection.TEACHERS: [_person(each, "teacher", {**SCHOOLS, **_role(each)}) for each in ("t1", "t2", "t3")],
    Collection.STAFF: [_person(each, "staff", {"schools": ["s1"], **_role(each)}) for each in ("a1", "a2", "a3")],
    Collection.DISTRICT_ADMINS: [_person(each, "district_admin", {}) for each in ("d1", "d2", "d3")],
}

Path = tuple[str, ...]


def paths(shape: type[Wire], record: Any, before: Path = ()) -> Iterator[tuple[type[Wire], Path]]:
    """Every field that is in the record, with its Struct."""
    for field in msgspec.structs.fields(shape):
        if field.name in record:
            yield shape, (*before, field.name)
            parts = [each for each in (field.type, *get_args(field.type)) if isinstance(each, type) and issubclass(each, Wire)]
            for each in parts:
                yield from paths(each, record[field.name], (*before, field.name))


def _cases() -> dict[tuple[type[Wire], str], tuple[Collection, Path]]:
    """Each field of each Struct once: the collection and the path by which it is left out."""
    found: dict[tuple[type[Wire], str], tuple[Collection, Path]] = {}
    for collection, (record, *_) in THERE.items():
        shape = record_type(collection, keep_student_email=True, prefer_name=True)
        for struct, path in paths(shape, {**record, "district": "d"}):
            found.setdefault((declaring(struct, path[-1]), path[-1]), (collection, path))
    return found


def declaring(struct: type[Wire], name: str) -> type[Wire]:
    """The Struct that says what the absence of the field means: the field's own, or a base class of it."""
    said: list[type[Wire]] = [each for each in struct.__mro__ if name in vars(each).get("absent", ())]
    return said[0]


CASES = _cases()


def structs(base: type[Wire] = Wire) -> Iterator[type[Wire]]:
    for each in base.__subclasses__():
        yield from (each, *structs(each))


def test_every_field_is_tried() -> None:
    """R4.7: a new field has to say what its absence means, and has to be in the records above."""
    here = [each for each in structs() if each.__module__ == records.__name__]
    fields = {(declaring(struct, each), each) for struct in here for each in meaning_of_absence(struct)}
    # The district object is below.
    assert CASES.keys() == {(struct, each) for struct, each in fields if struct is not District}


def test_a_struct_says_what_the_absence_of_its_fields_means() -> None:
    """R4.7: otherwise nothing of its collection can be decoded."""

    class WithColour(records.School):
        colour: str | None = None

    with pytest.raises(LookupError, match=r"WithColour.absent: what does the absence of colour mean\?"):
        meaning_of_absence(WithColour)


@pytest.mark.parametrize("name", meaning_of_absence(District))
def test_a_field_of_the_district_object(name: str) -> None:
    """R3.2: without the id it is not the district, and the pull fails."""
    sent = {"id": "d1", "name": "D", "state": "CA", "last_sync": NOW}
    found = parse_district(SingleBody(msgspec.Raw(msgspec.json.encode({key: value for key, value in sent.items() if key != name}))))
    assert (found is None) == (meaning_of_absence(District)[name] == Absent.FAILS)


@pytest.fixture
def there(twig: LiveDistrict) -> LiveDistrict:
    """A district that has been synced."""
    twig.sync(snapshot(THERE))
    return twig


def snapshot(sent: dict[Collection, list[Record]]) -> Snapshot:
    elements = ([(collection.value, {"data": each}) for each in found] for collection, found in sent.items())
    return Snapshot(odd=list(chain.from_iterable(elements)))


def without(record: Record, path: Path, *, is_null: bool) -> Record:
    """The record without the field, or with null. A district that is null would be filled in by the recorded pull."""
    changed = copy.deepcopy(dict(record))
    holder: Any = changed
    for each in path[:-1]:
        holder = holder[each]
    if path == ("district",):
        holder["district"] = ""
    elif is_null:
        holder[path[-1]] = None
    else:
        del holder[path[-1]]
    return changed


UNCHANGED = {Absent.UNREADABLE, Absent.QUARANTINED, Absent.STAYS, Absent.NO_ROLE}


def lost(district: LiveDistrict, sync_id: int) -> list[Any]:
    return [each for each in district.changes(sync_id) if each["action"] in ("soft_delete", "role_loss")]


def test_one_record_lacks_a_field(there: LiveDistrict) -> None:
    """R4.7: no account, role, class or enrollment ends. Where the record is quarantined, and where something stays, nothing changes."""
    for (struct, name), (collection, path) in CASES.items():
        first, *others = THERE[collection]
        report = there.sync(snapshot(THERE | {collection: [without(first, path, is_null=False), *others]}))
        assert not lost(there, report.sync_id), (collection, path)
        # The only role of these people is the one that was asked for.
        if meaning_of_absence(struct)[name] in UNCHANGED:
            assert not there.changes(report.sync_id), (collection, path)
        elif there.changes(report.sync_id):
            there.sync(snapshot(THERE))


def test_all_records_lack_a_field(there: LiveDistrict) -> None:
    """R4.2, R4.7: the same, or the shape has changed and the sync fails."""
    for collection, path in CASES.values():
        before = there.rows()
        try:
            report = there.sync(snapshot(THERE | {collection: [without(each, path, is_null=True) for each in THERE[collection]]}))
        except PermanentError:
            assert there.rows() == before
        else:
            assert not lost(there, report.sync_id), (collection, path)
            if there.changes(report.sync_id):
                there.sync(snapshot(THERE))
