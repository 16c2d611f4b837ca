"""Lists, cursors and single objects are like those in Clever's recorded answers."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from roster_pipeline.sandbox import District, Sandbox, SandboxServer

from .client import Client


def rels(body: dict[str, object]) -> dict[str, str]:
    """rel -> uri of an answer."""
    links = body["links"]
    assert isinstance(links, list)
    return {link["rel"]: link["uri"] for link in links}


def test_full_page_has_next_and_an_exact_multiple_ends_on_an_empty_page(clever: Client) -> None:
    """R3.2: `next` only says that the page is full. A client stops when a page has no `next`."""
    schools = clever.district.shared("schools")
    assert len(schools) == 3
    full = clever.get("/v3.0/schools?limit=3").json()
    assert rels(full) == {"self": "/v3.0/schools?limit=3", "next": f"/v3.0/schools?limit=3&starting_after={schools[-1]}"}
    empty = clever.get(rels(full)["next"]).json()
    assert empty["data"] == []
    assert rels(empty) == {"self": rels(full)["next"], "prev": f"/v3.0/schools?limit=3&ending_before={schools[-1]}"}
    part = clever.get("/v3.0/schools?limit=4").json()
    assert set(rels(part)) == {"self"}


def test_next_keeps_the_other_parameters_and_is_relative(clever: Client) -> None:
    """R3.2: links are paths with the version, for both versions."""
    for version in ("v3.0", "v3.1"):
        body = clever.get(f"/{version}/users?role=student&limit=2").json()
        uri = urlsplit(rels(body)["next"])
        assert (uri.netloc, uri.path) == ("", f"/{version}/users")
        assert parse_qs(uri.query) == {"role": ["student"], "limit": ["2"], "starting_after": [body["data"][-1]["data"]["id"]]}
        assert body["data"][0]["uri"] == f"/{version}/users/{body['data'][0]['data']['id']}"


def test_prev_is_on_every_page_requested_with_a_cursor(clever: Client) -> None:
    """Even if no record comes before, as in Clever's recordings. Its cursor is the first id of the page."""
    first, second, third = clever.district.shared("schools")
    before_all = clever.get("/v3.0/schools?limit=1&starting_after=" + "0" * 24).json()
    assert rels(before_all)["prev"] == f"/v3.0/schools?limit=1&ending_before={first}"
    assert clever.get(rels(before_all)["prev"]).json()["data"] == []
    back = clever.get(f"/v3.0/schools?limit=1&ending_before={third}").json()
    assert [item["data"]["id"] for item in back["data"]] == [second]


def test_cursors_are_positions(clever: Client) -> None:
    """After the cursor's record is deleted, the next page begins behind it. `ending_before` pages are ascending; `last` is the end."""
    students = clever.district.shared("users", "student")
    clever.sandbox.change().remove_users([students[2]])
    body = clever.get(f"/v3.0/users?role=student&limit=2&starting_after={students[2]}").json()
    assert [item["data"]["id"] for item in body["data"]] == students[3:5]
    tail = clever.get("/v3.0/users?role=student&limit=2&ending_before=last").json()
    assert [item["data"]["id"] for item in tail["data"]] == students[-2:]


@pytest.mark.parametrize("limit", [1, 7, 40, 120, 10_000])
def test_every_page_size_gives_the_same_walk(clever: Client, limit: int) -> None:
    """R5.7: all 120 students in ascending order, with any page size (120 is a multiple of 40 and of 120)."""
    walked = [user["id"] for user in clever.walk(f"/v3.0/users?role=student&limit={limit}")]
    assert walked == sorted(clever.district.shared("users", "student"))
    assert len(walked) == 120


def test_default_limit_is_100(clever: Client) -> None:
    """Clever's default. A page of 100 has a `next`."""
    body = clever.get("/v3.0/users").json()
    assert len(body["data"]) == 100
    assert "next" in rels(body)


@pytest.mark.parametrize(("limit", "status"), [("10000", 200), ("10001", 413), ("0", 400), ("-1", 400), ("many", 400), ("", 400)])
def test_limit_bounds(clever: Client, limit: str, status: int) -> None:
    """R3.3: 413 above 10,000."""
    answer = clever.get(f"/v3.0/users?limit={limit}")
    assert answer.status_code == status
    assert status == 200 or list(answer.json()) == ["message"]


def test_count_has_no_data(clever: Client) -> None:
    """`count=true` returns only the number, after the role filter."""
    assert clever.get("/v3.0/users?count=true&role=student").json() == {
        "count": 120,
        "links": [{"rel": "self", "uri": "/v3.0/users?count=true&role=student"}],
    }
    assert clever.get("/v3.0/districts?count=true").json()["count"] == 1


