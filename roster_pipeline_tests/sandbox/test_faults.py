"""Every kind of fault, as a plain client sees it."""

import json
import socket
import time
from urllib.parse import urlsplit

import pytest
import requests

from roster_pipeline.errors import UsageError
from roster_pipeline.sandbox.faults import FaultKind

from .client import Client

SCHOOLS = "/v3.0/schools?limit=2"


def raw(clever: Client, path: str) -> tuple[bytes, bytes]:
    """Head and body of an answer, read from a plain socket until the server closes it."""
    address = urlsplit(clever.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {clever.district.access_token}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        received = b""
        while piece := connection.recv(65536):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


def content_length(head: bytes) -> int:
    """The Content-Length in the head of an answer."""
    return int(next(line.split(b":")[1] for line in head.lower().splitlines() if line.startswith(b"content-length")))


def next_uri(clever: Client, path: str) -> str | None:
    """Where the answer's `next` leads."""
    return next((link["uri"] for link in clever.get(path).json()["links"] if link["rel"] == "next"), None)


def test_a_fault_hits_as_many_matching_requests_as_it_should(clever: Client) -> None:
    """It hits the next two requests for sections, no other request, and not the third."""
    clever.sandbox.misbehave("status", r"/sections\?", times=2, status=503)
    statuses = [
        clever.get(path).status_code for path in (SCHOOLS, "/v3.0/sections?limit=1", "/v3.0/sections?limit=2", "/v3.0/sections?limit=3")
    ]
    assert statuses == [200, 503, 503, 200]
    assert [(seen.uri, seen.status) for seen in clever.sandbox.seen][:2] == [(SCHOOLS, 200), ("/v3.0/sections?limit=1", 503)]


def test_a_fault_without_a_count_lasts_until_cleared(clever: Client) -> None:
    """The oldest fault that matches wins."""
    clever.sandbox.misbehave("status", "schools", status=500)
    clever.sandbox.misbehave("status", "schools", status=502)
    assert [clever.get(SCHOOLS).status_code for _ in range(3)] == [500] * 3
    clever.sandbox.behave()
    assert clever.get(SCHOOLS).status_code == 200


@pytest.mark.parametrize("status", [500, 502, 503])
def test_server_errors_are_html(clever: Client, status: int) -> None:
    """R3.3: any body can be HTML."""
    clever.sandbox.misbehave("status", "schools", status=status)
    answer = clever.get(SCHOOLS)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")


@pytest.mark.parametrize("status", [401, 403])
def test_refusals_are_json(clever: Client, status: int) -> None:
    """R3.3: never retried."""
    clever.sandbox.misbehave("status", "schools", status=status)
    answer = clever.get(SCHOOLS)
    assert (answer.status_code, list(answer.json())) == (status, ["message"])


def test_429_is_empty_with_and_without_a_reset(clever: Client) -> None:
    """R3.3: a client waits for the reset, if the answer has one."""
    clever.sandbox.misbehave("status", "schools", status=429, times=1)
    clever.sandbox.misbehave("status", "schools", status=429, times=1, reset_s=90)
    without, with_reset = clever.get(SCHOOLS), clever.get(SCHOOLS)
    assert (without.status_code, without.content, with_reset.status_code, with_reset.content) == (429, b"", 429, b"")
    assert "X-RateLimit-Reset" not in without.headers
    assert abs(int(with_reset.headers["X-RateLimit-Reset"]) - time.time() - 90) < 30


def test_html_with_status_200(clever: Client) -> None:
    """R3.3."""
    clever.sandbox.misbehave("html", "schools")
    answer = clever.get(SCHOOLS)
    assert answer.status_code == 200
    assert answer.text.startswith("<!DOCTYPE html>")


def test_truncated_json_is_a_complete_http_message(clever: Client) -> None:
    """R3.3: only the JSON is broken, not the HTTP message."""
    whole = clever.get(SCHOOLS).content
    clever.sandbox.misbehave("truncated", "schools")
    answer = clever.get(SCHOOLS)
    assert answer.status_code == 200
    assert whole.startswith(answer.content)
    with pytest.raises(ValueError):
        json.loads(answer.content)


def test_valid_json_in_the_wrong_format(clever: Client) -> None:
    """R3.2: the pull fails if any body does not have the documented format."""
    clever.sandbox.misbehave("body", "schools", times=1)
    clever.sandbox.misbehave("body", "schools", times=1, body={"data": {"0": None}})
    assert [clever.get(SCHOOLS).json() for _ in range(2)] == [[], {"data": {"0": None}}]


def test_cut_answer_is_shorter_than_its_content_length(clever: Client) -> None:
    """R3.3: the server closes the socket in the middle of the body."""
    whole = clever.get(SCHOOLS).content
    clever.sandbox.misbehave("cut", "schools")
    head, body = raw(clever, SCHOOLS)
    assert head.startswith(b"HTTP/1.1 200")
    assert content_length(head) == len(whole)
    assert body == whole[: len(whole) // 2]
    with pytest.raises(requests.exceptions.RequestException):
        clever.get(SCHOOLS)


def test_delayed_answer(clever: Client) -> None:
    """R3.3: a client with a short time-out gives up, and has to retry. A client that waits gets the answer."""
    clever.sandbox.misbehave("delay", "schools", seconds=0.4, times=2)
    with pytest.raises(requests.exceptions.ReadTimeout):
        clever.session.get(clever.url + SCHOOLS, timeout=0.1)
    assert clever.get(SCHOOLS).status_code == 200


def test_drip_sends_blanks_without_end(clever: Client) -> None:
    """R3.3: a time-out per socket read never ends this, only a deadline does. Stopping the server ends it too."""
    clever.sandbox.misbehave("drip", "schools", seconds=0.01)
    with clever.session.get(clever.url + SCHOOLS, timeout=10, stream=True) as answer:
        assert answer.status_code == 200
        pieces = answer.iter_content(1)
        assert [next(pieces) for _ in range(20)] == [b" "] * 20


def test_wrong_next_links(clever: Client) -> None:
    """R3.2: a client must not follow them into a loop, or to another host."""
    second = next_uri(clever, SCHOOLS)
    assert second is not None
    expected: dict[FaultKind, str] = {
        "next_self": second,
        "next_earlier": "/v3.0/schools?limit=2&starting_after=" + "0" * 24,
        "next_without_cursor": "/v3.0/schools",
        "next_other_host": "https://clever.invalid/v3.0/schools?limit=2&starting_after=" + "f" * 24,
    }
    for kind, uri in expected.items():
        clever.sandbox.misbehave(kind, "schools", times=1)
        assert next_uri(clever, second) == uri
    assert next_uri(clever, second) is None


def test_a_full_page_whose_next_is_not_found(clever: Client) -> None:
    """R3.2: a client must not take it for the last page."""
    names = [link["rel"] for link in clever.get(SCHOOLS).json()["links"]]
    assert names.count("next") == 1
    clever.sandbox.misbehave("next_renamed", "schools", times=1)
    assert [link["rel"] for link in clever.get(SCHOOLS).json()["links"]] == [name.replace("next", "following") for name in names]
    clever.sandbox.misbehave("without_next", "schools", times=1)
    assert [link["rel"] for link in clever.get(SCHOOLS).json()["links"]] == [name for name in names if name != "next"]


@pytest.mark.parametrize(("kind", "key"), [("without_links", "links"), ("without_data", "data")])
def test_page_without_a_key(clever: Client, kind: FaultKind, key: str) -> None:
    """R3.2: a page without `data` is not an empty page."""
    whole = clever.get(SCHOOLS).json()
    clever.sandbox.misbehave(kind, "schools")
    assert clever.get(SCHOOLS).json() == {name: value for name, value in whole.items() if name != key}


def test_faults_also_hit_the_token_list(clever: Client) -> None:
    """R11.7: a failed listing changes nothing, so the sandbox must be able to make it fail."""
    clever.sandbox.misbehave("status", "^/oauth/tokens", status=502, times=1)
    with pytest.raises(requests.exceptions.HTTPError):
        clever.tokens()
    assert len(clever.tokens()) == 1


def test_unknown_kinds_and_bad_patterns_are_refused(clever: Client) -> None:
    """By the method, and by the control API."""
    with pytest.raises(UsageError, match="no misbehaviour"):
        clever.sandbox.misbehave("sulk", "schools")  # type: ignore[arg-type]  # no such kind, on purpose
    with pytest.raises(UsageError, match="regular expression"):
        clever.sandbox.misbehave("html", "(")
    assert clever.control("misbehave", kind="sulk", pattern="x").status_code == 400
    assert clever.control("misbehave", kind="html", pattern="schools", times=1).status_code == 200
    assert clever.get(SCHOOLS).text.startswith("<!DOCTYPE")
    assert clever.get(SCHOOLS).status_code == 200
