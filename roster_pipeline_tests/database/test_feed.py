"""The feed of syncs that wrote (R17.3): each once, in one order, whatever runs at once.

Does not belong here: what the application does with it (docs/application.md), and which syncs write.
"""

import random
import re
import select
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import FEED_LOCK
from roster_pipeline.fleet.retention import prune_history
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, student

DISTRICTS, ROUNDS = 8, 6
DOCS = Path(__file__).parents[2] / "docs" / "application.md"


def url(database: Database) -> str:
    return database.url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def session(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url(database), autocommit=True) as opened:
        yield opened


def numbers(session: psycopg.Connection, after: int = 0) -> list[int]:
    return [row[0] for row in session.execute("select applied_no from ops.feed_since(%s)", (after,)).fetchall()]


class Reader(threading.Thread):
    """Polls every 5 ms, keeps the last number that it has seen, and is killed and started again at random."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.restarts = 0
        self.ended = threading.Event()
        self._address = address
        self._random = random.Random(17)

    def run(self) -> None:
        while not self.ended.is_set():
            with psycopg.connect(self._address, autocommit=True) as session:
                while self._random.random() > 0.05 and not self.ended.is_set():
                    self._poll(session)
                    time.sleep(0.005)
            self.restarts += 1
        with psycopg.connect(self._address, autocommit=True) as session:
            self._poll(session)

    def _poll(self, session: psycopg.Connection) -> None:
        self.seen += numbers(session, self.seen[-1] if self.seen else 0)


def test_each_sync_once_and_in_one_order(database: Database) -> None:
    """R17.3: eight districts sync at once, several times, while a reader follows."""
    live = [LiveDistrict.sign_up(database) for _ in range(DISTRICTS)]
    engines = [sa.create_engine(database.url, connect_args={"cursor_factory": psycopg.ClientCursor}) for _ in live]
    for district, engine in zip(live, engines, strict=True):
        district.database = replace(database, engine=engine)
    reader = Reader(url(database))
    reader.start()
    try:
        with ThreadPoolExecutor(DISTRICTS) as pool:
            for number in range(ROUNDS):
                # Every second round writes nothing in half of the districts.
                people = [clever(*(student(f"p{each}") for each in range(number if odd or number % 2 else number - 1))) for odd in range(2)]
                jobs = [pool.submit(district.sync, people[place % 2]) for place, district in enumerate(live)]
                for job in jobs:
                    job.result(120)
    finally:
        reader.ended.set()
        reader.join(30)
        for engine in engines:
            engine.dispose()
    with database.engine.connect() as connection:
        wrote = set(connection.exec_driver_sql("select sync_id from ops.syncs where is_applied and counts -> 'changes' <> '{}'").scalars())
        fed = connection.exec_driver_sql("select applied_no, sync_id from ops.feed order by 1").all()
    assert {row.sync_id for row in fed} == wrote
    assert len(fed) == len(wrote) > DISTRICTS
    assert reader.seen == [row.applied_no for row in fed]
    assert reader.restarts > 0


def test_no_number_is_given_while_another_cannot_be_seen(database: Database, session: psycopg.Connection) -> None:
    """R17.3: otherwise a reader could pass a lower number that is committed later."""
    sync_ids = [session.execute("insert into ops.syncs (requested_by) values ('x') returning sync_id").fetchone() for _ in range(3)]
    give = "select ops.number_applied(%s, %s)"
    with psycopg.connect(url(database)) as first:
        first.execute(give, (*(sync_ids[0] or ()), FEED_LOCK))
        session.execute("set lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            session.execute(give, (*(sync_ids[1] or ()), FEED_LOCK))
        assert numbers(session) == []
        first.rollback()
    session.execute(give, (*(sync_ids[2] or ()), FEED_LOCK))
    assert numbers(session) == [2], "the number of a transaction that was rolled back is not given again"


def test_one_notification_for_each_sync_that_wrote(database: Database, session: psycopg.Connection) -> None:
    """R17.3: its payload is the number. A sync without changes, and one that fails, sends none."""
    session.execute("listen roster_sync")
    district = LiveDistrict.sign_up(database)
    for people in ([student("p1")], [student("p1")], [student("p1"), student("p2")]):
        district.sync(clever(*people))
    heard = []
    while select.select([session.fileno()], [], [], 1.0)[0]:
        heard += [each.payload for each in session.notifies(timeout=0.1)]
    assert heard == [str(each) for each in numbers(session)]
    assert len(heard) == 2


def test_from_before_the_oldest_sync(database: Database, session: psycopg.Connection) -> None:
    """R17.3: an error and not a hole. The position is from which a reader can begin again."""
    district = LiveDistrict.sign_up(database)
    for count in range(1, 5):
        district.sync(clever(*(student(f"p{number}") for number in range(count))))
    assert numbers(session) == [1, 2, 3, 4]
    session.execute("update ops.syncs set finished_at = now() - interval '1000 days' where applied_no <= 2")
    prune_history(database, keep_syncs_days=400, keep_changes_days=90, now=datetime.now(UTC))
    for before in (0, 1, None):
        with pytest.raises(psycopg.Error, match="feed_gap"):
            session.execute("select * from ops.feed_since(%s)", (before,))
    assert numbers(session, 2) == [3, 4]
    assert session.execute("select ops.feed_position()").fetchone() == (4,)
    assert numbers(session, 4) == []


def test_the_documented_sql(database: Database, session: psycopg.Connection) -> None:
    """docs/application.md: the application's role can follow the feed with what it is granted, and no more."""
    text = DOCS.read_text(encoding="utf-8").partition("## Follow the syncs")[2].partition("\n## ")[0]
    grants, begin, follow = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    role = f"feed_{database.url.database}"
    session.execute(f"create role {role}")
    try:
        session.execute(grants.replace("application", role))
        LiveDistrict.sign_up(database).sync(clever(student("p1")))
        session.execute(f"set role {role}")
        session.execute(begin.partition("commit;")[0])
        session.execute("commit")
        rows = session.execute(follow.replace(":last_seen", "0")).fetchall()
        assert {row[2] for row in rows} >= {"users", "schools"}
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("select * from ops.syncs")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("select ops.number_applied(1, 1)")
    finally:
        session.execute(f"reset role; drop owned by {role}; drop role {role}")
