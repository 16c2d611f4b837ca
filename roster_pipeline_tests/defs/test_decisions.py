"""What a run reports about decisions: each brake as a check, and counts by decision at the assets of `reconcile` and `app`."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from roster_pipeline.brake_kinds import KINDS
from roster_pipeline.commands import explain
from roster_pipeline.database.engine import Database
from roster_pipeline.definitions import defs
from roster_pipeline.defs import report
from roster_pipeline.defs.sync import CHECKS
from roster_pipeline.districts.agreement import Agreement, record_agreement
from roster_pipeline.sandbox import Sandbox
from roster_pipeline.support import holds
from roster_pipeline_tests.defs.runs import check, check_numbers, numbers, records, run

WARN = dg.AssetCheckSeverity.WARN


@pytest.fixture
def dagster(environment: None) -> Iterator[dg.DagsterInstance]:
    """An instance in memory: these tests do not read Dagster's database."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def rows(database: Database, query: str, **parameters: Any) -> list[Any]:
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query), parameters)]


def approve_all(database: Database) -> None:
    with database.engine.begin() as connection:
        waiting = [hold["hold_id"] for hold in holds.list_holds(connection)]
        holds.approve(connection, waiting, holds.Decider("tester"), now=datetime.now(UTC))


def agree(database: Database, clever_id: str, **agreement: Any) -> None:
    with database.engine.begin() as connection:
        record_agreement(connection, Agreement(clever_id, "Test district", "typing_agent", "test.example.org", **agreement))


def test_every_kind_of_hold_is_a_check() -> None:
    """R7.3, R7.6, R9.2: one per kind, at the asset that says what would be done if nothing were held."""
    checks = {
        key.name.removeprefix("brake_"): key.asset_key.to_user_string()
        for key in defs.resolve_asset_graph().asset_check_keys
        if key.name.startswith("brake_")
    }
    assert checks == {kind.name: kind.asset.replace(".", "/") for kind in KINDS.values()}
    assert set(checks.values()) == {
        "reconcile/held_enrollments",
        "reconcile/soft_deletes",
        "reconcile/user_matches",
        "reconcile/license_reconciliation",
    }


def test_a_held_district_until_it_is_approved(dagster: dg.DagsterInstance, database: Database, sandbox: Sandbox, clever_id: str) -> None:
    """R7.3-R7.5: the run succeeds, and the check shows the hold. After the approval the check passes and shows the released acts. The sync
    after that has no acts."""
    assert run(dagster, clever_id).success
    sandbox.change().remove_users(sandbox.district().shared("users", "student")[:30])
    held = run(dagster, clever_id)
    assert held.success
    assert rows(database, "select status from ops.syncs order by sync_id") == [("successful",), ("held",)]

    found = check(held, "brake_district_role")
    assert (found.passed, found.severity, found.partition) == (False, WARN, clever_id)
    brake = check_numbers(held, "brake_district_role")
    assert {name: brake[name] for name in ("holds", "acts", "limit", "active")} == {"holds": 1, "acts": 30, "limit": 10, "active": 60}
    assert "roster approve HOLD --by WHO" in brake["next"]
    [(hold_id,)] = rows(database, "select hold_id from ops.holds where kind = 'district_role'")
    [record] = records(brake["brakes"])
    assert record == {
        "school_id": None,
        "role": "student",
        "collection": None,
        "acts": 30,
        "limit": 10,
        "active": 60,
        "status": "open",
        "hold_id": hold_id,
    }

    schools = check_numbers(held, "brake_school_role")
    in_force = rows(
        database, "select school_id, (counts ->> 'acts')::int, hold_id from ops.holds where kind = 'school_role' order by hold_id"
    )
    listed = [each for each in records(schools["brakes"]) if each["status"] == "open"]
    assert sorted((each["school_id"], each["acts"], each["hold_id"]) for each in listed) == sorted(in_force)
    assert schools["holds"] == len(in_force) > 1
    shares = [each["acts"] / each["limit"] for each in listed]
    assert shares == sorted(shares, reverse=True)
    assert schools["acts"] == listed[0]["acts"]

    approve_all(database)
    released = run(dagster, clever_id)
    assert check(released, "brake_district_role").passed
    brake = check_numbers(released, "brake_district_role")
    assert (brake["holds"], brake["acts"], brake["limit"]) == (0, 30, 10)
    assert [(each["status"], each["hold_id"]) for each in records(brake["brakes"])] == [("approved", hold_id)]
    assert "next" not in brake
    assert numbers(released, "app/users")["soft_delete"] == 30

    afterwards = run(dagster, clever_id)
    assert check(afterwards, "brake_district_role").passed
    assert check_numbers(afterwards, "brake_district_role") == {"holds": 0, "acts": 0}


