"""Using an embedded server in a test: connections, commands of their own process, forked children.

Does not belong here: tests.
"""

import os
import pwd
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import psycopg

from roster_pipeline.database.embedded import EmbeddedServer

REPOSITORY = Path(__file__).parents[2]

# One command: it uses the server until its standard input is closed.
COMMAND = """
import os
import sys
from pathlib import Path
import psycopg
from roster_pipeline.database.embedded import EmbeddedServer
with EmbeddedServer(Path(sys.argv[1])) as server:
    url = server.url("postgres").set(drivername="postgresql").render_as_string()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create table visit_{os.getpid()} ()")
    print(url, flush=True)
    sys.stdin.read()
"""


def start_command(home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(home)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def url_of(command: "subprocess.Popen[str]") -> str:
    """The URL of the command's server, when it answers."""
    assert command.stdout is not None
    url = command.stdout.readline().strip()
    assert url, command.communicate()[1]
    return url


def connect(server: EmbeddedServer) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(server.url("postgres").set(drivername="postgresql").render_as_string(), autocommit=True)


def postmaster(home: Path) -> int:
    """The process id of the server."""
    return int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])


def in_fork(work: Callable[[], str], user: str | None = None) -> str:
    """Runs `work` in a forked child, as `user`, and returns its result or its traceback.

    Forked, because `user` may not be able to enter the directory of the Python interpreter.
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            if user is not None:
                entry = pwd.getpwnam(user)
                os.setgroups([])
                os.setgid(entry.pw_gid)
                os.setuid(entry.pw_uid)
                os.chdir("/")
            result = work()
        except BaseException:  # noqa: BLE001 -- the parent's assertion shows it
            result = traceback.format_exc()
        os.write(writing, result.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        result = pipe.read()
    os.waitpid(child, 0)
    return result
