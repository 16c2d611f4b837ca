"""Receivers on loopback: a webhook and a mail server. They record what they receive, and a test sets what they answer.

Does not belong here: assertions.
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

SECRET = "s3cr3t-token"


class Webhook:
    """A real HTTP server.

    Attributes:
        received: title and text of everything it has accepted, in order.
        attempts: how often it was called.
        answers: HTTP statuses of its next answers; after them it accepts.
        gate: an answer waits until it is set.
    """

    def __init__(self, port: int) -> None:
        self.received: list[tuple[str, str]] = []
        self.attempts = 0
        self.answers: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self._port = port

    def url(self, more: str = "method=POST") -> str:
        """The Apprise URL, which holds a secret. `more` are options of Apprise, such as `rto=1`."""
        return f"json://user:{SECRET}@127.0.0.1:{self._port}/{SECRET}?{more}"


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A webhook that accepts everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            here.attempts += 1
            here.gate.wait(30)
            status = here.answers.pop(0) if here.answers else 200
            if status == 200:
                sent = json.loads(body)
                here.received.append((sent["title"], sent["message"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(f"what the receiver says, {SECRET}".encode())

        def log_message(self, *_: object) -> None:
            """Print nothing, because tests check what is printed."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            """Ignore a sender that has closed its connection."""

    with Server(("127.0.0.1", 0), Handler) as server:
        here = Webhook(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield here
        finally:
            here.gate.set()
            server.shutdown()
            thread.join()


class Mailbox:
    """A real SMTP server.

    Attributes:
        received: subject and text of every mail, in order.
        recipients: the recipients of every mail.
        refusing: refuse every mail for now.
    """

    def __init__(self) -> None:
        self.received: list[tuple[str, str]] = []
        self.recipients: list[str] = []
        self.refusing = False
        self.port = 0

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd calls it by this name
        if self.refusing:
            return f"451 later, {SECRET}"
        mail = message_from_bytes(envelope.content, policy=default)
        body = mail.get_body(("plain",))
        assert body is not None
        self.received.append((str(mail["Subject"]), body.get_content().replace("\r\n", "\n").rstrip("\n")))
        self.recipients += envelope.rcpt_tos
        return "250 OK"

    def url(self, to: str = "oncall@example.org") -> str:
        """The Apprise URL."""
        return f"mailto://127.0.0.1:{self.port}?from=roster@example.org&to={to}"


class _AnyPort(Controller):
    """A controller that binds to a free port, and knows it before anybody connects."""

    def _create_server(self) -> Any:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        return self.loop.create_server(self._factory_invoker, sock=listening)


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """A mail server that accepts everything."""
    here = Mailbox()
    controller = _AnyPort(here, hostname="127.0.0.1")
    controller.start()
    here.port = controller.port
    try:
        yield here
    finally:
        controller.stop()
