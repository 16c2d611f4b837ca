"""R4.2: a field that every record needs and nearly none has any more."""

import pytest

from roster_pipeline.errors import PermanentError
from roster_pipeline.source.shape import refuse_vanished
from roster_pipeline.source.vocabulary import Collection


@pytest.mark.parametrize(
    ("collection", "broken", "records", "before"),
    [
        (Collection.STUDENTS, {"district_missing": 90}, 100, 100),
        (Collection.STUDENTS, {"first_name_missing": 9}, 9, 9),
        (Collection.STUDENTS, {"last_name_missing": 100}, 100, 0),
        (Collection.STUDENTS, {"name_type": 100, "email_format": 100, "id_missing": 100}, 100, 100),
        (Collection.SECTIONS, {}, 0, 100),
    ],
    ids=["nine of ten", "nine records", "no snapshot", "other rules", "an empty collection"],
)
def test_records_that_are_quarantined_one_by_one(collection: Collection, broken: dict[str, int], records: int, before: int) -> None:
    """R4.2: one bad row never stops a district, and a first snapshot has nothing that could have vanished."""
    refuse_vanished(collection, broken, records=records, before=before, district="d")


@pytest.mark.parametrize(
    ("collection", "rule"),
    [(Collection.SCHOOLS, "name_missing"), (Collection.STUDENTS, "district_missing"), (Collection.TEACHERS, "last_name_missing")],
)
def test_a_field_that_has_vanished(collection: Collection, rule: str) -> None:
    """R4.2: above nine of ten records. The error names the collection and the field."""
    with pytest.raises(PermanentError) as caught:
        refuse_vanished(collection, {rule: 91}, records=100, before=1, district="d")
    assert rule.removesuffix("_missing") in str(caught.value)
    assert f"91 of 100 {collection}" in str(caught.value)
