"""The district object, and recorded answers of Clever through the whole client (R3.2, R3.4, R3.7)."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from roster_pipeline.clever.ahead import THREADS
from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.errors import PermanentError
from roster_pipeline.source.protocol import SourceDistrict
from roster_pipeline.source.vocabulary import Collection, Finding

from .scripted import DISTRICT, Reply, ScriptedClever, page, school

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


def test_requested_collections_are_read_at_once(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2, R3.5: of each collection the first page, before any of them is answered; no second page before the first is used."""
    gate = threading.Event()
    paths = [f"/v3.0/{name}" for name in ("schools", "terms", "courses", "sections")]
    for path in paths:
        clever.script(path, Reply(page(school("a"), school("b"), following=f"{path}?starting_after=b"), gate=gate), Reply(page()))
    asked = list(Collection)[: len(paths)]
    with make_pull() as pull:
        pull.request(asked)
        assert all(clever.wait_for_requests(path, 1) for path in paths)
        gate.set()
        found = {collection: [one.number for one in pull.pages(collection)] for collection in asked[:1]}
        assert [clever.paths().count(path) for path in paths] == [2, 1, 1, 1]
        found |= {collection: [one.number for one in pull.pages(collection)] for collection in asked[1:]}
    assert list(found.values()) == [[1, 2]] * len(asked)
    assert clever.most_at_once == len(paths)


@pytest.mark.parametrize("at_once", [1, 3])
def test_so_many_requests_at_a_time(at_once: int, clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.5: never more than CLEVER_REQUESTS_AT_ONCE."""
    for name in ("schools", "terms", "courses", "sections", "users"):
        clever.script(f"/v3.0/{name}", *[Reply(page(), gate=release_later(0.05)) for _ in range(4)])
    with make_pull(clever_requests_at_once=at_once) as pull:
        pull.request(Collection)
        for collection in Collection:
            assert [one.records for one in pull.pages(collection)] == [[]]
    assert clever.most_at_once == at_once


def release_later(seconds: float) -> threading.Event:
    """An event that is set after some seconds of waiting for it."""

    class Later(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            return super().wait(seconds)

    return Later()


def test_a_collection_that_fails_while_another_is_read(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2: the failure is raised where the collection is read, and no thread is left."""
    clever.script("/v3.0/schools", Reply(page(school("a"))))
    clever.script("/v3.0/terms", Reply(status=403))
    with make_pull() as pull:
        pull.request([Collection.SCHOOLS, Collection.TERMS])
        assert [one.number for one in pull.pages(Collection.SCHOOLS)] == [1]
        with pytest.raises(PermanentError, match="status 403"):
            list(pull.pages(Collection.TERMS))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(THREADS)]


def test_a_pull_that_is_left_ends_what_was_requested(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2: what was requested and is not read is not sent any more, or it is waited for."""
    for name in ("schools", "terms", "courses", "sections", "users"):
        clever.script(f"/v3.0/{name}", Reply(page(), gate=release_later(0.2)))
    with make_pull(clever_requests_at_once=1) as pull:
        pull.request(Collection)
        assert clever.wait_for_requests("/v3.0/schools", 1)
    assert clever.paths() == ["/v3.0/schools"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(THREADS)]


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
