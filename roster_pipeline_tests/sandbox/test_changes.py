"""A change of a district shows in Clever's answers: in every list of the record, and nowhere else."""

from typing import Any

import pytest

from roster_pipeline.errors import UsageError
from roster_pipeline.sandbox import Sandbox, generate_district
from roster_pipeline.sandbox.changes import Changes
from roster_pipeline.sandbox.control import CHANGES

from .client import Client


def user(clever: Client, key: str) -> dict[str, Any]:
    """A user, as the server returns it."""
    answer = clever.get(f"/v3.0/users/{key}")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()["data"]
    return found


def students(clever: Client) -> list[str]:
    """Ids of the students, as the server returns them."""
    return [str(item["id"]) for item in clever.walk("/v3.0/users?role=student")]


def sections_of(clever: Client, key: str) -> set[str]:
    """Ids of the sections that list a user."""
    return {str(item["id"]) for item in clever.walk("/v3.0/sections") if key in [*item["students"], *item["teachers"]]}


def test_changes_set_last_modified_and_last_sync(clever: Client) -> None:
    """R3.7: every change makes `last_sync` later, even if changes follow each other quickly."""
    change = clever.sandbox.change()
    one, other = students(clever)[:2]
    before = user(clever, other)
    syncs = [clever.district.record["last_sync"]]
    for first in ("Ada", "Grace"):
        change.rename(one, first=first)
        syncs.append(clever.get(f"/v3.0/districts/{clever.district.id}").json()["data"]["last_sync"])
        assert user(clever, one)["last_modified"] == syncs[-1]
    assert syncs == sorted(set(syncs))
    assert user(clever, one)["name"]["first"] == "Grace"
    assert user(clever, other) == before


def test_two_changes_never_have_the_same_timestamp() -> None:
    """R3.8: the newest `last_modified` wins, so there must be a newest one, even if the clock does not advance."""
    sandbox = Sandbox(generate_district(3, 10), clock=lambda: 2e9)
    syncs = []
    for _ in range(3):
        sandbox.change().rename(sandbox.district().shared("users", "student")[0], first="Ada")
        syncs.append(sandbox.district().record["last_sync"])
    assert syncs == [f"2033-05-18T03:33:20.00{number}Z" for number in range(3)]


def test_cached_pages_do_not_outlive_a_change(clever: Client) -> None:
    """The list has the same values as the object."""
    key = students(clever)[0]
    clever.sandbox.change().rename(key, last="Changed")
    assert next(item for item in clever.walk("/v3.0/users?role=student") if item["id"] == key)["name"]["last"] == "Changed"


def test_usernames_change_and_swap(clever: Client) -> None:
    """R5.6."""
    change = clever.sandbox.change()
    one, other = students(clever)[:2]
    change.change_username(one, "first.name")
    change.change_username(other, "second.name")
    change.swap_usernames(one, other)
    names = [user(clever, key)["roles"]["student"]["credentials"]["district_username"] for key in (one, other)]
    assert names == ["second.name", "first.name"]


def test_moved_student_gets_as_many_sections_of_the_new_school(clever: Client) -> None:
    """R6.3: the primary school, the list of schools and the sections all change."""
    schools = clever.district.shared("schools")
    key = next(key for key in students(clever) if user(clever, key)["roles"]["student"]["schools"] == [schools[0]])
    before = sections_of(clever, key)
    clever.sandbox.change().move_students({key: schools[1]})
    assert user(clever, key)["roles"]["student"]["schools"] == [schools[1]]
    assert user(clever, key)["roles"]["student"]["school"] == schools[1]
    after = sections_of(clever, key)
    assert before
    assert before.isdisjoint(after)
    assert len(after) == min(len(before), len(clever.walk(f"/v3.0/schools/{schools[1]}/sections")))
    assert {clever.district.get("sections", section)["school"] for section in after} == {schools[1]}


def test_set_roles_moves_a_user_between_lists(clever: Client) -> None:
    """R5.8."""
    key = str(clever.walk("/v3.0/users?role=staff")[-1]["id"])
    clever.sandbox.change().set_roles(key, {"district_admin": {"title": ""}})
    assert key not in [item["id"] for item in clever.walk("/v3.0/users?role=staff")]
    assert key in [item["id"] for item in clever.walk("/v3.0/users?role=district_admin")]


def test_new_id_everywhere(clever: Client) -> None:
    """R5.3: users, sections and contacts have the new id instead of the old one. Nothing else about the person changes."""
    key = next(key for key in students(clever) if sections_of(clever, key))
    before, sections = user(clever, key), sections_of(clever, key)
    [new] = clever.sandbox.change().re_id([key]).values()
    assert clever.get(f"/v3.0/users/{key}").status_code == 404
    after = user(clever, new)
    stamps = ("id", "created", "last_modified")
    assert {name: value for name, value in after.items() if name not in stamps} == {
        name: value for name, value in before.items() if name not in stamps
    }
    assert sections_of(clever, new) == sections
    assert sections_of(clever, key) == set()
    assert len(clever.walk(f"/v3.0/users/{new}/mycontacts")) == 1
    assert students(clever)[-1] == new  # ids are ascending in the order of creation