def test_a_brake_below_its_limit_shows_its_acts(dagster: dg.DagsterInstance, database: Database, sandbox: Sandbox, clever_id: str) -> None:
    """R7.3: acts and limit in whole people, of the brake that is nearest to its limit. There is one row, not one for each school."""
    assert run(dagster, clever_id).success
    agree(database, clever_id, settings={"brakes": {"role_share": 0.21, "school_floor": 0, "school_share": 0.99}})
    sandbox.change().remove_users(sandbox.district().shared("users", "student")[:4])
    result = run(dagster, clever_id)
    assert check(result, "brake_district_role").passed
    brake = check_numbers(result, "brake_district_role")
    # 21 % of 60 is 12.6.
    assert (brake["holds"], brake["acts"], brake["limit"], brake["active"]) == (0, 4, 12, 60)
    [record] = records(brake["brakes"])
    assert (record["role"], record["status"], record["hold_id"]) == ("student", "passes", None)
    assert "next" not in brake
    assert len(records(check_numbers(result, "brake_school_role")["brakes"])) == 1


def test_relinks_and_new_admins(dagster: dg.DagsterInstance, database: Database, sandbox: Sandbox, clever_id: str) -> None:
    """R7.3: they are shown at the asset of the matches. A held decision is counted as `held`."""
    assert run(dagster, clever_id).success
    change, students = sandbox.change(), sandbox.district().shared("users", "student")
    change.re_id(
        [each for each in students if rows(database, "select 1 from app.users where clever_id = :id and username <> clever_id", id=each)]
    )
    for number in range(5):
        change.add_user("district_admin", "New", f"Admin{number}")
    result = run(dagster, clever_id)
    for kind in ("relinks", "new_admins"):
        [(acts, limit, hold_id)] = rows(
            database, "select (counts ->> 'acts')::int, (counts ->> 'limit')::float, hold_id from ops.holds where kind = :kind", kind=kind
        )
        brake = check_numbers(result, f"brake_{kind}")
        assert (brake["holds"], brake["acts"], brake["limit"]) == (1, acts, int(limit))
        assert [each["hold_id"] for each in records(brake["brakes"])] == [hold_id]
        assert not check(result, f"brake_{kind}").passed
    matches = numbers(result, "reconcile/user_matches")
    assert matches["held"] == matches["held: relinks"] > 25
    assert matches["relink"] == 0


def test_an_empty_collection_is_named(dagster: dg.DagsterInstance, sandbox: Sandbox, clever_id: str) -> None:
    """R7.3: it has no limit, and the table names the collection."""
    assert run(dagster, clever_id).success
    sandbox.change().remove_sections(list(sandbox.district().shared("sections")))
    result = run(dagster, clever_id)
    brake = check_numbers(result, "brake_empty_collection")
    assert "limit" not in brake
    assert [(each["collection"], each["limit"]) for each in records(brake["brakes"])] == [("sections", None)]
    assert not check(result, "brake_empty_collection").passed


@pytest.mark.parametrize("policy", ["warn", "wait", "hold"])
def test_licenses(dagster: dg.DagsterInstance, database: Database, clever_id: str, policy: str) -> None:
    """R9.1, R9.2: the district's seats are numbers. With the policy `hold` the check fails and names the hold."""
    agree(database, clever_id, licenses=50, over_license_policy=policy)
    result = run(dagster, clever_id)
    seats = numbers(result, "reconcile/license_reconciliation")
    [(licenses, used, waiting, held, is_over)] = rows(
        database, "select licenses, used, without_seat, held, is_over from reconcile.license_reconciliation where scope = 'district'"
    )
    expected = {"licenses": licenses, "used": used, "licensed": used - waiting, "waiting": waiting, "held": held, "is_over": int(is_over)}
    assert {name: seats[name] for name in expected} == expected
    assert (seats["licenses"], seats["used"] + seats["held"], seats["is_over"], seats["schools_over"]) == (50, 60, 1, 0)
    assert (seats["waiting"], seats["held"]) == {"warn": (0, 0), "wait": (10, 0), "hold": (0, 10)}[policy]
    [record] = records(seats["seats"])
    assert (record["scope"], record["used"]) == ("district", used)
    brake = check_numbers(result, "brake_licenses")
    assert (brake["holds"], brake["acts"]) == ((1, 10) if policy == "hold" else (0, 0))
    if policy == "hold":
        assert [(each["hold_id"],) for each in records(brake["brakes"])] == rows(database, "select hold_id from ops.holds")


