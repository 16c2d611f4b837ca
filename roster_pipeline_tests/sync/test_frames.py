"""One page becomes one validated frame: R4.2, R4.5, R4.6, without a database."""

import re
import unicodedata
from collections.abc import Sequence

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roster_pipeline.clever.columns import flatten
from roster_pipeline.clever.records import Name, Record, Roles, School, Section, StudentRole, User
from roster_pipeline.source.vocabulary import Collection, Finding
from roster_pipeline.sync.frames import Frame, clean_text, frame_of


def framed(collection: Collection, records: Sequence[Record], findings: Sequence[Finding]) -> Frame:
    """The frame of a page of Clever's records."""
    return frame_of(collection, flatten(collection, records), findings)


def _naive_clean(text: str) -> str | None:
    """R4.5, character by character."""
    text = re.sub("\r\n|[\t\n\v\f\r\x85\u2028\u2029]", " ", text)
    text = "".join(each for each in text if unicodedata.category(each) != "Cc")
    text = unicodedata.normalize("NFC", text)
    return text.strip() or None


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), max_size=6))
def test_text_is_cleaned_as_the_rule_says(texts: list[str]) -> None:
    """R4.5, compared with a naive model. All other characters of names stay."""
    # Libraries disagree whether these separators are white space. No name has them.
    texts = [text.translate({0x1C: None, 0x1D: None, 0x1E: None, 0x1F: None}) for text in texts]
    assert clean_text(pyarrow.array(texts, pyarrow.string())).to_pylist() == [_naive_clean(text) for text in texts]


def test_a_broken_optional_value_is_dropped_and_its_row_stays() -> None:
    """R4.2: a finding of severity `warn`, named by column and rule."""
    good = User(id="a1", name=Name("A", None, "B"), email="a@b.c", roles=Roles(student=StudentRole(school="s1", schools=["s1"], grade="3")))
    bad = User(id="a2", name=Name("A", None, "B"), email="no address", last_modified="2021-02-30T00:00:00Z")
    frame = framed(Collection.TEACHERS, [good, bad], [])
    rows = frame.table.to_pylist()
    assert [row["email"] for row in rows] == ["a@b.c", None]
    assert [row["last_modified"] for row in rows] == [None, None]
    assert [row["rejected"] for row in rows] == [False, False]
    assert set(frame.findings) == {Finding("a2", "email_format", "warn"), Finding("a2", "last_modified_format", "warn")}


@pytest.mark.parametrize("blank", [None, "", "  ", "\t", "\u00a0", "\x00"])
def test_a_blank_mandatory_value_quarantines_the_row_and_keeps_only_its_id(blank: str | None) -> None:
    """R4.2, R4.6: a rejected row has only its id."""
    broken = User(id="a1", name=Name(blank, "M", "B"), email="a@b.c", roles=Roles(student=StudentRole(school="s1", schools=["s1"])))
    frame = framed(Collection.STUDENTS, [broken, User(id="a2", name=Name("A", None, "B"))], [])
    first, second = frame.table.to_pylist()
    assert {name: value for name, value in first.items() if value is not None} == {"clever_id": "a1", "rejected": True}
    assert not second["rejected"]
    assert frame.findings == [Finding("a1", "first_name_missing", "error")]


def test_records_that_the_decoder_rejected_count_as_present() -> None:
    """R4.6; a record of another district does not (R3.6)."""
    found = [Finding("x1", "name_type", "error"), Finding("x2", "foreign_district", "error"), Finding("s1", "number_type", "warn")]
    frame = framed(Collection.SCHOOLS, [School(id="s1", name="School")], found)
    assert [(row["clever_id"], row["rejected"]) for row in frame.table.to_pylist()] == [("s1", False), ("x1", True)]
    assert frame.findings == found


def test_a_malformed_id_is_not_quoted() -> None:
    """SPEC 12: the value in the place of an id could be anything."""
    frame = framed(Collection.SCHOOLS, [School(id="Jane Doe", name="School")], [])
    assert frame.findings == [Finding("", "clever_id_format", "error")]
    assert "Jane" not in str(frame.table.to_pylist())


def test_a_page_with_only_broken_rows() -> None:
    """R4.2: bad rows never stop a district, neither one nor a thousand."""
    records = [Section(id=f"c{each}", name=None, school="s1", students=[], teachers=[]) for each in range(1_000)]
    frame = framed(Collection.SECTIONS, records, [])
    assert frame.table["rejected"].to_pylist() == [True] * 1_000
    assert len(frame.findings) == 1_000
