"""The embedded server: created on first use, shared by commands, kept with its data after a crash, stopped by its last user."""

import fcntl
import os
import signal
import stat
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import PGconn, Ping

from roster_pipeline.database import embedded_place
from roster_pipeline.database.embedded import EmbeddedServer
from roster_pipeline.errors import PermanentError
from roster_pipeline_tests.database.servers import connect, in_fork, postmaster, start_command, url_of

AS_ROOT = os.geteuid() == 0


def test_two_commands_create_the_server_and_the_last_one_stops_it(home: Path) -> None:
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


def test_after_a_killed_command_the_next_one_uses_the_server_and_stops_it(home: Path) -> None:
    killed = start_command(home)
    url = url_of(killed)
    killed.kill()
    killed.communicate()
    assert PGconn.ping(url.encode()) == Ping.OK
    with EmbeddedServer(home) as server, connect(server) as connection:
        assert connection.execute("select to_regclass(%s) is not null", [f"visit_{killed.pid}"]).fetchone() == (True,)
    assert PGconn.ping(url.encode()) == Ping.NO_RESPONSE


def test_a_killed_server_is_started_again_with_its_data(home: Path) -> None:
    with EmbeddedServer(home) as first:
        with connect(first) as connection:
            connection.execute("create table things as select 1 as value")
        os.kill(postmaster(home), signal.SIGKILL)
        with EmbeddedServer(home) as second, connect(second) as connection:
            assert connection.execute("select value from things").fetchone() == (1,)
        with connect(first) as connection:
            assert connection.execute("select value from things").fetchone() == (1,)


def test_another_process_with_the_number_of_the_pid_file_is_not_stopped(home: Path) -> None:
    """After the server is killed, neither its last user nor the next start may take that process for the server."""
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


def test_the_servers_lock_is_held_until_its_last_process_ends(home: Path) -> None:
    """So a server that is alive, but does not answer yet, is never started twice."""
    with EmbeddedServer(home):
        lock = os.open(home / "postgres" / "server.lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(postmaster(home), signal.SIGKILL)
        fcntl.flock(lock, fcntl.LOCK_EX)  # Granted when the last process of the killed server has ended.
        os.close(lock)


def test_with_keep_running_the_next_command_stops_the_server(home: Path) -> None:
    with EmbeddedServer(home, keep_running=True) as server:
        url = server.url("postgres").set(drivername="postgresql").render_as_string()
    assert PGconn.ping(url.encode()) == Ping.OK
    with EmbeddedServer(home):
        pass
    assert PGconn.ping(url.encode()) == Ping.NO_RESPONSE


def test_a_forked_child_does_not_stop_its_parents_server(home: Path) -> None:
    with EmbeddedServer(home) as server:

        def exit_server() -> str:
            server.__exit__(None, None, None)
            return "done"

        assert in_fork(exit_server) == "done"
        with connect(server) as connection:
            connection.execute("select 1")


def test_the_cluster_is_utf8_and_durable_and_listens_on_a_socket_only(home: Path) -> None:
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


def test_new_defaults_of_a_release_apply_at_the_next_start(home: Path) -> None:
    with EmbeddedServer(home):
        pass
    conf = home / "postgres" / "postgresql.conf"
    conf.write_text(conf.read_text().replace("jit = 'off'", "jit = 'on'"))
    with EmbeddedServer(home) as server, connect(server) as connection:
        assert connection.execute("show jit").fetchone() == ("off",)
        connection.execute("alter system set jit = on")
    with EmbeddedServer(home) as server, connect(server) as connection:
        assert connection.execute("show jit").fetchone() == ("on",)


def test_the_servers_log_never_contains_values(home: Path) -> None:
    """SPEC 12: a failed statement's text, its parameters, its message and its DETAIL line can each contain a child's name."""
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


def test_another_postgresql_version_is_refused_and_left_unchanged(home: Path) -> None:
    with EmbeddedServer(home):
        pass
    version = home / "postgres" / "data" / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(PermanentError, match="made by PostgreSQL 17") as refused:
        EmbeddedServer(home).__enter__()
    assert "pg_dump" in refused.value.hint
    assert version.read_text() == "17\n"


def test_a_server_that_cannot_start_shows_its_last_log_lines(home: Path) -> None:
    with EmbeddedServer(home) as server, connect(server) as connection:
        connection.execute("alter system set shared_preload_libraries = 'no_such_library'")
    with pytest.raises(PermanentError, match="no_such_library") as refused:
        EmbeddedServer(home).__enter__()
    assert "server.log" in str(refused.value)


def test_a_full_disk_has_its_own_message_and_the_next_start_works(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        programs = Path(directory)
        programs.chmod(0o755)
        (programs / "initdb").write_text(
            "#!/bin/sh\n[ $1 = --version ] && exit\ntouch $2/half\necho 'error: could not write: No space left on device'\nexit 1\n"
        )
        (programs / "initdb").chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setattr(embedded_place, "packaged_programs", lambda: programs)
            with pytest.raises(PermanentError, match="no disk space"):
                EmbeddedServer(home).__enter__()
    with EmbeddedServer(home) as server, connect(server) as connection:
        connection.execute("select 1")
