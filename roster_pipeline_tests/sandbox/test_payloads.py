"""Recorded answers are served unchanged, record by record."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from roster_pipeline.errors import UsageError
from roster_pipeline.sandbox import Sandbox, SandboxServer, load_payloads

from .client import Client

STUDENT = {"school": "5" * 24, "schools": ["5" * 24]}
USER = {"id": "b" * 24, "district": "d" * 24, "name": {"last": "L"}, "roles": {"student": STUDENT}}
SECTION = {"id": "c" * 24, "district": "d" * 24, "school": "6" * 24, "students": [], "teachers": [], "term_id": "7" * 24}
DISTRICT = {"id": "d" * 24, "name": "D", "portal_url": "https://clever.com/in/d"}
TOKEN = {"id": "e" * 24, "owner": {"type": "district", "id": "f" * 24}, "access_token": "0" * 40, "scopes": []}


def record(directory: Path, name: str, *items: Mapping[str, object]) -> None:
    """Writes a recorded list."""
    directory.joinpath(name).write_text(json.dumps({"data": items, "links": []}))


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """One record of each kind. The file names do not say which."""
    record(tmp_path, "1.json", {"data": USER, "uri": "x"})
    record(tmp_path, "2.json", {"data": SECTION, "uri": "x"})
    record(tmp_path, "3.json", {"data": DISTRICT, "uri": "x"})
    record(tmp_path, "4.json", TOKEN)
    return tmp_path


def test_clevers_own_recording_is_served_unchanged(clever_spec: Path) -> None:
    """1,004 students, 89 teachers, 3 district admins, 1,002 contacts, 378 sections, each unchanged. What they refer to can be read."""
    with SandboxServer(Sandbox(load_payloads(clever_spec / "fixtures"))) as server:
        district = server.sandbox.district()
        client = Client(server, district)
        with client.session:
            for kind, limit in (("users", 100), ("sections", 378)):
                recorded = json.loads((clever_spec / "fixtures" / f"clever-go.{kind}.json").read_bytes())["data"]
                assert client.walk(f"/v3.0/{kind}?limit={limit}") == [item["data"] for item in recorded]
            roles = {
                role: client.get(f"/v3.0/users?role={role}&count=true").json()["count"]
                for role in ("student", "teacher", "contact", "district_admin")
            }
            assert roles == {"student": 1004, "teacher": 89, "contact": 1002, "district_admin": 3}
            [token] = client.tokens()
            # The recorded owner of the token is not the district of the data.
            assert token["owner"] == {"type": "district", "id": "5a0c91b95c7cc000010d417c"}
            assert (
                client.get("/v3.0/districts").json()["data"]
                == json.loads((clever_spec / "fixtures" / "clever-go.districts.json").read_bytes())["data"]
            )
            sections = client.walk("/v3.0/sections?limit=378")
            for field, kind in (("school", "schools"), ("term_id", "terms"), ("course", "courses")):
                assert {section[field] for section in sections} <= {item["id"] for item in client.walk(f"/v3.0/{kind}")}


def test_files_are_recognized_by_their_content(recordings: Path) -> None:
    """And the schools and terms that they refer to are invented."""
    district = load_payloads(recordings)
    assert district.id == "d" * 24
    assert district.access_token == "0" * 40
    assert district.token["owner"] == {"type": "district", "id": district.id}
    assert district.shared("schools") == ["5" * 24, "6" * 24]
    assert district.shared("terms") == ["7" * 24]
    assert district.shared("courses") == []
    assert district.get("users", "b" * 24) == USER


@pytest.mark.parametrize(("file", "kind"), [("1.json", "users"), ("2.json", "sections"), ("3.json", "districts"), ("4.json", "tokens")])
def test_a_missing_recording_is_named(recordings: Path, file: str, kind: str) -> None:
    """It is an error, not a district without users."""
    recordings.joinpath(file).unlink()
    with pytest.raises(UsageError, match=f"no recording of {kind}"):
        load_payloads(recordings)


def test_unreadable_recordings_are_refused(recordings: Path) -> None:
    """No folder, no JSON, another format, another district: each has its own message."""
    record(recordings, "3.json", {"data": DISTRICT | {"id": "9" * 24}, "uri": "x"})
    with pytest.raises(UsageError, match="is not among the recorded districts"):
        load_payloads(recordings)
    for text in ("<html>", "[]", '{"data": 1}', '{"data": [1]}'):
        recordings.joinpath("5.json").write_text(text)
        with pytest.raises(UsageError, match="not a list answer"):
            load_payloads(recordings)
    shutil.rmtree(recordings)
    with pytest.raises(UsageError, match="no folder"):
        load_payloads(recordings)
