"""What a dry run needs: a role that can only read can plan (SPEC 2).

Does not belong here: that a dry run changes nothing (`test_parameters.py`), and the rights of the application
(`fleet/test_application_requests.py`).
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from roster_pipeline.database.engine import Database
from roster_pipeline.support.preview import preview_sync
from roster_pipeline_tests.sync.scenario import DISTRICT, Scenario, scenario

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"


def documented_grants() -> str:
    """The block of SQL in the docs that makes the role."""
    blocks: list[str] = re.findall(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [each for each in blocks if "create role roster_reader" in each]
    return block


@pytest.fixture
def world(database: Database) -> Iterator[Scenario]:
    with scenario(database) as made:
        made.students(made.school("A"), 3)
        yield made


@pytest.fixture
def reader(database: Database) -> Iterator[Database]:
    """The same database, used by a role with nothing but the documented grants."""
    name = f"reader_{database.url.database}"
    grants = documented_grants().replace("roster_reader", name).replace("database application", f"database {database.url.database}")
    grants = grants.replace(f"{name} login", name)
    engine = sa.create_engine(database.url, connect_args={"cursor_factory": psycopg.ClientCursor})

    @sa.event.listens_for(engine, "connect")
    def become_reader(connection: Any, _record: Any) -> None:
        connection.execute(f"set role {name}")
        connection.commit()

    with database.engine.begin() as connection:
        connection.exec_driver_sql(grants)
    try:
        yield replace(database, engine=engine)
    finally:
        engine.dispose()
        with database.engine.begin() as connection:
            connection.exec_driver_sql(f"drop owned by {name}; drop role {name}")


def test_a_role_that_reads_can_plan(world: Scenario, reader: Database) -> None:
    """SPEC 2: before the first sync and after one, with new people to count. It may draw no id, write no table and make no sync."""

    def planned() -> object:
        return preview_sync(reader, world.settings, DISTRICT, clock=world.clock).plan.changes["users"]

    assert planned() == {"create": 3}
    world.sync()
    world.students(world.school("B"), 2)
    assert planned() == {"create": 2}
    with reader.engine.connect() as connection, pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
        connection.exec_driver_sql("select nextval('app.users_user_id_seq')")
    with reader.engine.connect() as connection, pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
        connection.exec_driver_sql("delete from ops.syncs")
