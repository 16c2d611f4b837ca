"""The reference model has every column of `app`, and random people have every value.

Does not belong here: that the pipeline and the model agree (`test_model.py`).
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roster_pipeline.database.migrate import known_tables
from roster_pipeline_tests.reference.records import read_person
from roster_pipeline_tests.reference.rows import Classroom, Enrollment, Role, Rules, School, User
from roster_pipeline_tests.reference.test_model import profile
from roster_pipeline_tests.reference.world import CleverSide

# Columns that no row of the model has, and why.
EVERYWHERE = {"district_id": "a state is of one district", "updated_at": "every update sets it to the time of the sync"}
CREATED = {"created_at": "decides nothing: only the seats of users are in its order (R9.2)"}
LEFT_OUT: Mapping[str, tuple[type, Mapping[str, str]]] = {
    "schools": (School, {**EVERYWHERE, **CREATED, "school_id": "the key of the row"}),
    "classrooms": (Classroom, {**EVERYWHERE, **CREATED, "classroom_id": "the key of the row"}),
    "users": (User, {**EVERYWHERE, "user_id": "the key of the row", "username_key": "made by the database from the username"}),
    "user_roles": (Role, {**EVERYWHERE, **CREATED, **dict.fromkeys(("user_id", "role", "school_id"), "in the key of the row")}),
    "enrollments": (Enrollment, {**EVERYWHERE, **CREATED, **dict.fromkeys(("classroom_id", "user_id", "role"), "in the key of the row")}),
}
RULES = Rules("district", student_email=True, student_multi_school=True, login_methods=("clever",))


@pytest.mark.parametrize("table", LEFT_OUT)
def test_the_model_has_every_column(table: str) -> None:
    """R7.2: a column that the model does not have is not compared with the pipeline."""
    row, left_out = LEFT_OUT[table]
    columns, modelled = set(known_tables()[f"app.{table}"]), {each.name for each in fields(row)}
    missing = columns - modelled - left_out.keys()
    assert not missing, (
        f"reference/rows.py, {row.__name__}, lacks {sorted(missing)} of app.{table}. Or name them in LEFT_OUT, with the reason."
    )
    assert modelled <= columns
    assert left_out.keys() <= columns - modelled


def test_random_people_have_every_value() -> None:
    """In random histories, each value of a person is sometimes there, and people differ in it. Otherwise nothing of it is compared."""
    found: dict[str, set[Any]] = {}

    @profile
    @given(data=st.data())
    def collect(data: st.DataObject) -> None:
        side, draw = CleverSide(), cast("st.DrawFn", data.draw)
        side.change(draw, calm=1)
        for record in side.snapshot().users:
            for name, value in read_person(record, RULES).values.items():
                found.setdefault(name, set()).add(value)

    collect()
    lacking = sorted(name for name, values in found.items() if len(values) < 2)
    assert not lacking, f"reference/world.py (_user_record) never draws a second value of {lacking}."
