"""The sandbox checked by code that is not ours: an independent Clever client, and Clever's own OpenAPI file."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import clever_client
import pytest
import yaml
from bravado_core.response import IncomingResponse, unmarshal_response
from bravado_core.spec import Spec
from clever_client.rest import ApiException

from roster_pipeline.sandbox import Sandbox, SandboxServer, generate_district
from roster_pipeline.sandbox.district import Kind

from .client import Client

# Warnings of bravado about its own dependencies and about Clever's file.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Found .* with siblings"),
]


@pytest.fixture
def independent(clever: Client) -> Iterator[clever_client.ApiClient]:
    """strongmind-clever-client, configured for the sandbox. Its paths have no version, so the host has it."""
    configuration = clever_client.Configuration()
    configuration.host = f"{clever.url}/v3.0"
    configuration.access_token = clever.district.access_token
    client = clever_client.ApiClient(configuration)
    yield client
    client.rest_client.pool_manager.clear()
    client.pool.close()
    client.pool.join()


def walk(get: Callable[..., Any], **filters: object) -> list[str]:
    """Ids of a collection, read by the independent client page by page, until a page has no `next`."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = get(limit=25, **filters, **cursor)
        found += [item.data.id for item in page.data]
        if not any(link.rel == "next" for link in page.links):
            return found
        cursor = {"starting_after": found[-1]}


def test_an_independent_client_walks_every_collection(clever: Client, independent: clever_client.ApiClient) -> None:
    """It decodes each record into its own models, and checks enums and patterns."""
    district = clever.district
    users = clever_client.UsersApi(independent)
    assert walk(clever_client.SchoolsApi(independent).get_schools) == district.shared("schools")
    assert walk(clever_client.SectionsApi(independent).get_sections) == district.shared("sections")
    assert walk(clever_client.CoursesApi(independent).get_courses) == district.shared("courses")
    assert walk(clever_client.TermsApi(independent).get_terms) == district.shared("terms")
    assert walk(users.get_users) == district.shared("users")
    for role in ("contact", "district_admin", "staff", "student", "teacher"):
        assert walk(users.get_users, role=role) == district.shared("users", role)
    assert [item.data.id for item in clever_client.DistrictsApi(independent).get_districts().data] == [district.id]
    student = district.shared("users", "student")[0]
    assert users.get_user(student).data.roles.student.grade == district.get("users", student)["roles"]["student"].get("grade")
    with pytest.raises(ApiException) as missing:
        users.get_user("0" * 24)
    assert missing.value.status == 404


class _Answer(IncomingResponse):
    """Adapts an answer of requests to what bravado's validation expects."""

    def __init__(self, answer: Any) -> None:
        self.status_code = answer.status_code
        self.headers = {"content-type": "application/json"}
        self.text = answer.text
        self.reason = answer.reason
        self._answer = answer

    def json(self, **_: object) -> Any:
        return self._answer.json()


@pytest.fixture(scope="module")
def specification(clever_spec: Path) -> Spec:
    """Clever's v3.0 OpenAPI file."""
    content = yaml.safe_load((clever_spec / "v3.0.yml").read_text())
    spec: Spec = Spec.from_dict(content, config={"validate_responses": True, "use_models": False})
    return spec


def validate(specification: Spec, client: Client, template: str, query: str = "", **names: str) -> None:
    """Validates the answer for one path of the file, as the file declares it for the answer's status."""
    operation = specification.get_op_for_request("GET", f"/v3.0{template}")
    assert operation is not None, template
    answer = client.get(f"/v3.0{template.format(**names)}{query}")
    assert answer.headers["content-type"].startswith("application/json"), template
    unmarshal_response(_Answer(answer), operation)


def test_every_answer_validates_against_clevers_specification(specification: Spec) -> None:
    """All lists in full (every generated record), every path of the file for several objects, and 404s."""
    with SandboxServer(Sandbox(generate_district(11, 400), rate_limit=None)) as server:
        district = server.sandbox.district()
        client = Client(server, district)
        paths = [path for path in specification.spec_dict["paths"] if "resources" not in path]
        assert len(paths) > 25
        with client.session:
            for template in paths:
                kind = template.split("/")[1]
                if "{id}" not in template:
                    validate(specification, client, template)
                    if kind != "districts":
                        validate(specification, client, template, "?limit=10000")
                        validate(specification, client, template, "?limit=1&starting_after=" + "f" * 24)
                    continue
                # Every other path is about one object, and begins with the list that the object is in.
                keys = [district.id] if kind == "districts" else district.shared(cast("Kind", kind))
                for key in [keys[0], keys[len(keys) // 2], keys[-1], "0" * 24]:
                    validate(specification, client, template, id=key)


def test_the_validation_finds_a_broken_record(specification: Spec, clever: Client) -> None:
    """The validation in the test above works: it refuses a wrong grade, and a number instead of a string."""
    student = clever.district.shared("users", "student")[0]
    validate(specification, clever, "/users/{id}", id=student)
    for path, value in (("roles.student.grade", "eleven"), ("roles.student.sis_id", 7), ("roles.student.dob", "2015-02-01")):
        good = json.loads(clever.district.records["users"][student])
        clever.sandbox.change().patch("users", student, path, value)
        with pytest.raises(Exception, match=r"eleven|7|2015"):
            validate(specification, clever, "/users/{id}", id=student)
        clever.sandbox.change().replace("users", student, good)
