"""`roster explain`: each kind of person, found by each kind of reference, as facts and as sentences."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from roster_pipeline.brake_kinds import KINDS
from roster_pipeline.commands import environment
from roster_pipeline.commands.explain import DECISIONS, RULES, USERNAMES, explain
from roster_pipeline.database.engine import Database
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.settings import Settings
from roster_pipeline.support.explain import CHANGES_SHOWN, explain_person
from roster_pipeline.support.explanation import Ambiguous, Explanation
from roster_pipeline.support.find_person import UnknownPersonError
from roster_pipeline.sync.run import project_models
from roster_pipeline_tests.sync.scenario import DISTRICT, Scenario, scenario


@pytest.fixture
def world(database: Database) -> Iterator[Scenario]:
    with scenario(database) as opened:
        yield opened


def _explain(world: Scenario, person: str) -> Explanation:
    with world.database.engine.connect() as connection:
        found = explain_person(connection, find_district(connection, DISTRICT), person)
    assert isinstance(found, Explanation)
    return found


@pytest.fixture
def command(world: Scenario, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command on this test's database, exactly as it is called."""
    url = SecretStr(world.database.url.render_as_string(hide_password=False))
    settings = Settings(_env_file=None, roster_home=Path("/nonexistent"), roster_database_url=url)
    monkeypatch.setattr(environment, "read_settings", lambda: settings)
    return lambda *arguments: CliRunner().invoke(explain, [DISTRICT, *arguments], catch_exceptions=False)


def _says(command: Any, person: str) -> dict[str, str]:
    """Every sentence of the answer, by heading."""
    result = command(person, "--json")
    assert result.exit_code == 0
    return {heading: " ".join(sentences) for heading, sentences in json.loads(result.output)["says"].items()}


def test_a_rostered_student_by_each_reference(world: Scenario, command: Any) -> None:
    """SPEC 2: a Clever id, else a username compared like one, else a user id; the answer says which."""
    school = world.school("North")
    other = world.school("South")
    student, _ = world.students(school, 2)
    world.change.patch("users", student, "roles.student.schools", [school, other, "5f00000000000000000000ee"])
    section = world.change.add_section(school, name="class", students=[student], teachers=[])
    report = world.sync()
    user_id = world.value("select user_id from app.users where clever_id = :c", c=student)
    classroom_id = world.value("select classroom_id from app.classrooms where clever_id = :c", c=section)

    for reference, found_by in ((student, "clever_id"), (" S1 ", "username"), (str(user_id), "user_id")):
        found = _explain(world, reference)
        assert (found.found_by, found.clever_id) == (found_by, student)
        assert found.user is not None
        assert found.user.user_id == user_id
    assert found.user is not None
    assert found.shared.status == "shared"
    [role] = found.shared.roles
    assert [(each.name, each.status, each.is_primary) for each in role.schools] == [
        ("North", "rostered", True),
        ("South", "rostered", False),
        (None, "not shared", False),
    ]
    assert found.decision is not None
    assert (found.decision.decision, found.decision.rule, found.decision.username_rule) == ("create", "new", "given")
    assert [(each.role, each.school) for each in found.user.roles] == [("student", "North")]
    assert [each.classroom_id for each in found.user.classrooms] == [classroom_id]
    assert [(each.entity, each.action) for each in found.user.changes] == [
        ("users", "create"),
        ("user_roles", "role_gain"),
        ("enrollments", "create"),
    ]
    assert {(each.sync_id, each.trigger) for each in found.user.changes} == {(report.sync_id, "initial")}
    assert found.user.changes_in_all == 3
    assert found.sign_in.login == "s1@test.example"

    says = _says(command, "s1")
    assert says["Person"] == f"Fs1 Ls1 Clever id {student}, user id {user_id}; found by username"
    assert "Student at North (primary), South, 5f00000000000000000000ee (not shared)." in says["In Clever"]
    assert says["Decision"] == "Rostered as a new user (R5.4)."
    assert says["Username"].endswith("nobody else claimed it (R5.5).")
    assert says["Roles"] == "student at North, rostered from Clever"
    assert says["Classrooms"] == f"1: {classroom_id}"
    assert says["Seat"] == "Has a license."
    assert says["Sign-in"] == "By clever, password (R5.9). The login is s1@test.example."
    # If the username is spelled differently in Clever, it is still one person.
    world.execute("update app.users set username = 'S1' where clever_id = :c", c=student)
    text = command("s1").output
    assert "role gain: student at school" in text
    assert "username: s1" in text


