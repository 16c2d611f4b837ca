"""A district that was recreated at Clever under a new id (R6.5)."""

from datetime import UTC, datetime
from typing import Any

import pytest

from roster_pipeline.connections.listings import reconcile_connections
from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.districts.rekey import rekey
from roster_pipeline.errors import PermanentError, UsageError
from roster_pipeline.source.protocol import Listing
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.reference.rows import Snapshot
from roster_pipeline_tests.sync.clever import clever, school, section, student, teacher

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def listed(database: Database, *clever_ids: str) -> None:
    """A listing of connected districts."""
    with database.engine.connect() as connection:
        reconcile_connections(connection, Listing(frozenset(clever_ids), 0, "ours"), now=datetime.now(UTC))
        connection.commit()


def give_new_id(district: LiveDistrict, new: str) -> None:
    """As `roster district rekey`."""
    with district.database.engine.begin() as connection:
        rekey(connection, district.clever_id, new, by="ticket 7", now=NOW)
    district.clever_id = new


def test_people_and_schools_stay_under_new_ids(database: Database) -> None:
    """R6.5: everything has a new id. The next sync is held as a whole, also under `auto_initial`; then all keep their accounts."""
    district = LiveDistrict.sign_up(database)
    here = clever(school("s1", "North"), student("p1", "ann"), teacher("p2", "dot"), section("c1", ["p1"], ["p2"]))
    there = Snapshot(
        [school("s9", "North")],
        [section("c9", ["q1"], ["q2"], at="s9")],
        [student("q1", "ann", at="s9"), teacher("q2", "dot", at="s9")],
    )
    listed(database, district.clever_id)
    district.sync(here)
    district.sync(here)
    before, old = district.state(), district.clever_id
    listed(database, "recreated")
    give_new_id(district, "recreated")
    listed(database, "recreated")
    for _ in range(2):
        report = district.sync(there)
        assert report.status == "held"
        assert [(hold.identity[0], hold.status) for hold in district.holds().values()] == [("initial", "open")]
        assert district.state() == before
    district.approve(next(iter(district.holds())))
    assert district.sync(there).status == "successful"
    after = district.state()
    assert {row.clever_id for row in after.users.values()} == {"q1", "q2"}
    assert after.users.keys() == before.users.keys()
    assert after.schools.keys() == before.schools.keys()
    assert after.roles == before.roles
    assert district.sync(there).counts["changes"] == {}
    assert district.execute("select act, given_name, facts from ops.audit where district_id = :district and act = 'rekey'") == [
        {"act": "rekey", "given_name": "ticket 7", "facts": {"before": old, "after": "recreated"}}
    ]


def test_a_district_that_a_listing_has_made_is_absorbed(database: Database) -> None:
    """R6.5, R11.7: the old token has vanished, the new one waits for its agreement. One active district is left, and stays so."""
    district = LiveDistrict.sign_up(database)
    listed(database, district.clever_id)
    listed(database, "recreated")
    give_new_id(district, "recreated")
    listed(database, "recreated")
    found: Any = district.execute("select clever_id, status from app.districts order by 1")
    assert found == [{"clever_id": "recreated", "status": "active"}]
    listed(database)
    assert district.execute("select status from app.districts") == [{"status": "disconnected"}]


def test_what_cannot_be_rekeyed(database: Database) -> None:
    """R6.5: to the id of another district with an agreement, to the same id, to something that is no id."""
    one, two = LiveDistrict.sign_up(database), LiveDistrict.sign_up(database)
    for new, error in ((two.clever_id, PermanentError), (one.clever_id, PermanentError), ("no id", UsageError)):
        with database.engine.begin() as connection, pytest.raises(error):
            rekey(connection, one.clever_id, new, by="me", now=NOW)
    with database.engine.connect() as connection:
        assert find_district(connection, one.clever_id).row["rekeyed_from"] is None
