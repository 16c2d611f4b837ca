"""Runs the sandbox on a loopback port, in a thread of this process.

Does not belong here: what is served (`app.py`), and the command (`command.py`).
"""

import asyncio
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

import uvicorn

from roster_pipeline.errors import PermanentError
from roster_pipeline.sandbox.app import create_app
from roster_pipeline.sandbox.state import Sandbox

_LOOPBACK = "127.0.0.1"
# An answer that is under way when the server ends has so long; an endless one would keep the server up.
_GRACE_SECONDS = 1.0


class SandboxServer:
    """A context manager: the server answers during the block, and leaves no port, thread or connection open after it.

    Args:
        sandbox: what to serve. It may change at any time.
        port: 0 for any free one.
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
        )
        self._server = _Server(config)

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
        self._server.stop()
        self._thread.join()


class _Server(uvicorn.Server):
    """uvicorn's server, but it ends as soon as it can: tests start hundreds of servers, and uvicorn's own takes a fifth of a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End soon. Call from any thread."""
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # The loop is closed: the server has ended by itself.
                self._loop.call_soon_threadsafe(self._stopped.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # The number 0 lets it renew the header `Date`, once a second.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), 1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        give_up = time.monotonic() + _GRACE_SECONDS
        while self.server_state.connections and time.monotonic() < give_up:
            await asyncio.sleep(0.002)
        for task in list(self.server_state.tasks):
            task.cancel()