def test_counts_are_those_of_the_tables(dagster: dg.DagsterInstance, database: Database, sandbox: Sandbox, clever_id: str) -> None:
    """SPEC 2, SPEC 12: of decisions, soft deletes and readiness. Zeros are reported too, and no school is named."""
    assert run(dagster, clever_id).success
    agree(database, clever_id, settings={"brakes": {"school_floor": 1000}})
    change, district = sandbox.change(), sandbox.district()
    change.remove_users([*district.shared("users", "student")[:30], *district.shared("users", "teacher")[:1]])
    change.remove_sections(list(district.shared("sections"))[:1])
    change.add_user("district_admin", "New", "Admin")
    result = run(dagster, clever_id)

    matches = numbers(result, "reconcile/user_matches")
    by_decision = dict(rows(database, "select decision, count(*) from reconcile.user_matches group by 1"))
    assert {each: matches[each] for each in report.DECISIONS} == dict.fromkeys(report.DECISIONS, 0) | by_decision
    by_rule = rows(database, "select decision, rule, count(*) from reconcile.user_matches group by 1, 2")
    assert all(matches[f"{decision}: {rule}"] == count for decision, rule, count in by_rule)
    assert sorted(tuple(each.values()) for each in records(matches["decisions"])) == sorted(by_rule)

    removed = numbers(result, "reconcile/soft_deletes")
    for entity in ("users", "schools", "classrooms"):
        [(deleted, held)] = rows(
            database,
            "select count(*) filter (where held_by is null), count(held_by) from reconcile.soft_deletes where entity = :entity",
            entity=entity,
        )
        assert (removed[f"{entity}: soft_delete"], removed[f"{entity}: held"]) == (deleted, held)
    assert (removed["student: held"], removed["student: soft_delete"]) == (30, 0)
    teachers = """
        select count(distinct roles.user_id) from ops.changes roles join ops.changes users using (sync_id, user_id)
        where roles.action = 'role_loss' and roles.entity_id like '%:teacher:%' and users.action = 'soft_delete' and users.entity = 'users'
    """
    assert [(removed["teacher: soft_delete"],)] == rows(database, teachers) == [(1,)]
    assert removed["teacher: held"] == 0
    reasons = rows(database, "select entity, reason, held_by, count(*) from reconcile.soft_deletes group by 1, 2, 3")
    assert sorted(map(str, reasons)) == sorted(str(tuple(each.values())) for each in records(removed["removed"]))

    readiness = numbers(result, "reconcile/readiness")
    items = rows(database, "select topic, item, count from reconcile.readiness where item not like 'school %'")
    assert {f"{topic}: {item}": count for topic, item, count in items}.items() <= readiness.items()
    assert len(records(readiness["report"])) == len(items) > 50

    users = numbers(result, "app/users")
    written = dict(
        rows(database, "select action, count(*) from ops.changes where entity = 'users' and sync_id = :id group by 1", id=users["sync_id"])
    )
    assert {each: users[each] for each in report.ACTIONS["users"]} == dict.fromkeys(report.ACTIONS["users"], 0) | written
    assert users["restore"] == 0 < users["create"]

    names = [name for (name,) in rows(database, "select name from staging.schools")]
    texts = str([each.metadata for each in result.asset_materializations_for_node("sync")]) + str(
        list(result.get_asset_check_evaluations())
    )
    assert [name for name in names if name in texts] == []


def test_a_long_table_shows_a_sample() -> None:
    """A district with a thousand schools can have a hold for each. The number of holds is still reported."""
    brakes = [
        {"kind": "school_role", "school_id": each, "role": "student", "acts": each, "active": 100, "limit": 20.5} for each in range(1000)
    ]
    (shown,) = [each for each in CHECKS if each.name == "brake_school_role"]
    result = shown.result({"held": [{**each, "status": "open", "hold_id": 1} for each in brakes], "passed": []})
    table = result.metadata["brakes"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [each["school_id"] for each in records(table)] == list(range(999, 999 - report.SHOWN_ROWS, -1))
    assert (result.metadata["holds"].value, result.metadata["acts"].value) == (1000, 999)


def test_every_decision_and_action_has_a_number(database: Database) -> None:
    """Also if it is zero, or the plot of a district would have gaps."""
    assert set(report.DECISIONS) == explain.DECISIONS.keys()
    [(constraint,)] = rows(
        database,
        "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'ops.changes'::regclass and conname = 'changes_action_check'",
    )
    actions = {action for each in report.ACTIONS.values() for action in each}
    assert actions == set(constraint.split("'")[1::2])


@pytest.mark.parametrize("job", ["sync_district", "__ASSET_JOB"])
def test_no_way_around_a_brake(dagster: dg.DagsterInstance, database: Database, sandbox: Sandbox, clever_id: str, job: str) -> None:
    """R7.3-R7.5: no subset of the assets can be launched, with or without its checks. A full run holds, in every job."""
    assert run(dagster, clever_id).success
    sandbox.change().remove_users(sandbox.district().shared("users", "student")[:30])
    whole = defs.resolve_job_def(job)
    assets = set(whole.asset_layer.executable_asset_keys)
    written = {each for each in assets if each.path[0] == "app"}
    for selection in (written, {dg.AssetKey(["app", "users"])}, assets - {dg.AssetKey(["reconcile", "soft_deletes"])}):
        with pytest.raises(dg.DagsterInvalidSubsetError, match="does not support subsetting"):
            whole.execute_in_process(partition_key=clever_id, instance=dagster, asset_selection=sorted(selection))
    with pytest.raises(dg.DagsterInvalidSubsetError, match="does not support subsetting"):
        whole.get_subset(asset_selection=assets, asset_check_selection=set())
    assert rows(database, "select count(*) from ops.syncs") == [(1,)]

    assert run(dagster, clever_id, job=job).success
    assert rows(database, "select status from ops.syncs order by sync_id desc limit 1") == [("held",)]
    students = "select count(*) from app.users u join app.user_roles r using (user_id) where r.role = 'student' and u.deleted_at is null"
    assert rows(database, students) == [(60,)]
