"""R13.2: `ops.audit` only grows."""

import pytest
import sqlalchemy as sa
from sqlalchemy import text

from roster_pipeline.database.audit import os_principal, record_act
from roster_pipeline.database.engine import Database


def test_an_act_is_recorded_with_the_user_of_the_process(database: Database) -> None:
    """R13.1."""
    with database.engine.begin() as connection:
        audit_id = record_act(connection, "import", given_name="Ann", subject="admins.csv", facts={"created": 2})
        row = connection.execute(
            text("select act, principal, given_name, subject, facts from ops.audit where audit_id = :id"), {"id": audit_id}
        )
        assert tuple(row.one()) == ("import", os_principal(), "Ann", "admins.csv", {"created": 2})


def test_a_blank_name_is_refused(database: Database) -> None:
    with database.engine.begin() as connection, pytest.raises(sa.exc.IntegrityError, match="given_name"):
        record_act(connection, "import", given_name="  ")


@pytest.mark.parametrize("statement", ["update ops.audit set act = 'x'", "delete from ops.audit", "truncate ops.audit cascade"])
def test_no_row_is_changed_or_removed(database: Database, statement: str) -> None:
    """R13.2: the owner of the table is refused too."""
    with database.engine.begin() as connection:
        record_act(connection, "import")
    with database.engine.begin() as connection, pytest.raises(sa.exc.ProgrammingError, match="only grows"):
        connection.execute(text(statement))