def test_teacher_with_a_new_id_stays_the_primary_teacher(clever: Client) -> None:
    """R6.2: teacher == teachers[0], always."""
    section = clever.walk("/v3.0/sections")[0]
    old = section["teacher"]
    assert isinstance(old, str)
    new = clever.sandbox.change().re_id([old])[old]
    assert clever.district.get("sections", str(section["id"]))["teacher"] == new
    for item in clever.walk("/v3.0/sections"):
        assert item["teacher"] == item["teachers"][0]


def test_unsharing_a_school_hides_it_with_everything_that_is_only_there(clever: Client) -> None:
    """R6.1, R7.1: people with another shared school stay. Sharing does not change `last_sync`. Shared again, all ids are the same."""
    school = clever.district.shared("schools")[1]  # one of its teachers is a district admin too, and has to stay
    before = {path: clever.walk(path) for path in ("/v3.0/schools", "/v3.0/sections", "/v3.0/users")}
    last_sync = clever.district.record["last_sync"]
    clever.sandbox.change().unshare([school])
    assert clever.get(f"/v3.0/schools/{school}").status_code == 404
    assert all(item["school"] != school for item in clever.walk("/v3.0/sections"))
    shown = {str(item["id"]) for item in clever.walk("/v3.0/users")}
    hidden: set[str] = set()
    visible: set[str] = set()
    for item in before["/v3.0/users"]:
        roles: dict[str, Any] = item["roles"]
        if "contact" in roles:  # hidden with its student; the students come before their contacts in this list
            [relation] = roles["contact"]["student_relationships"]
            is_hidden = relation["student"] in hidden
        else:
            own_schools = {own for role in roles.values() for own in role.get("schools", [])}
            is_hidden = own_schools == {school} and "district_admin" not in roles
        (hidden if is_hidden else visible).add(str(item["id"]))
    assert shown == visible
    assert hidden
    assert clever.district.record["last_sync"] == last_sync
    clever.sandbox.change().reshare([school])
    assert {path: clever.walk(path) for path in before} == before


def test_unshared_user_leaves_a_dangling_id(clever: Client) -> None:
    """R6.2: sections still list a user that the application may not read."""
    key = next(key for key in students(clever) if sections_of(clever, key))
    sections = sections_of(clever, key)
    clever.sandbox.change().unshare([key])
    assert clever.get(f"/v3.0/users/{key}").status_code == 404
    assert key not in students(clever)
    assert sections_of(clever, key) == sections
    clever.sandbox.change().reshare([key])
    assert key in students(clever)


def test_people_are_added_removed_and_restored(clever: Client) -> None:
    """R5.4: a student who returns has the same id as before."""
    change = clever.sandbox.change()
    school, section = clever.district.shared("schools")[0], clever.district.shared("sections")[0]
    key = change.add_user("student", "Ada", "Lovelace", schools=[school], username="ada", grade="4", sections=[section])
    record = user(clever, key)
    assert record["roles"]["student"] | {"school": school, "schools": [school], "grade": "4"} == record["roles"]["student"]
    assert sections_of(clever, key) == {section}
    change.remove_users([key])
    assert key not in students(clever)
    assert sections_of(clever, key) == set()
    change.restore_users([key])
    assert user(clever, key)["created"] == record["created"]
    with pytest.raises(UsageError, match="has been removed"):
        change.restore_users([key])


def test_sections_are_added_changed_and_removed(clever: Client) -> None:
    """R6.2: a section without teachers has no `teacher`, not even null."""
    change = clever.sandbox.change()
    school, teacher = clever.district.shared("schools")[0], clever.district.shared("users", "teacher")[0]
    key = change.add_section(school, name="Chess", students=students(clever)[:3], teachers=[teacher])
    assert clever.get(f"/v3.0/sections/{key}").json()["data"]["teacher"] == teacher
    change.set_members(key, teachers=[])
    section = clever.get(f"/v3.0/sections/{key}").json()["data"]
    assert (section["teachers"], section["students"]) == ([], students(clever)[:3])
    assert "teacher" not in section
    change.remove_sections([key])
    assert clever.get(f"/v3.0/sections/{key}").status_code == 404


def test_any_field_can_be_broken(clever: Client) -> None:
    """R4.2: wrong types and missing keys. The user stays in the list of the role."""
    change = clever.sandbox.change()
    key = students(clever)[0]
    change.patch("users", key, "roles.student.grade", 3)
    change.delete_key("users", key, "name.first")
    record = next(item for item in clever.walk("/v3.0/users?role=student") if item["id"] == key)
    assert record["roles"]["student"]["grade"] == 3
    assert "first" not in record["name"]
    change.patch("users", key, "roles", None)
    assert key in students(clever)
    change.replace("users", key, {"id": key})
    assert user(clever, key) == {"id": key}
    with pytest.raises(UsageError, match="no object"):
        change.patch("users", key, "id.deep", 1)
    with pytest.raises(UsageError, match="no record"):
        change.patch("users", "0" * 24, "id", 1)


