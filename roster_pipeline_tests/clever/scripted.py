"""A Clever that answers exactly as a test has scripted, over real HTTP, with faults that a correct server never has.

Does not belong here: a realistic district, which the sandbox has.
"""

import json
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

DISTRICT = "5a0c91b95c7cc000010d417c"
TOKEN = "marker-token-aaaa"
FRESH_TOKEN = "marker-token-bbbb"
CLIENT_SECRET = "marker-secret"


@dataclass
class Reply:
    """One answer.

    Attributes:
        body: bytes as they are, or anything else as JSON.
        length: the Content-Length to send; None sends the right one.
        drop: close the connection without an answer.
        raw: send this instead of HTTP, and close.
        gate: wait for this event before answering.
        drip_until: after the headers, send one space at a time until this event is set, then hang up.
    """

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    drop: bool = False
    raw: bytes = b""
    gate: threading.Event | None = None
    drip_until: threading.Event | None = None

    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Seen:
    """One request, as the server received it."""

    path: str
    query: dict[str, str]
    authorization: str
    port: int


def tokens(**by_district: str | int) -> dict[str, Any]:
    """The body of /oauth/tokens. A token that is a number has the wrong JSON type."""
    entries = [
        {"id": f"t{number}", "created": "2026-01-01T00:00:00.000Z", "owner": {"type": "district", "id": district}, "access_token": token}
        for number, (district, token) in enumerate(by_district.items())
    ]
    return {"data": entries, "links": [{"rel": "self", "uri": "/oauth/tokens?owner_type=district"}]}


def page(*records: Any, following: str | None = None) -> dict[str, Any]:
    """The body of a list page; `following` is the uri of its next link."""
    links = [{"rel": "self", "uri": "/v3.0/here"}] + ([{"rel": "next", "uri": following}] if following else [])
    return {"data": [{"data": record, "uri": "/v3.0/there"} for record in records], "links": links}


def school(clever_id: str, **more: Any) -> dict[str, Any]:
    """A school record."""
    return {"id": clever_id, "district": DISTRICT, "name": f"School {clever_id}"} | more


def person(clever_id: str, **more: Any) -> dict[str, Any]:
    """A student record."""
    roles = {"student": {"school": "s1", "schools": ["s1"], "sis_id": clever_id, "credentials": {"district_username": f"u{clever_id}"}}}
    return {"id": clever_id, "district": DISTRICT, "name": {"first": "Ada", "last": "Byron"}, "email": "a@b.example", "roles": roles} | more


class ScriptedClever:
    """Both of Clever's hosts in one server. `script(path, replies...)` queues answers for a path; the last one repeats.

    Attributes:
        seen: every request so far, without those that only count.
        counted: the requests that only count.
        count: the answer to `count=true` of every collection; at first it does not count.
        most_at_once: the largest number of requests that waited for their answer at the same time.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.most_at_once = 0
        self.counted: list[Seen] = []
        self.count = Reply({"links": []})
        self._at_once = 0
        self._replies: dict[str, list[Reply]] = defaultdict(list)
        self._changed = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and body are two writes; together with delayed ACKs that costs 40 ms a request

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that hangs up is what some tests are about

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, name="scripted-clever")
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.script("/oauth/tokens", Reply(tokens(**{DISTRICT: TOKEN})))

    def script(self, path: str, *replies: Reply) -> None:
        """Replaces what is queued for `path`."""
        self._replies[path] = list(replies)

    def paths(self) -> list[str]:
        """The data paths that were requested, in order."""
        return [seen.path for seen in self.seen if seen.path != "/oauth/tokens"]

    def wait_for_requests(self, path: str, count: int) -> bool:
        """Whether `count` requests of `path` came, waiting for them up to 10 s."""
        with self._changed:
            return self._changed.wait_for(lambda: sum(seen.path == path for seen in self.seen) >= count, timeout=10)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        with self._changed:
            query = {key: values[-1] for key, values in parse_qs(url.query).items()}
            seen = self.counted if "count" in query else self.seen
            seen.append(Seen(url.path, query, handler.headers.get("Authorization", ""), handler.client_address[1]))
            self._changed.notify_all()
            queue = self._replies[url.path] or [Reply(b"<html>no such page</html>", 404)]
            if "count" in query:
                queue = [self.count]
            reply = queue.pop(0) if len(queue) > 1 else queue[0]
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        if reply.gate:
            reply.gate.wait(10)
        with self._changed:
            self._at_once -= 1
        if reply.drop or reply.raw:
            handler.wfile.write(reply.raw)
            handler.close_connection = True
            return
        body = reply.encoded()
        # `send_response` would add a second `Date`.
        (handler.send_response_only if "Date" in reply.headers else handler.send_response)(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(1_000_000 if reply.drip_until else len(body) if reply.length is None else reply.length))
        handler.end_headers()
        handler.wfile.write(body)
        if reply.drip_until:
            while not reply.drip_until.wait(0.01):
                handler.wfile.write(b" ")
        handler.close_connection = reply.drip_until is not None or reply.length is not None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
