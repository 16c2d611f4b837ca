"""The readiness report (SPEC 10): every number compared with a second count, and every verdict."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from roster_pipeline.commands import readiness as command
from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import Agreement, record_agreement
from roster_pipeline.sandbox import Sandbox, SandboxServer, generate_district
from roster_pipeline.settings import Settings
from roster_pipeline.support.preview import preview_sync
from roster_pipeline.support.readiness import QUESTIONS, Answer, answers
from roster_pipeline_tests.sync.scenario import DISTRICT, Scenario, scenario


@pytest.fixture
def world(database: Database) -> Iterator[Scenario]:
    with scenario(database) as opened:
        yield opened


Rows = dict[tuple[str, str], tuple[int, str | None]]


def _rows(readiness: Any) -> Rows:
    return {(row["topic"], row["item"]): (row["count"], row["detail"]) for row in readiness}


def _counts(rows: Rows, topic: str) -> dict[str, int]:
    """The items of a topic whose count is not zero."""
    return {item: count for (each, item), (count, _) in rows.items() if each == topic and count}


def _answers(world: Scenario) -> dict[str, Answer]:
    return {each.topic: each for each in answers(world.plan())}


def _existing(world: Scenario, username: str, *, role: str | None = "student", **columns: Any) -> int:
    """A user of the application from before Clever, at a school `Old`."""
    values = {"username": username, "first_name": "E", "last_name": "E", **columns}
    names = ", ".join(values)
    world.execute(
        f"insert into app.users (district_id, {names}) values (1, {', '.join(f':{name}' for name in values)})",
        **values,
    )
    user_id = int(world.value("select max(user_id) from app.users"))
    if role is not None:
        world.execute("insert into app.schools (district_id, name) select 1, 'Old' where not exists (select 1 from app.schools)")
        world.execute(
            "insert into app.user_roles (user_id, role, school_id) select :u, :r, min(school_id) from app.schools", u=user_id, r=role
        )
    return user_id


def test_schools_against_the_agreement(world: Scenario) -> None:
    """R6.4: agreed and shared, not shared, outside, two of one name; by Clever id before name. Schools are named."""
    ids = {name: world.school(name) for name in ("North", "South", "Moved", "Extra")}
    world.school("south ")
    world.change.delete_key("schools", world.school("Broken"), "name")
    world.agree(schools=[("NORTH", None), ("South", None), ("Renamed", None), ("Closed", None)])
    world.execute("update app.agreed_schools set clever_id = :c where name = 'Renamed'", c=ids["Moved"])
    rows = _rows(world.plan().readiness)
    assert _counts(rows, "schools") == {
        **{"agreed": 4, "shared": 5, "agreed_and_shared": 3, "agreed_not_shared": 1},
        **{"outside": 1, "same_name": 1, "quarantined": 1},
    }
    assert rows["schools", "agreed_not_shared"] == (1, "Closed")
    assert rows["schools", "outside"] == (1, "Extra")
    assert rows["schools", "same_name"] == (1, "South (2)")
    assert _answers(world)["schools"].verdict == "warning"


def test_classrooms_people_and_students_listed_twice(world: Scenario) -> None:
    """R6.1, R6.3, R6.4, R5.8: each section and each person is counted once, under the decision about them."""
    world.agree(schools=[("North", None), ("Empty", None)], grades=["3"])
    north, _, south = world.school("North"), world.school("Empty"), world.school("South")
    students = world.students(north, 5)
    outside = world.students(south, 2, prefix="o")
    older = world.change.add_user("student", "A", "B", schools=[north], username="older", grade="9")
    world.change.add_user("student", "A", "B", schools=[north], grade="3")
    world.change.add_user("teacher", "A", "B", schools=[], username="lost")
    world.change.add_user("teacher", "A", "B", schools=[north])
    world.change.add_user("staff", "A", "B", schools=[north, south], username="head")
    both = world.change.add_user("staff", "A", "B", schools=[north])
    world.change.set_roles(both, {**world.district.get("users", both)["roles"], "district_admin": {}})
    world.change.add_user("district_admin", "A", "B")
    world.change.delete_key("users", world.students(north, 1, prefix="q")[0], "name.first")
    world.change.patch("users", students[0], "roles.student.schools", [north, south])
    world.change.patch("users", outside[0], "roles.student.schools", [south, "5f00000000000000000000ee"])
    for name in ("one", "two"):
        world.change.add_section(north, name=name, students=[*students[:2], older], teachers=[])
    world.change.add_section(north, name="three", students=students[2:3], teachers=[])
    world.change.add_section(south, name="four", students=outside, teachers=[])
    world.change.add_section("5f00000000000000000000ee", name="five", students=[], teachers=[])
    world.change.delete_key("sections", world.change.add_section(north, name="six", students=[], teachers=[]), "name")

    rows = _rows(world.plan().readiness)
    assert _counts(rows, "classrooms") == {
        "shared": 5,
        "rostered": 3,
        "unknown_school": 1,
        "outside": 1,
        "quarantined": 1,
        "schools_without": 1,
    }
    assert rows["classrooms", "schools_without"] == (1, "Empty")
    # 5 + 1 without a username + 1 teacher + 3 admins are rostered.
    assert _counts(rows, "people") == {
        "shared": 15,
        "rostered": 10,
        "outside_school": 2,
        "outside_grade": 1,
        "no_role": 1,
        "quarantined": 1,
    }
    assert rows["without_username", "non_admins"] == (2, "28.6 % of 7")
    assert _counts(rows, "admins") == {"people": 3, "district_admins": 2, "school_admins": 2}
    assert rows["several_schools", "students"] == (1, None), "of those who are rostered"
    assert rows["several_classrooms", "students"] == (2, None)


def test_existing_users_and_the_plan_for_them(world: Scenario) -> None:
    """R5.2, R7.6, R8.1: existing users, and usernames that match, differ or collide; the sync then does what the report says."""
    north = world.school("North")
    match = _existing(world, "s1")
    _existing(world, "s2", deleted_at="2026-01-01")
    _existing(world, "nobody")
    _existing(world, "t1", role="student")
    _existing(world, "s3", role=None, source="csv", protected=True)
    _existing(world, "left", deleted_at="2026-01-01")
    students = world.students(north, 5)
    teacher = world.change.add_user("teacher", "T", "T", schools=[north], username="t1")
    twins = [world.change.add_user("student", "T", "T", schools=[north], username=name, grade="3") for name in ("same", "SAME")]
    # Two people claim the username of a user that would be soft-deleted. Once that is approved, none of them has it.
    _existing(world, "claimed", role="teacher")
    twins += [world.change.add_user("student", "T", "T", schools=[north], username="claimed", grade="3") for _ in range(2)]
    world.change.add_section(north, name="class", students=[*students, *twins], teachers=[teacher])
    world.execute("insert into app.classrooms (district_id, school_id, name) select 1, min(school_id), 'old' from app.schools")
    world.execute(
        "insert into app.enrollments (classroom_id, user_id, role) select 1, user_id, 'student' from app.users where deleted_at is null"
    )

    rows = _rows(world.plan().readiness)
    assert _counts(rows, "existing_users") == {"active": 5, "deleted": 2, "csv": 1, "app": 4, "protected": 1, "unlinked": 4}
    # t1 is a student here and a teacher in Clever, who gets the username; s3 is protected; two pairs of people collide with each other.
    assert _counts(rows, "usernames") == {"match": 2, "new": 8, "not_recognised": 4, "taken": 1, "contested": 4}
    assert _counts(rows, "existing_data") == {
        **{"users_soft_deleted": 3, "schools_soft_deleted": 1, "classrooms_soft_deleted": 1, "enrollments_soft_deleted": 5},
        **{"users_adopted": 2, "users_restored": 1},
    }
    assert rows["existing_data", "schools_soft_deleted"] == (1, "Old")
    answered = _answers(world)
    assert answered["usernames"].verdict == "warning"
    assert answered["existing_data"].verdict == "stop"
    assert "hold (initial)" in answered["existing_data"].notes[0].text

    assert world.sync().status == "held"
    kept = world.rows("select topic, item, count, detail from reconcile.readiness")
    assert {(topic, item): (count, detail) for topic, item, count, detail in kept} == rows, "the held sync leaves the same report"
    world.approve()
    assert world.sync().status == "successful"
    done = dict(world.rows("select entity || ' ' || action, count(*) from ops.changes group by 1"))
    assert {entity: done[f"{entity} soft_delete"] for entity in ("users", "schools", "classrooms", "enrollments")} == {
        entity: rows["existing_data", f"{entity}_soft_deleted"][0] for entity in ("users", "schools", "classrooms", "enrollments")
    }
    assert done["users adopt"] == rows["existing_data", "users_adopted"][0]
    assert world.value("select deleted_at is null and clever_id is not null from app.users where user_id = :u", u=match)

    rows = _rows(world.plan().readiness)
    assert not _counts(rows, "existing_data")
    assert _counts(rows, "usernames") == {"linked": 10, "taken": 1, "contested": 4}
    world.change.change_username(students[4], "another")
    assert _counts(_rows(world.plan().readiness), "usernames")["differs"] == 1


def test_usernames_that_match_nobody_are_a_reason_to_stop(world: Scenario) -> None:
    """SPEC 10: every existing account would be deactivated, usually because usernames are spelled differently."""
    world.students(world.school("North"), 2)
    _existing(world, "s1@test.example")
    notes = _answers(world)["usernames"].notes
    assert [(each.verdict, "No existing user would be recognised" in each.text) for each in notes] == [("stop", True)]
    _existing(world, "s2")
    assert not _answers(world)["usernames"].notes


@pytest.mark.parametrize(("bought", "over", "free"), [(3, 1, 0), (4, 0, 0), (5, 0, 1), (None, 0, 0)])
def test_licenses_below_at_and_above(world: Scenario, bought: int | None, over: int, free: int) -> None:
    """R9.1: students in scope and licenses, of the district and of schools that have their own; a user to be deleted does not count."""
    world.agree(licenses=bought, schools=[("North", 3), ("South", 1)])
    world.students(world.school("North"), 2, prefix="n")
    world.students(world.school("South"), 2, prefix="s")
    world.students(world.school("Outside"), 2, prefix="o")
    _existing(world, "left")
    report = world.plan()
    rows = _rows(report.readiness)
    found = {item: rows["licenses", item][0] for item in ("bought", "students", "over", "free", "held", "schools_over")}
    assert found == {"bought": bought or 0, "students": 4, "over": over, "free": free, "held": 0, "schools_over": 1}
    assert rows["licenses", "bought"][1] == ("no limit" if bought is None else None)
    assert rows["licenses", "schools_over"][1] == "South (students: 2, licenses: 1)"
    own = {detail: count for (topic, item), (count, detail) in rows.items() if topic == "licenses" and item.startswith("school ")}
    assert own == {"North (licenses: 3)": 2, "South (licenses: 1)": 2}


@pytest.mark.parametrize(("policy", "verdict"), [("warn", "warning"), ("wait", "warning"), ("hold", "stop")])
def test_what_too_few_licenses_mean(world: Scenario, policy: str, verdict: str) -> None:
    """R9.2: the policy decides whether the students beyond the licenses are rostered."""
    world.agree(licenses=1, over_license_policy=policy)
    world.students(world.school("North"), 2)
    answer = _answers(world)["licenses"]
    assert (answer.verdict, [each.verdict for each in answer.notes]) == (verdict, [verdict])
    world.agree(licenses=2)
    assert _answers(world)["licenses"].verdict == "ok"


def test_nothing_shared_is_a_reason_to_stop(world: Scenario) -> None:
    """SPEC 10: no school, no classroom, nobody; or none of the agreed schools."""
    answered = _answers(world)
    assert {topic for topic, each in answered.items() if each.verdict == "stop"} == {"schools", "classrooms", "people"}
    world.students(world.school("North"), 1)
    world.agree(schools=[("South", None)])
    assert [each.text for each in _answers(world)["schools"].notes] == ["None of the agreed schools is shared: nothing would be rostered."]


def test_a_held_brake_does_not_hide_what_would_be_soft_deleted(world: Scenario) -> None:
    """R7.4: the report counts as if there were no brakes, and says that a sync would hold this."""
    north = world.school("North")
    students = world.students(north, 20)
    world.change.add_section(north, name="class", students=students, teachers=[])
    world.sync()
    world.change.remove_users(students[:8])
    rows = _rows(world.plan().readiness)
    assert _counts(rows, "existing_data") == {"users_soft_deleted": 8, "enrollments_soft_deleted": 8}
    assert (rows["licenses", "students"][0], rows["licenses", "held"][0]) == (12, 8)
    answer = _answers(world)["existing_data"]
    assert answer.verdict == "stop"
    assert "school_role, student, North (8)" in answer.notes[0].text


def test_a_generated_district_counted_from_its_records(database: Database) -> None:
    """SPEC 10: Python counts the same numbers from Clever's records; this profile allows several schools."""
    district = generate_district(7, 300)
    records = {kind: [district.get(kind, key) for key in district.shared(kind)] for kind in ("schools", "sections", "users")}
    known = {each["id"] for each in records["schools"]}
    with SandboxServer(Sandbox(district)) as server:
        settings = Settings(
            _env_file=None,
            clever_api_url=server.url,
            clever_auth_url=server.url,
            clever_client_id="sandbox",
            clever_client_secret=SecretStr("sandbox-secret"),
        )
        with database.engine.begin() as connection:
            record_agreement(connection, Agreement(district.id, "D", "twig_science", "d.example"))
        rows = _rows(preview_sync(database, settings, district.id).readiness)

    people = [
        each
        for each in records["users"]
        if "district_admin" in each["roles"] or any({*role.get("schools", ())} & known for role in each["roles"].values())
    ]
    admins = [each for each in people if set(each["roles"]) & {"staff", "district_admin"}]
    others = [each for each in people if each not in admins]
    plain = [each for each in others if not any(role.get("credentials", {}).get("district_username") for role in each["roles"].values())]
    students = {each["id"]: each["roles"]["student"] for each in people if "student" in each["roles"]}
    listed = Counter(
        student for section in records["sections"] for student in {*section["students"]} & students.keys() if section["school"] in known
    )
    assert rows["schools", "shared"][0] == len(known)
    assert rows["classrooms", "shared"][0] == len(records["sections"])
    assert rows["people", "rostered"][0] == len(people)
    assert rows["licenses", "students"][0] == len(students)
    assert rows["admins", "people"][0] == len(admins)
    assert rows["without_username", "non_admins"] == (len(plain), f"{100 * len(plain) / len(others):.1f} % of {len(others)}")
    assert rows["several_schools", "students"][0] == sum(len({*each["schools"]}) > 1 for each in students.values()) > 0
    assert rows["several_classrooms", "students"][0] == sum(times > 1 for times in listed.values()) > 0


