"""The district object, and recorded answers of Clever through the whole client (R3.2, R3.4, R3.7)."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.errors import PermanentError
from roster_pipeline.source.protocol import SourceDistrict
from roster_pipeline.source.vocabulary import Collection, Finding

from .scripted import DISTRICT, Reply, ScriptedClever, page

MakePull = Callable[..., DistrictPull]
ONE = f"/v3.0/districts/{DISTRICT}"
DISTRICT_OBJECT = {
    "id": DISTRICT,
    "name": "Marker",
    "state": "running",
    "last_sync": "2026-01-01T00:00:00.000Z",
    "error": "",
}
FIXTURES = Path(__file__).parents[3] / "shared" / "clever_spec" / "fixtures"


def test_the_district(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2: read from its own endpoint. Blanks are None, and an optional value of the wrong type is dropped."""
    clever.script(ONE, Reply({"data": DISTRICT_OBJECT | {"state": 5}, "links": []}))
    with make_pull() as pull:
        district = pull.district()
    dropped = Finding(DISTRICT, "state_type", "warn")
    assert district == SourceDistrict(DISTRICT, "Marker", None, "2026-01-01T00:00:00.000Z", (dropped,))


def test_the_district_from_the_list(clever: ScriptedClever, make_pull: MakePull) -> None:
    """If /districts/{id} is 404, it is read from the token's list of districts."""
    clever.script("/v3.0/districts", Reply(page(DISTRICT_OBJECT)))
    with make_pull() as pull:
        assert pull.district().last_sync == "2026-01-01T00:00:00.000Z"
    assert clever.paths() == [ONE, "/v3.0/districts"]


@pytest.mark.parametrize("other", [{"id": "other"}, {"id": 5}, {}, [], None])
def test_another_district_is_not_accepted(other: Any, clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.6: a token of another district must not be used for this one."""
    clever.script(ONE, Reply({"data": other}))
    with make_pull() as pull, pytest.raises(PermanentError, match="does not lead to the district"):
        pull.district()
    clever.script(ONE, Reply(status=404))
    clever.script("/v3.0/districts", Reply(page(other)))
    with make_pull() as pull, pytest.raises(PermanentError, match="does not lead to the district"):
        pull.district()


def test_the_district_between_two_pages(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.7: it can be read while a page is being fetched."""
    clever.script(ONE, Reply({"data": DISTRICT_OBJECT}))
    clever.script(
        "/v3.0/schools", *[Reply(page(following=f"/v3.0/schools?starting_after={number}")) for number in range(20)], Reply(page())
    )
    with make_pull() as pull:
        states = [pull.district().state for _ in pull.pages(Collection.SCHOOLS)]
    assert states == ["running"] * 21


def test_one_request_at_a_time(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.5: the district is requested after the page that is being fetched, because one request at a time uses connection and token."""
    gate = threading.Event()
    clever.script(ONE, Reply({"data": DISTRICT_OBJECT}))
    clever.script("/v3.0/schools", Reply(page(following="/v3.0/schools?starting_after=a")), Reply(page(), gate=gate))
    with make_pull() as pull:
        for found in pull.pages(Collection.SCHOOLS):
            if found.number == 1:
                assert clever.wait_for_requests("/v3.0/schools", 2)
                threading.Timer(0.2, gate.set).start()
                pull.district()
    assert clever.most_at_once == 1


needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"recorded payloads are not beside the project ({FIXTURES.name}/)")


def recorded(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((FIXTURES / name).read_text())
    return body


@needs_fixtures
def test_recorded_users(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.4: every declared field of the recorded users equals what was sent. Nothing else is in memory, and there is no finding."""
    sent = recorded("clever-go.users.json")
    read = set()
    for collection in (each for each in Collection if each.role):
        users = [item for item in sent["data"] if collection.role in item["data"]["roles"]]
        read |= {item["data"]["id"] for item in users}
        clever.script("/v3.0/users", Reply({**sent, "data": users}))
        with make_pull(clever_page_limit=10_000) as pull:
            pages = list(pull.pages(collection))
        assert [finding for page in pages for finding in page.findings] == []
        found = [msgspec.to_builtins(record) for page in pages for record in page.records]
        assert found == [expected_user(item["data"]) for item in users]
    # The others are parents and guardians.
    assert len(read) == 1_096


def expected_user(sent: dict[str, Any]) -> dict[str, Any]:
    def text(source: dict[str, Any], *names: str) -> dict[str, Any]:
        return {name: source.get(name) or None for name in names}

    def role(name: str, *fields: str, schools: bool = True) -> dict[str, Any] | None:
        source = sent["roles"].get(name)
        if source is None:
            return None
        credentials = {"credentials": text(source.get("credentials", {}), "district_username"), "schools": source.get("schools")}
        return text(source, *fields) | (credentials if schools else {})

    return text(sent, "id", "district", "last_modified", "email") | {
        "name": text(sent["name"], "first", "middle", "last"),
        "roles": {
            "student": role("student", "school", "sis_id", "state_id", "student_number", "grade"),
            "teacher": role("teacher", "school", "sis_id", "state_id"),
            "staff": role("staff"),
            "district_admin": role("district_admin", schools=False),
        },
    }


@needs_fixtures
def test_recorded_sections(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.4, R6.2: the same for 378 recorded sections with 8,954 enrollments."""
    sent = recorded("clever-go.sections.json")
    clever.script("/v3.0/sections", Reply(sent))
    with make_pull(clever_page_limit=10_000) as pull:
        (found,) = pull.pages(Collection.SECTIONS)
    assert found.findings == []
    kept = ("id", "district", "school", "name", "course", "term_id", "students", "teachers", "teacher", "last_modified")
    assert [msgspec.to_builtins(record) for record in found.records] == [
        {name: item["data"].get(name) for name in kept} for item in sent["data"]
    ]
    assert sum(len(item["data"]["students"]) for item in sent["data"]) == 8_954


@needs_fixtures
def test_recorded_district(clever: ScriptedClever, make_pull: MakePull) -> None:
    """The recorded list of districts."""
    clever.script("/v3.0/districts", Reply(recorded("clever-go.districts.json")))
    with make_pull() as pull:
        assert pull.district() == SourceDistrict(DISTRICT, "#DEMO_DISTRICT", "running", "2021-03-02T22:25:23.709Z")
