"""Runs the sandbox on a loopback port, in a thread of this process.

Does not belong here: what is served (`app.py`), and the command (`command.py`).
"""

import socket
import threading
import time
from types import TracebackType
from typing import Self

import uvicorn

from roster_pipeline.errors import PermanentError
from roster_pipeline.sandbox.app import create_app
from roster_pipeline.sandbox.state import Sandbox

_LOOPBACK = "127.0.0.1"


class SandboxServer:
    """A context manager: answering when entered; port, thread and connections given back when left.

    Args:
        sandbox: what to serve; change it at any time.
        port: 0 takes a free one.
        gzip: compress answers for clients that accept it.
    """

    def __init__(self, sandbox: Sandbox, port: int = 0, *, gzip: bool = False) -> None:
        self.sandbox = sandbox
        self._port = port
        config = uvicorn.Config(
            create_app(sandbox, gzip=gzip),
            log_config=None,
            log_level="error",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,  # seconds; an endless answer would keep the server up
        )
        self._server = uvicorn.Server(config)

    @property
    def url(self) -> str:
        """Base URL of both hosts, without the version: CLEVER_API_URL and CLEVER_AUTH_URL."""
        return f"http://{_LOOPBACK}:{self._port}"

    def __enter__(self) -> Self:
        """Starts serving.

        Raises:
            PermanentError: the port is in use or not allowed.
        """
        try:
            listener = socket.create_server((_LOOPBACK, self._port))
        except OSError as error:
            reason = f"The sandbox cannot listen on {_LOOPBACK}:{self._port}: {error.strerror}."
            raise PermanentError(reason, hint="Choose another --port, or 0 for any free one.") from error
        self._port = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, name=f"sandbox-{self._port}", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.should_exit = True
        self._thread.join()
