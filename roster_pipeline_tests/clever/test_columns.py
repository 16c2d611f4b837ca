"""Clever's records become the columns of their contract, one row per record, with ids as text."""

import re

from hypothesis import given
from hypothesis import strategies as st

from roster_pipeline.clever.columns import array_literal, flatten
from roster_pipeline.clever.records import Credentials, Name, Roles, StaffRole, StudentRole, TeacherRole, User
from roster_pipeline.source.vocabulary import Collection


@given(st.none() | st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=4), max_size=4))
def test_ids_become_an_array_literal_that_reads_back(ids: list[str] | None) -> None:
    """A malformed id cannot break out of its element."""
    literal = array_literal(ids)
    if ids is None:
        assert literal is None
        return
    assert literal is not None
    elements = re.findall(r'"((?:[^"\\]|\\.)*)"', literal, re.DOTALL)
    assert [re.sub(r"\\(.)", r"\1", element, flags=re.DOTALL) for element in elements] == ids
    assert re.fullmatch(r'\{("(?:[^"\\]|\\.)*"(,"(?:[^"\\]|\\.)*")*)?\}', literal, re.DOTALL)


def test_one_row_per_person_whatever_the_roles() -> None:
    """R5.8: the lists of schools show which roles there are. The username comes from the first role that has one."""
    roles = Roles(teacher=TeacherRole(school="s1", schools=["s1", "s2"], sis_id="7"), staff=StaffRole(["s3"], Credentials("admin")))
    row = flatten(Collection.STAFF, [User(id="a1", name=Name("A", None, "B"), roles=roles)]).to_pylist()[0]
    assert row["student_schools"] is None
    assert row["teacher_schools"] == '{"s1","s2"}'
    assert row["staff_schools"] == '{"s3"}'
    assert (row["school"], row["sis_id"], row["username"], row["is_district_admin"]) == ("s1", "7", "admin", False)


def test_a_blank_value_of_one_role_is_taken_from_the_next() -> None:
    """R4.5, R5.8: blank is no value. The value comes from the first role that has one."""
    student = StudentRole(school="s1", schools=["s1"], sis_id=" ", state_id="\t", credentials=Credentials(" "))
    teacher = TeacherRole(school="s1", schools=["s1"], sis_id="7", state_id="8", credentials=Credentials("t.name"))
    both = User(id="a1", name=Name("A", None, "B"), roles=Roles(student=student, teacher=teacher))
    (row,) = flatten(Collection.STUDENTS, [both]).to_pylist()
    assert (row["username"], row["sis_id"], row["state_id"]) == ("t.name", "7", "8")