def test_district_object_is_settable(clever: Client) -> None:
    """A paused district still answers."""
    clever.sandbox.change().set_district(state="paused", pause_start="2026-06-01", last_sync=None)
    [record] = clever.walk("/v3.0/districts")
    assert (record["state"], record["pause_start"], record["last_sync"]) == ("paused", "2026-06-01", None)
    assert len(students(clever)) == 120


def test_night_of_changes_is_plausible_and_seeded() -> None:
    """It changes about 1 % of the records, makes the same changes for the same seed, and reports what it changed."""
    one, other = (Sandbox(generate_district(3, 1000), clock=lambda: 2e9) for _ in range(2))
    before = dict(one.district().records["users"])
    night = one.change().night_of_changes(5)
    assert other.change().night_of_changes(5) == night
    assert one.district().records == other.district().records
    after = dict(one.district().records["users"])
    roles = one.district().roles
    new = [key for key in after.keys() - before.keys() if "student" in roles[key]]
    assert night == {
        "new_students": 3,
        "left": 3,
        "returned": 0,
        "renamed": 2,
        "moved": 2,
        "new_ids": 1,
        "new_teachers": 1,
        "sections_retaught": 4,
    }
    assert len(new) == night["new_students"] + night["new_ids"]
    assert len(before.keys() - after.keys()) == night["left"] + night["new_ids"]
    second = one.change().night_of_changes(6)
    assert second["returned"] == 1
    assert len(before.keys() & one.district().records["users"].keys() - after.keys()) == 1


def test_rollover_is_a_new_school_year() -> None:
    """Grades go up, grade 12 leaves, all sections are new. Students whose school does not have their new grade change school."""
    sandbox = Sandbox(generate_district(3, 300))
    district = sandbox.district()
    before = {key: district.get("users", key) for key in district.shared("users", "student")}
    sections = set(district.records["sections"])
    counts = sandbox.change().rollover(1)
    after = {key: district.get("users", key) for key in district.shared("users", "student")}
    removed = before.keys() - after.keys()
    assert {before[key]["roles"]["student"]["grade"] for key in removed} == {"12"}
    assert (len(removed), counts["risen"] + counts["graduated"]) == (counts["graduated"], 300 - _without_grade(before))
    grades = [(before[key]["roles"]["student"].get("grade"), after[key]["roles"]["student"].get("grade")) for key in after]
    assert {pair for pair in grades if pair[0]} == {("Kindergarten", "1"), *((str(grade), str(grade + 1)) for grade in range(1, 12))}
    for record in after.values():
        school = district.get("schools", record["roles"]["student"]["school"])
        grade = record["roles"]["student"].get("grade")
        assert grade is None or int(school["low_grade"].replace("Kindergarten", "0")) <= int(grade) <= int(school["high_grade"])
    assert sections.isdisjoint(district.records["sections"])
    assert counts["sections"] == len(district.records["sections"]) > 50
    members = {member for key in district.records["sections"] for member in district.get("sections", key)["students"]}
    assert members <= after.keys()


def _without_grade(users: dict[str, Any]) -> int:
    return sum("grade" not in record["roles"]["student"] for record in users.values())


def test_control_api_has_every_change(clever: Client) -> None:
    """Every change of the Python API can be made over HTTP."""
    assert set(CHANGES) == {name for name in dir(Changes) if not name.startswith("_") and name != "district"}
    key = students(clever)[0]
    assert clever.control("rename", user=key, first="Ada").json() == {"result": None}
    assert user(clever, key)["name"]["first"] == "Ada"
    new = clever.control("re_id", district=clever.district.id, users=[key]).json()["result"][key]
    assert user(clever, new)["name"]["first"] == "Ada"
    added = clever.control("add_district", seed=99, students=10).json()["result"]["district"]
    assert len(clever.tokens()) == 2
    state = clever.session.get(f"{clever.url}/_sandbox/state", timeout=10).json()["districts"]
    assert state[added]["roles"]["student"] == 10
    assert state[clever.district.id]["roles"]["student"] == 120


@pytest.mark.parametrize(
    ("verb", "arguments", "status"),
    [
        ("rename", {"user": "0" * 24}, 400),
        ("rename", {"person": 1}, 400),
        ("rename", {"district": "none", "user": "x"}, 400),
        ("move_students", {"moves": {"x": "y"}}, 400),
        ("_editing", {}, 404),
        ("district", {}, 404),
    ],
)
def test_control_api_refuses_clearly(clever: Client, verb: str, arguments: dict[str, object], status: int) -> None:
    """A wrong call gets an error status, and the server does not crash."""
    answer = clever.control(verb, **arguments)
    assert (answer.status_code, list(answer.json())) == (status, ["message"])