def test_a_quarantined_person_new_and_known(world: Scenario, command: Any) -> None:
    """R4.6: the answer has the Clever id of a quarantined record, the reason, and that an existing user is left unchanged."""
    school = world.school("North")
    known, new = world.students(school, 2)
    world.change.delete_key("users", new, "name.last")
    world.sync()
    world.change.delete_key("users", known, "name.last")
    report = world.sync()

    found = _explain(world, new)
    assert found.shared.status == "quarantined"
    assert found.user is None
    assert [(each.sync_id, each.rule, each.severity) for each in found.findings] == [(report.sync_id, "last_name_missing", "error")]
    says = _says(command, new)
    assert "quarantined" in says["In Clever"]
    assert says["Decision"] == "Not rostered. Clever's record breaks a mandatory rule, and is quarantined (R4.2)."
    assert "last_name is missing or blank" in says["Problems"]
    assert says["Account"].startswith("None")
    assert says["Sign-in"] == "Not at all: there is no account."

    # A person of another district (R3.6): only the finding is known, and no decision about another person is shown.
    foreign = world.change.add_user("student", "A", "B", schools=[school])
    world.change.patch("users", foreign, "district", "5f00000000000000000000ff")
    world.sync()
    found = _explain(world, foreign)
    assert (found.shared.status, found.decision, found.user) == ("absent", None, None)
    assert [each.rule for each in found.findings] == ["foreign_district"]

    says = _says(command, "s1")
    assert "(R4.6)" in says["Decision"]
    assert "(R4.2)" in says["Decision"]
    assert says["Account"] == "Active, rostered from Clever, username s1."


def test_a_person_outside_the_agreement(world: Scenario, command: Any) -> None:
    """R6.4: the person is shared and not rostered, and the answer says why. Only Clever's record has the username."""
    world.agree(schools=[("North", None)], grades=["3"])
    inside, outside = world.school("North"), world.school("South")
    world.students(outside, 1)
    [older] = world.students(inside, 1, prefix="older")
    world.change.patch("users", older, "roles.student.grade", "9")
    world.sync()
    says = _says(command, "S1")
    assert says["Person"].endswith("found by username")
    assert "South (primary, not rostered)" in says["In Clever"]
    assert says["Decision"] == "Not rostered. The schools that Clever lists are outside the sharing agreement (R6.4)."
    assert "Username" not in says
    assert says["Account"].startswith("None")
    assert _says(command, older)["Decision"] == "Not rostered. The grade is outside the sharing agreement (R6.4)."


def test_a_relinked_and_an_adopted_person(world: Scenario, command: Any) -> None:
    """R5.2, R5.3: how the person was matched, and what the history says about it."""
    school = world.school("North")
    world.sync()
    world.execute("insert into app.users (district_id, username, first_name) values (1, 's1', 'Old')")
    world.execute("insert into app.user_roles (user_id, role, school_id) select 1, 'student', school_id from app.schools")
    [student] = world.students(school, 1)
    world.agree(settings={"brakes": {"relink_floor": 0}})
    world.sync()
    found = _explain(world, student)
    assert found.user is not None
    assert found.decision is not None
    assert (found.user.user_id, found.decision.decision) == (1, "adopt")
    assert "adopt" in {each.action for each in found.user.changes}
    assert found.user.changes[0].before is not None
    assert found.user.changes[0].before["first_name"] == "Old"
    assert "(R5.2)" in _says(command, student)["Decision"]

    # With a limit of zero relinks this one is held. Found by either id, it is one person who waits.
    [new] = world.change.re_id([student]).values()
    world.agree(settings={"brakes": {"relink_floor": 0, "relink_share": 0}})
    assert world.sync().status == "held"
    [hold] = world.holds()
    for reference in (student, new, "s1", "1"):
        found = _explain(world, reference)
        assert found.user is not None
        assert found.user.user_id == 1
        assert found.decision is not None
        assert (found.decision.clever_id, found.decision.decision, found.decision.rule) == (new, "held", "relinks")
        assert [(each.hold_id, each.kind) for each in found.holds] == [(hold[-1], "relinks")]
    says = _says(command, "1")
    assert f"Clever shares this person as {new}." in says["Decision"]
    assert f"Hold {hold[-1]} (relinks, open" in says["Waits for"]

    world.approve()
    world.sync()
    found = _explain(world, new)
    assert found.decision is not None
    assert found.decision.decision == "relink"
    assert found.user is not None
    assert found.user.changes[0].action == "relink"
    assert found.user.changes[0].before == {"clever_id": student}
    assert not found.holds
    with pytest.raises(UnknownPersonError):
        _explain(world, student)


