"""The embedded server: made from nothing, shared, survived by its data, stopped by its last user, and private."""

import fcntl
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import PGconn, Ping

from roster_pipeline.database import embedded
from roster_pipeline.database.embedded import EmbeddedServer
from roster_pipeline.errors import PermanentError

REPOSITORY = Path(__file__).parents[2]
AS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not AS_ROOT, reason="the system user and its directories exist for root only")

# One command: uses the server until its standard input is closed.
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


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A ROSTER_HOME of the test's own; its server must be stopped when the test ends."""
    yield tmp_path / "home"
    base = (tmp_path / "home" / "postgres").resolve()
    if not (base / "server.lock").exists():
        return  # No server was ever made here.
    with (base / "server.lock").open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left_running = False
        except BlockingIOError:
            left_running = True
            os.kill(int((base / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
    shutil.rmtree(base)
    assert not left_running


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
    assert command.stdout is not None
    url = command.stdout.readline().strip()
    assert url, command.communicate()[1]
    return url


def connect(server: EmbeddedServer) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(server.url("postgres").set(drivername="postgresql").render_as_string(), autocommit=True)


def postmaster(home: Path) -> int:
    return int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])


def in_fork(work: Callable[[], str], user: str | None = None) -> str:
    """What `work` returns, or its traceback, from a forked child, run as `user`.

    Forked, because the interpreter itself may live in a home that `user` cannot enter.
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
            said = work()
        except BaseException:  # noqa: BLE001 -- the parent's assertion shows it
            said = traceback.format_exc()
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_two_commands_start_from_nothing_and_the_last_one_out_stops_the_server(home: Path) -> None:
    commands = [start_command(home), start_command(home)]
    urls = {url_of(command) for command in commands}
    assert len(urls) == 1
    (url,) = urls
    with psycopg.connect(url) as connection:
        tables = connection.execute("select relname from pg_class where relname like 'visit_%'").fetchall()
        assert {name for (name,) in tables} == {f"visit_{command.pid}" for command in commands}

    _, errors = commands[0].communicate()
    assert commands[0].returncode == 0, errors
    with psycopg.connect(url) as connection:
        connection.execute("select 1")

    _, errors = commands[1].communicate()
    assert commands[1].returncode == 0, errors
    assert PGconn.ping(url.encode()) == Ping.NO_RESPONSE


def test_a_killed_command_neither_blocks_nor_keeps_the_server(home: Path) -> None:
    killed = start_command(home)
    url = url_of(killed)
    killed.kill()
    killed.communicate()
    assert PGconn.ping(url.encode()) == Ping.OK
    with EmbeddedServer(home) as server, connect(server) as connection:
        assert connection.execute("select to_regclass(%s) is not null", [f"visit_{killed.pid}"]).fetchone() == (True,)
    assert PGconn.ping(url.encode()) == Ping.NO_RESPONSE


def test_a_killed_server_is_recovered_with_its_data_while_others_use_it(home: Path) -> None:
    with EmbeddedServer(home) as first:
        with connect(first) as connection:
            connection.execute("create table kept as select 1 as value")
        os.kill(postmaster(home), signal.SIGKILL)
        with EmbeddedServer(home) as second, connect(second) as connection:
            assert connection.execute("select value from kept").fetchone() == (1,)
        with connect(first) as connection:
            assert connection.execute("select value from kept").fetchone() == (1,)


def test_a_process_number_on_file_that_now_belongs_to_a_stranger_stops_nothing(home: Path) -> None:
    """Neither the last user of a server that was killed, nor the next start, may believe the number."""
    with EmbeddedServer(home):
        pid_file = home / "postgres" / "data" / "postmaster.pid"
        owner = pid_file.stat().st_uid if AS_ROOT else None
        stranger = subprocess.Popen(["sleep", "600"], user=owner)
        server_process = postmaster(home)
        os.kill(server_process, signal.SIGKILL)
        pid_file.write_text(pid_file.read_text().replace(str(server_process), str(stranger.pid), 1))
    try:
        with EmbeddedServer(home) as server, connect(server) as connection:
            connection.execute("select 1")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_the_servers_lock_is_held_exactly_as_long_as_its_processes_live(home: Path) -> None:
    """So that a server which is alive but does not answer yet is never started twice."""
    with EmbeddedServer(home):
        lock = os.open(home / "postgres" / "server.lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(postmaster(home), signal.SIGKILL)
        fcntl.flock(lock, fcntl.LOCK_EX)  # Granted when the last process of the killed server is gone.
        os.close(lock)


def test_keep_running_leaves_the_server_to_the_next_command(home: Path) -> None:
    with EmbeddedServer(home, keep_running=True) as server:
        url = server.url("postgres").set(drivername="postgresql").render_as_string()
    assert PGconn.ping(url.encode()) == Ping.OK
    with EmbeddedServer(home):
        pass
    assert PGconn.ping(url.encode()) == Ping.NO_RESPONSE


def test_a_forked_child_does_not_stop_its_parents_server(home: Path) -> None:
    with EmbeddedServer(home) as server:

        def leave() -> str:
            server.__exit__(None, None, None)
            return "left"

        assert in_fork(leave) == "left"
        with connect(server) as connection:
            connection.execute("select 1")


def test_the_cluster_is_utf8_durable_and_reachable_by_socket_only(home: Path) -> None:
    expected = {
        "listen_addresses": "",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "jit": "off",
        "TimeZone": "UTC",
        "max_connections": "100",
        "server_encoding": "UTF8",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "15min",
    }
    with EmbeddedServer(home) as server, connect(server) as connection:
        assert {name: value for name in expected for (value,) in connection.execute(f"show {name}")} == expected
        locale = connection.execute("select datlocprovider, datlocale from pg_database where datname = 'template0'").fetchone()
        assert locale == ("b", "C.UTF-8")
        methods = connection.execute("select distinct type, auth_method from pg_hba_file_rules").fetchall()
        assert methods == [("local", "peer")]
        mode = Path(str(server.url("postgres").query["host"])).stat().st_mode
        assert stat.S_IMODE(mode) == 0o700


def test_better_defaults_of_a_release_apply_at_the_next_start(home: Path) -> None:
    with EmbeddedServer(home):
        pass
    conf = home / "postgres" / "postgresql.conf"
    conf.write_text(conf.read_text().replace("jit = 'off'", "jit = 'on'"))
    with EmbeddedServer(home) as server, connect(server) as connection:
        assert connection.execute("show jit").fetchone() == ("off",)
        connection.execute("alter system set jit = on")
    with EmbeddedServer(home) as server, connect(server) as connection:
        assert connection.execute("show jit").fetchone() == ("on",)


def test_the_servers_log_never_holds_values(home: Path) -> None:
    """SPEC 12: a failed statement's text, its parameters, the message and the DETAIL line can each hold a child's name."""
    marker = "Zebulon-Marker"
    statements = [
        f"select '{marker}'::int",
        f"select {marker}",
        f"insert into people values ('{marker}'), ('{marker}')",
        f"do $$ begin raise warning '{marker}'; end $$",
        f"do $$ begin raise exception '{marker}'; end $$",
    ]
    with EmbeddedServer(home) as server, connect(server) as connection:
        connection.execute("create table people (name text primary key)")
        for statement in statements:
            with suppress(psycopg.Error):
                connection.execute(statement)
    log = (home / "postgres" / "server.log").read_text()
    assert "ready to accept connections" in log
    assert marker.lower() not in log.lower()


def test_another_postgresql_version_is_refused_untouched(home: Path) -> None:
    with EmbeddedServer(home):
        pass
    version = home / "postgres" / "data" / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(PermanentError, match="made by PostgreSQL 17") as refused:
        EmbeddedServer(home).__enter__()
    assert "pg_dump" in refused.value.hint
    assert version.read_text() == "17\n"


def test_a_server_that_cannot_start_shows_its_last_words(home: Path) -> None:
    with EmbeddedServer(home) as server, connect(server) as connection:
        connection.execute("alter system set shared_preload_libraries = 'no_such_library'")
    with pytest.raises(PermanentError, match="no_such_library") as refused:
        EmbeddedServer(home).__enter__()
    assert "server.log" in str(refused.value)


def test_a_full_disk_is_called_that_and_leaves_nothing_half_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        programs = Path(directory)
        programs.chmod(0o755)
        (programs / "initdb").write_text(
            "#!/bin/sh\n[ $1 = --version ] && exit\ntouch $2/half\necho 'error: could not write: No space left on device'\nexit 1\n"
        )
        (programs / "initdb").chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setattr(embedded, "_packaged_programs", lambda: programs)
            with pytest.raises(PermanentError, match="no disk space"):
                EmbeddedServer(home).__enter__()
    with EmbeddedServer(home) as server, connect(server) as connection:
        connection.execute("select 1")


@only_root
def test_roots_server_opens_no_directory_above_a_private_project(home: Path) -> None:
    project = home.parent / "project"
    project.mkdir(0o700)
    parents = [project, *project.parents]
    before = [(path.stat().st_mode, path.stat().st_uid) for path in parents]
    private = project / ".roster"
    try:
        with EmbeddedServer(private) as server, connect(server) as connection:
            connection.execute("select 1")
            assert pwd.getpwuid((private / "postgres" / "data").stat().st_uid).pw_name == embedded.SYSTEM_USER
        assert [(path.stat().st_mode, path.stat().st_uid) for path in parents] == before
        assert (private / "postgres").readlink().parent == embedded.SYSTEM_STATE
    finally:
        shutil.rmtree((private / "postgres").resolve())


@only_root
def test_roots_server_runs_copied_programs_where_the_package_is_in_a_private_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    real = embedded._packaged_programs()
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        root = Path(directory)
        root.chmod(0o755)
        private = root / "private"
        private.mkdir(0o700)
        package = real.parents[1]
        for part in (package, package.with_name(f"{package.name}.libs")):
            (private / part.name).symlink_to(part)
        monkeypatch.setattr(embedded, "_packaged_programs", lambda: private / real.relative_to(package.parent))
        monkeypatch.setattr(embedded, "SYSTEM_STATE", root / "state")
        with EmbeddedServer(private / "home") as server, connect(server) as connection:
            row = connection.execute("select setting from pg_settings where name = 'config_file'").fetchone()
            assert row is not None
            assert str(row[0]).startswith(str(root / "state"))
        (copy,) = (root / "state").glob("postgres-18.*")
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        made = copy.stat().st_mtime_ns
        with EmbeddedServer(private / "home"):
            assert copy.stat().st_mtime_ns == made


@only_root
def test_root_refuses_the_cluster_of_an_ordinary_user_and_a_moved_home(home: Path) -> None:
    (home / "postgres").mkdir(parents=True)
    with pytest.raises(PermanentError, match="another user"):
        EmbeddedServer(home).__enter__()
    (home / "postgres").rmdir()
    with EmbeddedServer(home):
        pass
    moved = home.rename(home.parent / "moved")
    with pytest.raises(PermanentError, match="moved or copied"):
        EmbeddedServer(moved).__enter__()
    moved.rename(home)


@only_root
def test_without_useradd_the_error_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "SYSTEM_USER", "roster-no-such-user")
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(PermanentError, match="no useradd") as refused:
        EmbeddedServer(home).__enter__()
    assert "roster-no-such-user" in refused.value.hint


@only_root
def test_an_ordinary_user_runs_it_at_home_and_nobody_else_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the path is too long for a socket, or holds a comma, which libpq would take for a list of hosts."""
    programs = embedded._programs_for(embedded._system_account())
    monkeypatch.setattr(embedded, "_packaged_programs", lambda: programs)
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        Path(directory).chmod(0o755)
        homes = {Path(directory) / "home": True, Path(directory) / ("long-" * 20): False, Path(directory) / "a, b's \\ home": False}
        for home, beside in homes.items():

            def use(home: Path = home) -> str:
                with EmbeddedServer(home) as server, connect(server) as connection:
                    socket = Path(str(server.url("postgres").query["host"]))
                    assert stat.S_IMODE(socket.stat().st_mode) == 0o700
                    user = connection.execute("select count(*) from pg_stat_activity where usename = 'roster'").fetchone()
                    assert user is not None
                    assert (home / "postgres" / "data").owner() == "nobody"
                    return f"works at {socket}"

            said = in_fork(use, "nobody")
            assert said.startswith("works at"), said
            socket = Path(said.removeprefix("works at "))
            assert (socket == home / "postgres" / "socket") is beside
            if not beside:
                assert socket.parent == Path("/tmp")  # noqa: S108 -- that is the place in question
                socket.rmdir()
        with pytest.raises(PermanentError, match="another user"):
            EmbeddedServer(Path(directory) / "home").__enter__()


@only_root
def test_another_user_cannot_connect(home: Path) -> None:
    with EmbeddedServer(home) as server:

        def knock() -> str:
            try:
                connect(server)
            except psycopg.OperationalError:
                return "refused"
            return "let in"

        assert in_fork(knock, "nobody") == "refused"
        # Even past the private directory: the server asks the kernel who is calling.
        socket = Path(str(server.url("postgres").query["host"]))
        for path in (socket, socket.parent, socket / f".s.PGSQL.{embedded.PORT}"):
            path.chmod(0o777)
        assert in_fork(knock, "nobody") == "refused"