def test_the_questions_are_those_of_the_model(world: Scenario) -> None:
    """Every topic and item of the model has a text, and every text has an item, also with other data."""
    world.students(world.school("North"), 1)
    found = {(row["topic"], row["item"]) for row in world.plan().readiness}
    assert found == {(topic, item) for topic, question in QUESTIONS.items() for item in question.items}


def test_the_command(world: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 2, SPEC 12: text or one JSON document; exit status 3 if a sync would be held; no names of people, and nothing is written."""
    url = SecretStr(world.database.url.render_as_string(hide_password=False))
    settings = world.settings.model_copy(update={"roster_database_url": url, "roster_home": Path("/nonexistent")})
    monkeypatch.setattr(command, "read_settings", lambda: settings)
    world.agree(schools=[("North", None), ("Closed", None)])
    world.change.add_user("student", "Marker-First", "Marker-Last", schools=[world.school("North")], username="marker-name", grade="3")

    def run(*options: str) -> Any:
        return CliRunner().invoke(command.readiness, [DISTRICT, *options], catch_exceptions=False)

    result = run()
    assert result.exit_code == 0
    assert "[warning] Do the shared schools match the agreement?" in result.stdout
    assert "! Agreed, but not shared: 1 (Closed)" in result.stdout
    assert "[ok] Are the licenses enough?\n    Licenses bought: no limit" in result.stdout
    assert "Students and teachers who could only sign in through Clever: 0 (0.0 % of 1)" in result.stdout
    _existing(world, "somebody", role=None)
    result = run("--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert (document["verdict"], document["would_be_held"]) == ("stop", ["empty_collection", "empty_collection", "initial"])
    assert [each["topic"] for each in document["questions"]] == list(QUESTIONS)
    assert "marker" not in run().output.lower()
    assert not world.rows("select 1 from reconcile.readiness union all select 1 from ops.syncs union all select 1 from ops.holds")
