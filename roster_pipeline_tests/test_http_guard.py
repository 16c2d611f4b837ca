"""R11.9: no page of another site can use a server of ours: what a browser sends for one is refused, and our own pages work."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roster_pipeline.http_guard import Guard

OWN = {"host": "127.0.0.1:3000"}
JSON = {"content-type": "application/json"}
NAME = "roster.example"


def passes(kind: str, path: str, headers: Mapping[str, str], *, method: str = "GET", query: str = "") -> bool:
    """Whether the application behind the guard sees the request."""
    seen: list[Mapping[str, Any]] = []
    sent: list[Mapping[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": kind, "path": path, "query_string": query.encode(), "headers": pairs}
    asyncio.run(Guard(application, names=[NAME])(scope | ({"method": method} if kind == "http" else {}), receive, send))
    if not seen:
        assert sent[0].get("status", sent[0].get("code")) in (403, 1008)
    return bool(seen)


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "localhost", "[::1]:3000", NAME, f"{NAME}:8443", "LOCALHOST:1"])
def test_our_own_pages_work(host: str) -> None:
    own = {"host": host}
    origin = {"origin": f"https://{host}", "sec-fetch-site": "same-origin"}
    assert passes("http", "/", own | {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"})
    assert passes("http", "/graphql", own | origin | JSON, method="POST")
    assert passes("http", "/graphql", own | {"content-type": "application/json; charset=utf-8"}, method="POST")
    assert passes("http", "/static/main.js", own | {"sec-fetch-site": "same-origin"})
    assert passes("websocket", "/graphql", own | {"origin": f"http://{host}"})
    # A link in a mail or a chat.
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert passes("http", "/runs/1", own | link)


CROSS = {"sec-fetch-site": "cross-site"}
IMAGE = CROSS | {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
FRAME = CROSS | {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}


@pytest.mark.parametrize(
    ("kind", "method", "path", "query", "headers"),
    [
        ("http", "GET", "/graphql", "query=mutation{x}", OWN),
        ("http", "GET", "/prefix/GraphQL/", "variables=1&query=mutation{x}", OWN),
        ("http", "GET", "/graphql", "", OWN | IMAGE),
        ("http", "GET", "/", "", OWN | FRAME),
        ("http", "GET", "/", "", OWN | {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}),
        ("http", "POST", "/graphql", "", OWN | JSON | {"origin": "https://evil.example"}),
        ("http", "POST", "/graphql", "", OWN | JSON | {"origin": "http://127.0.0.1:3001"}),
        ("http", "POST", "/graphql", "", OWN | JSON | {"origin": "null"}),
        ("http", "POST", "/graphql", "", OWN | JSON | CROSS),
        ("http", "POST", "/graphql", "", OWN | {"content-type": "text/plain"}),
        ("http", "POST", "/graphql", "", OWN | {"content-type": "application/x-www-form-urlencoded"}),
        ("http", "POST", "/graphql", "", OWN | {"content-type": "multipart/form-data; boundary=application/json"}),
        ("http", "POST", "/report_asset_check/app/users", "check_name=synced&passed=true", OWN),
        ("http", "GET", "/", "", {"host": "attacker-rebind.example:3000"}),
        ("http", "GET", "/", "", {"host": "127.0.0.1.evil.example"}),
        ("http", "GET", "/", "", {"host": f"{NAME}.evil.example"}),
        ("http", "GET", "/", "", {}),
        ("websocket", "GET", "/graphql", "", OWN | {"origin": "https://evil.example"}),
        ("websocket", "GET", "/graphql", "", {"host": "attacker-rebind.example"}),
    ],
)
def test_what_a_page_of_another_site_sends_is_refused(kind: str, method: str, path: str, query: str, headers: dict[str, str]) -> None:
    """R11.9."""
    assert not passes(kind, path, headers, method=method, query=query)


SITES = st.sampled_from(["cross-site", "same-site"])
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])


@given(method=METHODS, path=st.text(max_size=20).map(lambda text: f"/{text}"), origin=st.text(alphabet=st.characters(max_codepoint=255)))
def test_no_request_with_a_foreign_origin_passes(method: str, path: str, origin: str) -> None:
    allowed = origin.strip().lower() in {"http://127.0.0.1:3000", "https://127.0.0.1:3000"}
    assert allowed or not passes("http", path, OWN | JSON | {"origin": origin}, method=method)


@given(method=METHODS, site=SITES, mode=st.sampled_from(["cors", "no-cors", "websocket", "navigate"]), kind=st.text(max_size=9))
def test_from_another_site_only_a_page_can_be_opened(method: str, site: str, mode: str, kind: str) -> None:
    headers = (
        OWN | JSON | {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": kind.encode("latin-1", "ignore").decode("latin-1")}
    )
    opens = method in ("GET", "HEAD") and mode == "navigate" and headers["sec-fetch-dest"].strip() == "document"
    assert passes("http", "/runs", headers, method=method) == opens