def test_role_filter_returns_every_holder_with_all_roles(clever: Client) -> None:
    """R5.8: a teacher who is also staff is in both lists, with all roles. A role that a user does not have is absent, never null."""
    teachers = {str(user["id"]): user for user in clever.walk("/v3.0/users?role=teacher")}
    staff = {str(user["id"]): user for user in clever.walk("/v3.0/users?role=staff")}
    both = teachers.keys() & staff.keys()
    assert both
    for key in both:
        assert teachers[key] == staff[key]
        assert set(teachers[key]["roles"]) == {"teacher", "staff"}
    everybody = clever.walk("/v3.0/users?limit=50")
    assert all(role is not None for user in everybody for role in user["roles"].values())
    assert {user["id"] for user in everybody} == set(clever.district.records["users"])
    assert clever.get("/v3.0/users?role=principal").status_code == 400


def test_single_object_has_links_and_no_uri(clever: Client) -> None:
    """Only items of lists have a `uri`."""
    student = clever.district.shared("users", "student")[0]
    body = clever.get(f"/v3.0/users/{student}").json()
    assert set(body) == {"data", "links"}
    assert body["data"] == clever.district.get("users", student)
    assert rels(body)["self"] == f"/v3.0/users/{student}"
    assert rels(body)["myContacts"] == f"/v3.0/users/{student}/mycontacts"
    for rel, uri in rels(body).items():
        assert clever.get(uri).status_code == 200, rel


def test_relations_lead_where_the_records_say(clever: Client) -> None:
    """The lists below one object agree with the ids in the records."""
    section_id = next(key for key in clever.district.shared("sections") if len(clever.district.get("sections", key)["teachers"]) == 1)
    section = clever.district.get("sections", section_id)
    clever.sandbox.change().set_members(section_id, students=[*section["students"], "f" * 24])
    members = {user["id"] for user in clever.walk(f"/v3.0/sections/{section_id}/users")}
    known = {user for user in section["students"] if user in clever.district.records["users"]}
    assert members == known | set(section["teachers"])  # without the id that does not exist
    assert {user["id"] for user in clever.walk(f"/v3.0/sections/{section_id}/users?role=teacher")} == set(section["teachers"])
    assert clever.get(f"/v3.0/sections/{section_id}/school").json()["data"]["id"] == section["school"]
    student = min(known)
    assert section_id in {item["id"] for item in clever.walk(f"/v3.0/users/{student}/sections")}
    assert set(section["teachers"]) <= {user["id"] for user in clever.walk(f"/v3.0/users/{student}/myteachers")}
    assert known <= {user["id"] for user in clever.walk(f"/v3.0/users/{section['teachers'][0]}/mystudents")}
    [contact] = clever.walk(f"/v3.0/users/{student}/mycontacts")
    assert set(contact["name"]) == {"last"}
    assert section_id in {item["id"] for item in clever.walk(f"/v3.0/schools/{section['school']}/sections")}
    assert {item["id"] for item in clever.walk(f"/v3.0/schools/{section['school']}/terms")} <= set(clever.district.records["terms"])


def test_primary_narrows_to_the_primary_school(clever: Client) -> None:
    """`primary=true` leaves out students with another primary school."""
    school = clever.district.shared("schools")[0]
    students = [clever.district.get("users", key) for key in clever.district.shared("users", "student")]
    everyone = {user["id"] for user in clever.walk(f"/v3.0/schools/{school}/users?role=student")}
    primary = {user["id"] for user in clever.walk(f"/v3.0/schools/{school}/users?role=student&primary=true")}
    assert everyone == {user["id"] for user in students if school in user["roles"]["student"]["schools"]}
    assert primary == {user["id"] for user in students if user["roles"]["student"]["school"] == school} < everyone


def test_unknown_id_is_json_404_and_unknown_path_html_404(clever: Client) -> None:
    """R3.3: any body can be HTML."""
    for path in ("/v3.0/users/" + "0" * 24, "/v3.0/sections/x/users", "/v3.0/districts/" + "0" * 24):
        answer = clever.get(path)
        assert (answer.status_code, list(answer.json())) == (404, ["message"])
    student = clever.district.shared("users", "student")[0]
    for path in ("/v3.0/students", "/v3.0/enrollments", "/v2.1/users", "/", f"/v3.0/users/{student}/grades", "/v3.0/districts/x/schools"):
        answer = clever.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert "<html>" in answer.text


def test_a_token_reads_its_own_district_only() -> None:
    """R3.6 protects from a Clever that does not keep to this. The sandbox does."""
    one, other = (District({"id": key * 24, "name": key}) for key in "ab")
    one.put("schools", "c" * 24, {"id": "c" * 24, "district": one.id, "name": "C"})
    with SandboxServer(Sandbox(one, other)) as server:
        client = Client(server, other)
        with client.session:
            assert client.walk("/v3.0/schools") == []
            assert client.get("/v3.0/schools/" + "c" * 24).status_code == 404
            assert [item["id"] for item in client.walk("/v3.0/districts")] == [other.id]


def test_a_lone_surrogate_reaches_the_wire_as_an_escape(clever: Client) -> None:
    """R4.5: the sandbox must be able to serve what JSON can express and UTF-8 cannot."""
    student = clever.district.shared("users", "student")[0]
    clever.sandbox.change().rename(student, first="A\ud800B")
    answer = clever.get(f"/v3.0/users/{student}")
    assert b"A\\ud800B" in answer.content
    assert json.loads(answer.content)["data"]["name"]["first"] == "A\ud800B"
