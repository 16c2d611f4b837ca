"""Middleware that breaks answers of the API as the active faults say.

Belongs here: what each kind of fault does to an HTTP answer. Does not belong here: which request it hits (`faults.py`).
"""

import json
from collections.abc import AsyncIterator

import anyio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roster_pipeline.sandbox.api import JSON, html_error, json_message
from roster_pipeline.sandbox.district import encode
from roster_pipeline.sandbox.faults import Fault
from roster_pipeline.sandbox.pages import Query
from roster_pipeline.sandbox.state import Sandbox, Seen


class Misbehaving:
    """ASGI middleware: records every request in `sandbox.seen`, and breaks the answer if a fault hits the request."""

    def __init__(self, app: ASGIApp, sandbox: Sandbox) -> None:
        self._app = app
        self._sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request. Requests to the control API, and everything that is not HTTP, pass unchanged."""
        if scope["type"] != "http" or scope["path"].startswith("/_sandbox/"):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        query = Query(request.url.path, request.url.query)
        with self._sandbox.lock:
            fault = self._sandbox.faults.take(query.uri)

        async def recording(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._sandbox.seen.append(Seen(query.uri, message["status"]))
            await send(message)

        if fault is None:
            await self._app(scope, receive, recording)
        elif fault.kind == "delay":
            await anyio.sleep(fault.seconds)
            await self._app(scope, receive, recording)
        elif (fake := self._fake(fault)) is not None:
            await fake(scope, receive, recording)
        else:
            await self._break(fault, query, scope, receive, recording)

    def _fake(self, fault: Fault) -> Response | None:
        """The broken answer, if it can be made without the correct answer; else None."""
        match fault.kind:
            case "status" if fault.status == 429:
                reset = {} if fault.reset_s is None else {"X-RateLimit-Reset": str(int(self._sandbox.now().timestamp() + fault.reset_s))}
                return Response(b"", 429, reset)
            case "status" if fault.status in (401, 403):
                return json_message(fault.status, "Unauthorized" if fault.status == 401 else "Forbidden")
            case "status":
                return html_error(fault.status, "Something went wrong")
            case "html":
                return html_error(200, "Down for maintenance")
            case "body":
                return Response(encode(fault.body), media_type=JSON)
            case "drip":
                return StreamingResponse(_drip(fault.seconds), media_type=JSON)
        return None

    async def _break(self, fault: Fault, query: Query, scope: Scope, receive: Receive, send: Send) -> None:
        """Gets the correct answer, breaks it, and sends it."""
        body = b""
        start: Message = {}

        async def collect(message: Message) -> None:
            nonlocal body, start
            if message["type"] == "http.response.start":
                start = message
            else:
                body += message.get("body", b"")

        await self._app(scope, receive, collect)
        if fault.kind == "cut":
            await send(start)
            # The body is shorter than its Content-Length, so the server closes the socket when we return.
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            return
        if start["status"] == 200:
            body = body[: len(body) // 2] if fault.kind == "truncated" else _break_list(fault, query, body)
        headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
        await send({**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})


def _break_list(fault: Fault, query: Query, body: bytes) -> bytes:
    page = json.loads(body)
    next_uri = {
        "next_self": query.uri,
        "next_earlier": query.moved("starting_after", "0" * 24),
        "next_without_cursor": query.path,
        "next_other_host": f"https://clever.invalid{query.moved('starting_after', 'f' * 24)}",
    }
    others = [link for link in page["links"] if link["rel"] != "next"]
    if fault.kind in next_uri:
        page["links"] = [*others, {"rel": "next", "uri": next_uri[fault.kind]}]
    elif fault.kind == "next_renamed":
        page["links"] = [link | {"rel": link["rel"].replace("next", "following")} for link in page["links"]]
    elif fault.kind == "without_next":
        page["links"] = others
    else:
        page.pop(fault.kind.removeprefix("without_"), None)
    return encode(page)


async def _drip(seconds: float) -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await anyio.sleep(seconds)
