"""A pooler in transaction mode, as PgBouncer is one: each transaction of a client gets any free server session.

Belongs here: the least of PostgreSQL's protocol that our driver speaks. Does not belong here: tests.
"""

import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from sqlalchemy import URL

_ENCRYPTION_REQUESTS = {80877103, 80877104}
_PARAMETERS = (
    "server_version",
    "server_encoding",
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "standard_conforming_strings",
    "integer_datetimes",
)
# After these messages of a client, the server answers up to ReadyForQuery, or asks for the rows of a COPY.
_ANSWERED = b"QScf"


class Pooler:
    """The free server sessions, and the threads of its clients.

    Attributes:
        takes_newest: the session that was given back last is given out first, as PgBouncer does; else the one that has waited longest.
    """

    def __init__(self, server: URL, sessions: int, *, takes_newest: bool) -> None:
        self.takes_newest = takes_newest
        url = server.set(drivername="postgresql").render_as_string(hide_password=False)
        self._opened = [psycopg.connect(url, autocommit=True, sslmode="disable") for _ in range(sessions)]
        self._parameters = {name: self._opened[0].info.parameter_status(name) for name in _PARAMETERS}
        self._free = deque(socket.socket(fileno=os.dup(each.fileno())) for each in self._opened)
        for each in self._free:
            each.setblocking(True)
        self._sockets = list(self._free)
        self._changed = threading.Condition()

    def serve(self, listener: socket.socket) -> None:
        """Serves clients until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._client, args=(client,), daemon=True).start()

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.close()
        for opened in self._opened:
            with suppress(psycopg.Error):
                opened.close()

    def _client(self, client: socket.socket) -> None:
        server: socket.socket | None = None
        with client, suppress(OSError, EOFError):
            if not self._greet(client):
                return
            while (message := _message(client))[:1] != b"X":
                server = server or self._take()
                server.sendall(message)
                if message[:1] in _ANSWERED and _answer(server, client) == b"I":
                    self._give_back(server)
                    server = None

    def _greet(self, client: socket.socket) -> bool:
        while True:
            (length,) = struct.unpack("!i", _exactly(client, 4))
            (code,) = struct.unpack("!i", _exactly(client, length - 4)[:4])
            if code not in _ENCRYPTION_REQUESTS:
                break
            client.sendall(b"N")
        parameters = b"".join(_packed(b"S", f"{name}\0{value}\0".encode()) for name, value in self._parameters.items())
        client.sendall(_packed(b"R", struct.pack("!i", 0)) + parameters + _packed(b"K", struct.pack("!ii", 1, 1)) + _packed(b"Z", b"I"))
        return bool(code == 3 << 16)

    def _take(self) -> socket.socket:
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            return self._free.pop() if self.takes_newest else self._free.popleft()

    def _give_back(self, server: socket.socket) -> None:
        with self._changed:
            self._free.append(server)
            self._changed.notify()


@contextmanager
def pooled(server: URL, folder: Path, *, sessions: int = 2, takes_newest: bool = True) -> Iterator[URL]:
    """The URL of a pooler in front of a database, which runs during the block."""
    pooler = Pooler(server, sessions, takes_newest=takes_newest)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / ".s.PGSQL.5432"))
        listener.listen(16)
        threading.Thread(target=pooler.serve, args=(listener,), daemon=True).start()
        try:
            yield server.set(host=None, port=None, query={"host": str(folder), "port": "5432"})
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            pooler.close()


def _message(source: socket.socket) -> bytes:
    head = _exactly(source, 5)
    (length,) = struct.unpack("!i", head[1:])
    return head + _exactly(source, length - 4)


def _answer(server: socket.socket, client: socket.socket) -> bytes:
    """Hands on the server's answer. Returns the state of the transaction, or nothing if the server waits for the rows of a COPY."""
    while True:
        message = _message(server)
        client.sendall(message)
        if message[:1] == b"Z":
            return message[5:6]
        if message[:1] == b"G":
            return b""


def _exactly(source: socket.socket, size: int) -> bytes:
    read = bytearray()
    while len(read) < size:
        part = source.recv(size - len(read))
        if not part:
            raise EOFError
        read += part
    return bytes(read)


def _packed(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body
