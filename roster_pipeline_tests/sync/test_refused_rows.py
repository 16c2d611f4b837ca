"""What the server refuses in a sync: the message names the table and the record, and never a value (R4.9, SPEC 12)."""

import pyarrow
import pytest
from psycopg import sql

from roster_pipeline.database.copying import copy_rows
from roster_pipeline.database.engine import Database, psycopg_connection, translate_database_errors
from roster_pipeline.database.migrate import known_tables
from roster_pipeline.database.offending import FIRST_COLUMNS
from roster_pipeline.errors import PermanentError
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, section, student, teacher

MARKER = "Zebulon"


def test_the_first_columns_are_those_of_the_tables() -> None:
    assert {name: known_tables()[name][: len(columns)] for name, columns in FIRST_COLUMNS.items()} == FIRST_COLUMNS


@pytest.mark.parametrize("is_new", [True, False], ids=["create", "update"])
def test_a_check_of_the_application(district: LiveDistrict, *, is_new: bool) -> None:
    """The application's own constraint refuses one of many people."""
    others = [student(f"p{number}", f"user{number}") for number in range(20)]
    district.sync(clever(*others, *([] if is_new else [student("p30", "zeb")])))
    district.execute(f"alter table app.users add constraint own_check check (first_name <> '{MARKER}')")
    with pytest.raises(PermanentError) as caught:
        district.sync(clever(*others, student("p30", "zeb", name=f"{MARKER} Li")))
    assert "table app.users, constraint own_check," in caught.value.reason
    assert "clever_id p30" in caught.value.reason
    assert MARKER not in str(caught.value)
    assert "zeb" not in str(caught.value)


def test_a_column_of_the_application_without_a_default(district: LiveDistrict) -> None:
    """23502: the ids of the first row that has no value."""
    district.execute("alter table app.enrollments add column seat integer check (seat is not null)")
    with pytest.raises(PermanentError) as caught:
        district.sync(clever(student("p1", "ann"), teacher("p2", "ben"), section("c1", ["p1"], ["p2"])))
    assert "table app.enrollments" in caught.value.reason
    assert "classroom_id " in caught.value.reason
    assert "user_id " in caught.value.reason


def test_a_column_that_the_application_made_shorter(district: LiveDistrict) -> None:
    """22001: the server names no row, so the message names the step only."""
    district.execute("alter table app.users alter column last_name type varchar(3)")
    with pytest.raises(PermanentError) as caught:
        district.sync(clever(student("p1", "ann", name=f"Ana {MARKER}")))
    assert "SQLSTATE 22001, step app.users" in caught.value.reason
    assert MARKER not in str(caught.value)


def test_a_username_is_never_named(district: LiveDistrict) -> None:
    """SPEC 12: of a key, only ids."""
    insert = f"insert into app.users (district_id, username) values ({district.district_id}, '{MARKER}')"
    district.execute(insert)
    with pytest.raises(PermanentError) as caught, translate_database_errors(), district.database.engine.connect() as connection:
        connection.exec_driver_sql(insert)
    assert "constraint users_one_active_username" in caught.value.reason
    assert MARKER.casefold() not in str(caught.value).casefold()


def test_a_line_of_copy_is_named_by_its_record(empty_database: Database) -> None:
    """R4.9: it cannot happen with pages of a pull. If it does, the record is named."""
    rows = pyarrow.table({"clever_id": ["a1", "a2", "a3"], "grade": ["1", MARKER, "3"]})
    with empty_database.engine.connect() as connection:
        driver = psycopg_connection(connection)
        driver.execute("create temporary table landed (clever_id text, grade integer)")
        with pytest.raises(PermanentError) as caught, translate_database_errors():
            copy_rows(driver, sql.Identifier("pg_temp", "landed"), rows)
    assert "SQLSTATE 22P02" in caught.value.reason
    assert "record a2" in caught.value.reason
    assert MARKER not in str(caught.value)