def test_a_soft_deleted_student_and_one_held(world: Scenario, command: Any) -> None:
    """R7.1, R7.4: a student that is no longer shared and was deleted, one that is held, and the hold."""
    school = world.school("North")
    students = world.students(school, 12)
    world.change.add_section(school, name="class", students=students, teachers=[])
    world.sync()
    world.change.remove_users(students[:1])
    report = world.sync()
    found = _explain(world, "s1")
    assert found.shared.status == "absent"
    assert found.decision is None
    assert found.user is not None
    assert (found.user.deletion_reason, found.user.held_by, found.user.classrooms) == ("absent", None, [])
    assert (found.sign_in.methods, found.sign_in.login) == ([], None)
    assert (found.user.changes[0].action, found.user.changes[0].sync_id) == ("soft_delete", report.sync_id)
    says = _says(command, students[0])
    assert says["Account"].startswith("Deactivated (soft-deleted) since ")
    assert "Clever shares nobody who is recognised as this user (R7.2)." in says["Account"]
    assert says["Sign-in"] == "Not at all: the account is deactivated."

    world.change.remove_users(students[1:10])
    assert world.sync().status == "held"
    found = _explain(world, "s2")
    assert found.user is not None
    assert found.user.held_by == "school_role"
    assert [(each.kind, each.role, each.school) for each in found.holds] == [("school_role", "student", "North")]
    assert len(found.user.classrooms) == 1
    assert "stays until a person decides (R7.4)" in _says(command, "s2")["Account"]
    assert not _explain(world, "s12").holds, "a student that is still shared is not held"
    # A night later the first one is a deactivated user, and the last plan does not contain it.
    assert "Soft-deleted by the last sync" not in _says(command, "s1")["Account"]


def test_people_who_were_never_in_clever(world: Scenario, command: Any) -> None:
    """R8.1, R8.3: a protected CSV user, and one that was deactivated on purpose and is still shared."""
    school = world.school("North")
    [student] = world.students(school, 1)
    world.sync()
    world.execute(
        "insert into app.users (district_id, username, first_name, source, protected, login_methods)"
        " values (1, 'Boss', 'B', 'csv', true, '{password}')"
    )
    world.execute("update app.users set deleted_at = now(), do_not_restore = true where clever_id = :c", c=student)
    world.sync()
    found = _explain(world, "boss")
    assert (found.found_by, found.clever_id, found.decision, found.user is not None) == ("username", None, None, True)
    says = _says(command, "boss")
    assert says["In Clever"] == "Never linked to Clever."
    assert says["Account"].startswith("Active, imported from CSV, username Boss. Protected")
    assert says["Roles"] == "None."
    assert says["Sign-in"] == "By password (R5.9). The login is Boss@test.example."
    says = _says(command, student)
    assert "Support has deactivated the user on purpose (do_not_restore)" in says["Decision"]
    assert "(R8.3)" in says["Decision"]
    assert "no sync restores this user" in says["Account"]
    assert says["Sign-in"] == "Not at all: the account is deactivated."


def test_a_name_that_several_people_claim_lists_them(world: Scenario, command: Any) -> None:
    """R5.5: the command does not guess. The answer for each Clever id says why the person does not have the username."""
    school = world.school("North")
    [first] = world.students(school, 1)
    world.sync()
    user_id = world.value("select user_id from app.users where clever_id = :c", c=first)
    second = world.change.add_user("student", "Fx", "Lx", schools=[school], username="S1", grade="3")
    world.sync()
    with world.database.engine.connect() as connection:
        found = explain_person(connection, find_district(connection, DISTRICT), "s1")
    assert isinstance(found, Ambiguous)
    assert {(each.clever_id, each.is_active) for each in found.matches} == {(first, True), (second, True)}
    text = command("s1").output
    assert "2 people fit as username" in text
    assert second in text
    assert f"User {user_id} has it." in _says(command, second)["Username"]
    assert _says(command, second)["Sign-in"].startswith("Through Clever only")


def test_before_the_first_sync_is_approved(world: Scenario, command: Any) -> None:
    """R7.6: the plan is shown as a plan: no pull has been accepted, and the existing user would be soft-deleted."""
    school = world.school("North")
    [student] = world.students(school, 1)
    world.execute("insert into app.users (district_id, username) values (1, 'left')")
    assert world.sync().status == "held"
    says = _says(command, student)
    assert says["In Clever"] == "Not known: no pull of this district has been accepted yet."
    assert says["Decision"].startswith("This is planned; nothing is written")
    assert "(initial, open" in says["Waits for"]
    assert "stays until a person decides" in _says(command, "left")["Account"]


