"""What the application sees of requests: it inserts a row and reads a page of recent syncs, and the database decides what the row is
(R11.3, R13.1)."""

from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from roster_pipeline.database.audit import os_principal
from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.fleet.requests import Queued, is_taken_up, record_tick
from roster_pipeline_tests.fleet.queue import NOW, OWNERS, PLAIN, PROCESSING, agree, answer, ask, next_up, rows, statuses
from roster_pipeline_tests.sync.scenario import DISTRICT, Scenario, scenario

GRANTS = """
    create role {0};
    grant usage on schema ops to {0};
    grant insert (district_id, requested_by, requested_role, reason) on ops.syncs to {0};
    grant select on ops.recent_syncs to {0};
"""


@pytest.fixture
def world(database: Database) -> Iterator[Scenario]:
    """A district that has never been synced, with id 1, and its Clever."""
    with scenario(database) as made:
        yield made


@pytest.fixture
def application(database: Database) -> Iterator[psycopg.Connection]:
    """A session of a role that may only insert the columns of a request and read ops.recent_syncs."""
    role = sql.Identifier(f"reader_{database.url.database}")
    url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(sql.SQL(GRANTS).format(role))
        try:
            session.execute(sql.SQL("set role {}").format(role))
            yield session
        finally:
            session.execute(sql.SQL("reset role; drop owned by {0}; drop role {0}").format(role))


