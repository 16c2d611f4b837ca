"""Two syncs through a pooler in transaction mode: children must not get into the other district (R11.9)."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest
import sqlalchemy as sa

from benchmarks import fleet
from roster_pipeline.database.engine import Database, open_database
from roster_pipeline.errors import PermanentError, RosterError
from roster_pipeline.sandbox import Sandbox, SandboxServer
from roster_pipeline.settings import Settings
from roster_pipeline.sync.run import SyncRequest, run_sync
from roster_pipeline_tests.database.pooler import pooled

STUDENTS = 30
ROUNDS = 3


@contextmanager
def suppress_into(errors: list[RosterError]) -> Iterator[list[RosterError]]:
    """Keeps the block's error in the list."""
    try:
        yield errors
    except RosterError as error:
        errors.append(error)


@pytest.mark.parametrize("in_step", [True, False])
def test_two_syncs_never_write_into_each_others_district(database: Database, tmp_path: Path, *, in_step: bool) -> None:
    """Each sync is refused, or writes exactly its own district. In step, both wait for each other after each step of the pull."""
    sandbox = Sandbox(rate_limit=None)
    clever_ids = sorted(fleet.sign_up(database, sandbox, [STUDENTS] * 2))
    with SandboxServer(sandbox) as server, pooled(database.url, tmp_path) as url, ThreadPoolExecutor(2) as threads:
        settings = Settings(
            _env_file=None,
            roster_database_url=url.render_as_string(hide_password=False),
            clever_api_url=server.url,
            clever_auth_url=server.url,
            clever_client_id="sandbox",
            clever_client_secret="sandbox-secret",
        )
        refused = []
        for _ in range(ROUNDS):
            together = Barrier(2)

            def meet(_: Any, together: Barrier = together) -> None:
                with suppress(BrokenBarrierError):
                    if in_step:
                        together.wait(2)

            def sync(district: str, together: Barrier = together, meet: Any = meet) -> RosterError | None:
                with suppress_into(list[RosterError]()) as errors, open_database(settings) as own:
                    run_sync(own, settings, SyncRequest(district), on_step=meet)
                if errors:
                    together.abort()
                return next(iter(errors), None)

            refused += [error for error in threads.map(sync, clever_ids) if error]
    if in_step:
        assert any(isinstance(error, PermanentError) and "pooler" in str(error) for error in refused), refused
    with database.engine.connect() as connection:
        wrong = sa.text("""
            select count(*)
            from app.users
            inner join app.users as other on users.clever_id = other.clever_id and users.district_id <> other.district_id
        """)
        assert connection.execute(wrong).scalar_one() == 0
        applied = set(connection.execute(sa.text("select clever_id from app.districts join staging.districts using (clever_id)")).scalars())
    with SandboxServer(sandbox) as server:
        direct = settings.model_copy(update={"clever_api_url": server.url, "clever_auth_url": server.url})
        messages = {district: run_sync(database, direct, SyncRequest(district)).message for district in clever_ids}
    assert {district for district, message in messages.items() if message == "No changes."} == applied