def _hold_one_person(world: Scenario, kind: str) -> tuple[str, str]:
    """Let one person fall under a hold of this kind. Returns references to this person, and to one that is not held."""
    school = world.school("North")
    first, second = world.students(school, 2)
    if kind == "initial":
        world.change.add_section(
            school, name="class", students=[first], teachers=[world.change.add_user("teacher", "T", "A", schools=[school])]
        )
        world.execute("insert into app.users (district_id, username) values (1, 'old')")
        return "old", second
    section = world.change.add_section(school, name="class", students=[first], teachers=[])
    others = world.change.add_section(school, name="other class", students=[second], teachers=[])
    world.sync()
    limits = dict.fromkeys(KINDS[kind].settings, 0)
    world.agree(settings={"brakes": limits}, licenses=2, over_license_policy="hold")
    match kind:
        case "empty_collection":
            world.change.remove_sections([section, others])
            world.change.remove_users([first])
        case "classrooms":
            world.change.remove_sections([section])
        case "enrollments":
            world.change.set_members(section, students=[])
        case "identities":
            world.change.change_username(first, "renamed")
        case "district_role" | "school_role":
            world.change.remove_users([first])
        case "relinks":
            [first] = world.change.re_id([first]).values()
        case "new_admins":
            first = world.change.add_user("district_admin", "New", "Admin")
        case "licenses":
            [first] = world.students(school, 1, prefix="third")
        case _:
            pytest.fail(f"Add a case that lets a person fall under a hold of kind {kind}.")
    return first, second


@pytest.mark.parametrize("kind", KINDS)
def test_a_hold_of_each_kind_is_found_by_the_person_it_concerns(world: Scenario, command: Any, kind: str) -> None:
    """R7.4: `BrakeKind.explains` of every kind finds its hold, and only for the people that the hold is a reason for."""
    held, other = _hold_one_person(world, kind)
    assert world.sync().status == "held"
    assert [row[0] for row in world.holds()] == [kind]
    assert [each.kind for each in _explain(world, held).holds] == [kind]
    assert f"({kind}" in _says(command, held)["Waits for"]
    # A brake holds the whole first sync, so everybody waits.
    assert [each.kind for each in _explain(world, other).holds] == (["initial"] if kind == "initial" else [])


def test_an_error_does_not_repeat_the_reference(world: Scenario) -> None:
    """SPEC 12: an unknown person is an error, and its message has nothing of what was typed; people of other districts are unknown."""
    world.school("North")
    world.sync()
    world.execute("insert into app.districts (clever_id, name) values ('other', 'Other')")
    world.execute(
        "insert into app.users (district_id, username) select district_id, 'elsewhere' from app.districts where clever_id = 'other'"
    )
    elsewhere = world.value("select user_id from app.users where username = 'elsewhere'")
    for reference in ("nobody.at.all", "elsewhere", str(elsewhere), "", "9" * 30):
        with pytest.raises(UnknownPersonError) as error:
            _explain(world, reference)
        assert error.value.exit_status == 1
        assert not reference or reference not in str(error.value)


def test_a_long_history_is_cut_and_counted(world: Scenario, command: Any) -> None:
    """The newest changes are shown first; older ones are only counted."""
    school = world.school("North")
    [student] = world.students(school, 1)
    for number in range(CHANGES_SHOWN + 3):
        world.change.add_section(school, name=f"class {number}", students=[student], teachers=[])
    world.sync()
    world.change.rename(student, first="Renamed")
    world.sync()
    found = _explain(world, student)
    assert found.user is not None
    assert found.user.changes_in_all == CHANGES_SHOWN + 6
    assert len(found.user.changes) == CHANGES_SHOWN
    assert (found.user.changes[0].action, found.user.changes[0].after) == ("update", {"first_name": "Renamed"})
    assert "And 6 older changes" in command(student).output


def test_every_code_has_a_sentence() -> None:
    """Each decision and rule that a model can write has a sentence. The codes are read from the models."""
    models = project_models().by_name

    def written(*names: str) -> set[str]:
        code = "\n".join(re.sub(r"--.*", "", models[name].sql) for name in names)
        return set(re.findall(r"(?:then|else) '(\w+)'", code))

    decided = written("reconcile.people", "reconcile.identities", "reconcile.identities_after_brakes", "reconcile.decisions")
    elsewhere = {"quarantined", "absent"}  # not the outcome of a case: in reconcile.people and reconcile.deletion_candidates
    assert decided - {"staff", "student", "rosterable"} | elsewhere == set(DECISIONS) | set(RULES)
    assert written("reconcile.usernames", "reconcile.user_matches") == set(USERNAMES)
