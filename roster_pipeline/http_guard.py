"""A guard in front of a web application that has no sign-in of its own: only pages of the application itself may use it.

Belongs here: which requests pass. Does not belong here: the application behind it.

A browser sends requests to any address for any page that its user opens. So a server on this machine, or behind a proxy's sign-in, is
reached by every page. What the browser says about where a request comes from is checked here.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_HERE = {"localhost", "127.0.0.1", "::1"}
_READ_ONLY = {"GET", "HEAD"}
# A page of the application is opened by a link, for example in an alert. Nothing else may come from another site.
_OWN_SITE = {"same-origin", "none", ""}


class Guard:
    """An ASGI application that hands on what may pass, and answers 403 with the reason to anything else.

    Args:
        application: the application behind it.
        names: the hosts under which it may be asked for, besides those of this machine, without port.
    """

    def __init__(self, application: Application, *, names: Iterable[str] = ()) -> None:
        self._application = application
        self._names = _HERE | {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self._application(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refusal})
        else:
            body = json.dumps({"error": refusal}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> str | None:
        """Why this request does not pass; None if it does."""
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            if (key := name.decode("latin-1").lower()) in headers and key in ("host", "origin", "content-type"):
                return f"The request has two headers {key}."
            headers[key] = value.decode("latin-1").strip()
        # Against DNS rebinding: a name of somebody else that leads to this machine.
        if _name(headers.get("host", "")) not in self._names:
            return "This server is not asked for by its own name. ROSTER_UI_URL must be the address that people open."
        method = scope.get("method", "GET")
        if "origin" in headers and _origin(headers["origin"]) != _host(headers["host"]):
            return "The request comes from a page of another site."
        if scope["type"] == "websocket":
            return None
        if headers.get("sec-fetch-site", "") not in _OWN_SITE and not _opens_a_page(scope, method, headers):
            return "The request comes from a page of another site."
        if method in _READ_ONLY:
            return "A query must be sent by POST." if _is_graphql(scope) and b"query=" in scope.get("query_string", b"") else None
        # Other types can be sent by a form of any page, and no browser asks first.
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return "The content type must be application/json."
        return None


def _opens_a_page(scope: Scope, method: str, headers: dict[str, str]) -> bool:
    is_document = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return method in _READ_ONLY and is_document and not _is_graphql(scope)


def _is_graphql(scope: Scope) -> bool:
    return str(scope.get("path", "")).rstrip("/").lower().endswith("graphql")


def _host(text: str) -> tuple[str, int | None]:
    """The name and the port of a Host header, or of an origin without its scheme."""
    try:
        parts = urlsplit(f"//{text}")
        return (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return "", None


def _name(text: str) -> str:
    return _host(text)[0]


def _origin(text: str) -> tuple[str, int | None]:
    """The same of an Origin header. A port that is the scheme's own is left out, as browsers do in Host."""
    scheme, _, rest = text.partition("://")
    return _host(rest) if scheme in ("http", "https") else ("", -1)