HELD = "Done, except for changes that wait for a check by our support."
FAILED = "The sync did not succeed. Nothing was changed. We have been told and look into it."


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        (("scheduled", None, None, "held", "Hold 17."), ("scheduled", "schedule", HELD)),
        (("initial", None, None, "held", "Nothing was written"), ("scheduled", "schedule", "Waits for a check by our support.")),
        (("refresh", None, None, "successful", "users: 3 create."), ("scheduled", "schedule", "Done.")),
        (("scheduled", None, None, "failed", "path /v3.0/users/5f01"), ("scheduled", "schedule", FAILED)),
        (("on_demand", "support", None, "queued", None), ("on demand", "support", "Waiting to start.")),
        (("on_demand", "account_owner", "user 7", "successful", "users: 3 create."), ("on demand", "user 7", "Done.")),
        (("initial", "support", "ticket 4711", "successful", "users: 3 create."), ("on demand", "ticket 4711", "Done.")),
    ],
)  # fmt: skip
def test_the_page_of_recent_syncs(
    database: Database, application: psycopg.Connection, row: tuple[str | None, ...], shown: tuple[str, ...]
) -> None:
    """Kind, requester, status and a message without ids, for a district's admin. The role of the application may read nothing else."""
    agree(database)
    rows(
        database,
        """insert into ops.syncs (district_id, trigger, requested_role, requested_by, status, message, requested_at, finished_at)
        values (1, :trigger, :role, :by, :status, :message, :at, case when :status <> 'queued' then now() end)""",
        **dict(zip(("trigger", "role", "by", "status", "message"), row, strict=True)), at=NOW,
    )  # fmt: skip
    page = application.execute("select sync_id, district_id, date, status, kind, started_by, message from ops.recent_syncs").fetchall()
    assert page == [(1, 1, NOW, row[3], *shown)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        application.execute("select * from ops.syncs")


def test_the_application_asks_by_inserting_a_row(database: Database, application: psycopg.Connection) -> None:
    """R11.3: it may write the columns that say who requests the sync, and of which district, and no others."""
    agree(database, profile="twig_science")
    application.execute(OWNERS)
    assert next_up(database) == [Queued(1, "d1")]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        application.execute("insert into ops.syncs (district_id, status, finished_at) values (1, 'successful', now())")


def test_the_page_shows_a_crashed_sync_as_failed(database: Database, application: psycopg.Connection) -> None:
    """R11.4: to every reader, even before the row is marked. The lock of another district does not count."""
    agree(database)
    agree(database, "d2")
    rows(database, PROCESSING)
    page = "select status, message from ops.recent_syncs"
    with database.engine.connect() as connection, district_lock(connection, 1, "d1"):
        assert application.execute(page).fetchall() == [("processing", "Running.")]
    with database.engine.connect() as connection, district_lock(connection, 2, "d2"):
        assert application.execute(page).fetchall() == [("failed", FAILED)]
    assert statuses(database) == ["processing"]


def test_the_page_says_why_a_request_was_skipped(world: Scenario, application: psycopg.Connection) -> None:
    """R11.3: each reason has a message that a district's admin understands."""
    database = world.database
    world.agree(settings={"requests_per_hour": 1})
    for statement in (OWNERS, PLAIN, PLAIN):
        rows(database, statement)
    assert next_up(database) == [Queued(2, DISTRICT)]
    answer(world, 2)
    rows(database, PLAIN)
    next_up(database)
    rows(database, "update app.districts set status = 'paused'")
    rows(database, PLAIN)
    next_up(database)
    assert application.execute("select sync_id, status, message from ops.recent_syncs order by sync_id").fetchall() == [
        (1, "skipped", "Not synced: this role may not ask for a sync."),
        (2, "successful", "Done."),
        (3, "skipped", "Asked for more than once: see the sync that started."),
        (4, "skipped", "Not synced: too many requests within an hour."),
        (5, "skipped", "Not synced: syncing is switched off for this district at the moment."),
    ]


CLAIM = """
    insert into ops.syncs (district_id, requested_by, requested_role, status, trigger, message, finished_at)
    values (1, 'a person of support', 'support', 'successful', 'scheduled', 'Done.', now())
"""


def test_the_database_decides_what_a_row_of_the_application_is(database: Database, application: psycopg.Connection) -> None:
    """R13.1: not the row. It is a request of the account owner, which waits, also if the role was granted more columns than it needs."""
    agree(database)
    application.execute("reset role")
    (role,) = application.execute("select 'reader_' || current_database()").fetchone() or ("",)
    application.execute(sql.SQL("grant insert on ops.syncs to {0}").format(sql.Identifier(role)))
    application.execute(sql.SQL("set role {0}").format(sql.Identifier(role)))
    application.execute(CLAIM)
    query = "select requested_by, requested_role, status, trigger, message, finished_at, principal from ops.syncs"
    assert rows(database, query) == [("a person of support", "account_owner", "queued", "on_demand", None, None, f"app:{role}")]
    # `typing_agent`: only support may ask.
    assert next_up(database) == []
    assert rows(database, "select status, message from ops.syncs") == [
        ("skipped", "The role account_owner may not ask for a sync of this district.")
    ]


def test_a_member_of_roster_support_asks_on_behalf_of_support(database: Database, application: psycopg.Connection) -> None:
    """R13.1: the operator says which database role that is."""
    agree(database)
    (role,) = application.execute("select current_user").fetchone() or ("",)
    application.execute("reset role")
    # Roles belong to the server: made and removed in a transaction that no other test sees.
    with application.transaction(force_rollback=True):
        application.execute("create role roster_support nologin")
        application.execute(sql.SQL("grant roster_support to {0}").format(sql.Identifier(role)))
        application.execute(sql.SQL("set local role {0}").format(sql.Identifier(role)))
        application.execute(PLAIN)
        application.execute("reset role")
        found = application.execute("select requested_role, principal from ops.syncs").fetchall()
    assert found == [("support", f"app:{role}")]


def test_a_request_of_this_program_names_the_user_of_the_process(database: Database) -> None:
    """R13.1, R13.2: beside what the person said, in the row and in the audit."""
    agree(database)
    sync_id, _ = ask(database)
    ask(database)
    assert rows(database, "select requested_by, requested_role, principal from ops.syncs") == [("WHO", "support", os_principal())]
    query = "select act, given_name, reason, district_id, subject, principal from ops.audit"
    assert rows(database, query) == [("request", "WHO", "WHY", 1, f"sync {sync_id}", os_principal())]


def test_whether_requests_are_taken_up(database: Database) -> None:
    """R11.3: the daemon has looked for them within a minute, by the clock of the database."""
    with database.engine.begin() as connection:
        assert not is_taken_up(connection)
        record_tick(connection)
        assert is_taken_up(connection)
        connection.execute(sa.text("update ops.ticks set ticked_at = clock_timestamp() - interval '61 s'"))
        assert not is_taken_up(connection)
        record_tick(connection)
        assert is_taken_up(connection)
