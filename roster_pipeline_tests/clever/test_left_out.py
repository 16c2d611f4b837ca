"""Fields of API v3.1 that the pipeline does not read: each has a reason.

Does not belong here: what is read (`test_decode.py`).
"""

import re
from pathlib import Path

import msgspec
import pytest

from roster_pipeline.clever.records import LEFT_OUT, record_type
from roster_pipeline.source.vocabulary import Collection

# The customer's notes on Clever's API, where they are beside the project. A fresh clone has none.
NOTES = Path(__file__).parents[3] / "shared" / "CLEVER_API.md"


def test_what_is_left_out_is_not_read() -> None:
    """R3.4: with every setting that makes a decoder read more."""
    students = msgspec.json.schema(record_type(Collection.STUDENTS, keep_student_email=True, prefer_name=True))
    sections = msgspec.json.schema(record_type(Collection.SECTIONS, keep_student_email=True, prefer_name=True))
    read = {name for schema in (students, sections) for each in schema["$defs"].values() for name in each.get("properties", ())}
    assert {"preferred_name", "grade", "teachers"} <= read
    assert not read & {name for fields in LEFT_OUT.values() for name in fields}


@pytest.mark.skipif(not NOTES.exists(), reason="the notes on Clever's API are not here")
def test_every_field_of_v3_1_is_read_or_left_out_with_a_reason() -> None:
    """R3.4: the notes list what v3.1 adds."""
    (added,) = re.findall(r"^\* v3\.1 adds,.*?(?=^\* )", NOTES.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    fields = set(re.findall(r"`([a-z]\w*_\w+|disability)(?:\{[^`]*\})?`", added))
    assert len(fields) > 10
    assert fields == {"preferred_name"} | {name for names in LEFT_OUT.values() for name in names}
