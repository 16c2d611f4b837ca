"""R7.6: which sync is the first, what it may not do, and that a permission for it is used up by it."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from roster_pipeline.database.engine import Database
from roster_pipeline_tests.reference.driver import LiveDistrict, leaves_unchanged
from roster_pipeline_tests.sync.clever import clever, section, student, teacher
from roster_pipeline_tests.sync.rows import approve_open, new_user
from roster_pipeline_tests.sync.scenario import Scenario, scenario

EVERYTHING = clever(section("c1", ["p1"], ["t1"]), student("p1", "ann"), teacher("t1", "bea"))


def open_holds(district: LiveDistrict) -> list[tuple[str, str | None]]:
    return [(hold.identity[0], hold.identity[3]) for hold in district.holds().values() if hold.status == "open"]


@pytest.fixture
def world(database: Database) -> Iterator[Scenario]:
    with scenario(database) as made:
        yield made


@pytest.mark.parametrize("auto_initial", [True, False])
def test_a_district_that_shares_nothing_yet_loses_nothing(world: Scenario, auto_initial: bool) -> None:
    """R7.6: Clever answers 200 with empty collections. Everybody who is there stays active, also under `auto_initial`, until it shares."""
    world.agree(settings={"auto_initial": auto_initial})
    world.execute(
        "insert into app.users (district_id, username, first_name, last_name) select 1, 'u' || n, 'F', 'L' from generate_series(1, 50) n"
    )
    users = "select *, xmin::text from app.users order by user_id"
    before = world.rows(users)
    for _ in range(2):
        report = world.sync()
        assert report.status == "held"
        assert "empty_collection" in report.message
    assert world.rows(users) == before
    assert world.rows("select distinct is_applied from ops.syncs") == [(False,)]
    assert world.rows("select count(*) from staging.districts") == [(0,)]
    kinds = [kind for (kind,) in world.rows("select kind from ops.holds where status = 'open'")]
    assert sorted(kinds) == ["empty_collection"] * 4 + ["initial"] * (not auto_initial)


@pytest.mark.parametrize("missing", ["sections", "students", "teachers"])
def test_each_of_the_four_collections_counts(district: LiveDistrict, missing: str) -> None:
    """R7.6: under `auto_initial` it is enough that one of them is empty. Without schools nothing can be shared: the test above has it."""
    new_user(district, "old")
    records: list[Any] = [student("p1", "ann"), teacher("t1", "bea"), section("c1")]
    left = [each for each, kind in zip(records, ("students", "teachers", "sections"), strict=True) if kind != missing]
    with leaves_unchanged(district):
        assert district.sync(clever(*left)).status == "held"
    assert open_holds(district) == [("empty_collection", missing)]
    assert district.sync(EVERYTHING).status == "successful"
    assert open_holds(district) == []


def test_an_empty_first_snapshot_runs_if_there_is_nothing_to_lose(district: LiveDistrict) -> None:
    """R7.6: protected people are not lost, and admins need not be shared."""
    new_user(district, "old", role=None, protected=True)
    assert district.sync(clever()).status == "successful"
    assert open_holds(district) == []


def test_an_approval_releases_what_is_missing_at_first(district: LiveDistrict) -> None:
    """R7.6, R7.5: a district may well have no sections. Support decides, and then it is applied."""
    new_user(district, "old")
    snapshot = clever(student("p1", "ann"), teacher("t1", "bea"))
    assert district.sync(snapshot).status == "held"
    approve_open(district)
    assert district.sync(snapshot).status == "successful"
    assert {hold.status for hold in district.holds().values()} == {"used"}
    assert district.execute("select deleted_at is null as active from app.users where username = 'old'") == [{"active": False}]


@pytest.mark.parametrize("emptied", ["staging.districts", "staging.users", "ops.syncs"])
def test_no_table_that_somebody_empties_makes_a_sync_the_first(district: LiveDistrict, emptied: str) -> None:
    """R7.6: neither the last snapshot nor the history of syncs alone. The ordinary brakes hold what a partial answer would delete."""
    people = [student(f"p{each}", f"u{each}") for each in range(30)]
    snapshot = clever(section("c1", ["p1"], ["t1"]), teacher("t1", "bea"), *people)
    assert district.sync(snapshot).status == "successful"
    district.agree(settings={"auto_initial": True, "brakes": {"role_floor": 10, "school_floor": 10}})
    with district.database.engine.begin() as connection:
        connection.execute(text(f"truncate {emptied} cascade"))
    report = district.sync(clever(section("c1", ["p1"], ["t1"]), teacher("t1", "bea"), *people[:5]))
    assert report.status == "held"
    assert {"district_role", "school_role"} <= {kind for kind, _ in open_holds(district)}
    assert district.execute("select count(*) as n from app.users where deleted_at is null") == [{"n": 31}]


def test_a_held_first_sync_is_not_an_applied_one(district: LiveDistrict) -> None:
    """R7.6: the sync after it is still the first. A sync that is held in part has been applied."""
    district.agree(settings={"auto_initial": False}, licenses=0, over_license_policy="hold")
    new_user(district, "old")
    assert district.sync(EVERYTHING).status == "held"
    approve_open(district)
    assert district.sync(EVERYTHING).status == "held"  # licenses
    assert district.sync(EVERYTHING).status == "held"
    syncs = district.execute("select trigger, is_applied from ops.syncs where district_id = :district order by sync_id")
    assert [tuple(row.values()) for row in syncs] == [("initial", False), ("initial", True), ("on_demand", True)]


def test_syncs_of_an_older_release_count(district: LiveDistrict) -> None:
    """R7.6: an upgrade makes no synced district a new one. A held first sync of that time is recognised by its hold."""
    counts = '{"held": [{"kind": "%s", "acts": 3}], "changes": {}}'
    rows = [("successful", "{}"), ("held", counts % "district_role"), ("held", counts % "initial"), ("failed", "{}"), ("skipped", "{}")]
    for status, stored in rows:
        district.execute(
            "insert into ops.syncs (district_id, status, finished_at, counts) values (:district, :status, now(), cast(:counts as jsonb))",
            status=status,
            counts=stored,
        )
    assert [row["is_applied"] for row in district.execute("select is_applied from ops.syncs order by sync_id")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_the_permission_is_used_up_by_the_first_applied_sync(district: LiveDistrict) -> None:
    """R7.6, R13.2: `auto_initial` is off afterwards, and `ops.audit` says since when. Until then it stays on."""
    new_user(district, "old")
    setting = "select settings ->> 'auto_initial' as auto, updated_at from app.districts where district_id = :district"
    before = district.execute(setting)[0]
    assert district.sync(clever()).status == "held"
    assert district.execute(setting)[0] == before == {**before, "auto": "true"}
    report = district.sync(EVERYTHING)
    assert district.execute(setting)[0] == {**before, "auto": "false"}
    assert district.execute("select act, principal, subject from ops.audit where act <> 'sync'") == [
        {"act": "settings", "principal": f"sync:{report.sync_id}", "subject": "auto_initial"}
    ]
    district.sync(EVERYTHING)
    assert len(district.execute("select from ops.audit where act <> 'sync'")) == 1


def test_it_is_used_up_if_it_was_given_too_late(district: LiveDistrict) -> None:
    """R7.6: given to a synced district, it does not wait for a day on which the district looks new."""
    district.sync(EVERYTHING)
    district.agree(settings={"auto_initial": True})
    district.sync(EVERYTHING)
    assert district.execute("select settings -> 'auto_initial' as auto from app.districts") == [{"auto": False}]
