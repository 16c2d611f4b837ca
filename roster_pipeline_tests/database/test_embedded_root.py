"""The embedded server of root: it runs as a system user, changes nothing above a private directory, and lets no other user in."""

import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path

import psycopg
import pytest

from roster_pipeline.database import embedded_place
from roster_pipeline.database.embedded import EmbeddedServer
from roster_pipeline.errors import PermanentError
from roster_pipeline_tests.database.servers import connect, in_fork

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root's server has the system user and its directories")


def test_roots_server_changes_no_directory_above_a_private_project(home: Path) -> None:
    project = home.parent / "project"
    project.mkdir(0o700)
    parents = [project, *project.parents]
    before = [(path.stat().st_mode, path.stat().st_uid) for path in parents]
    private = project / ".roster"
    try:
        with EmbeddedServer(private) as server, connect(server) as connection:
            connection.execute("select 1")
            assert pwd.getpwuid((private / "postgres" / "data").stat().st_uid).pw_name == embedded_place.SYSTEM_USER
        assert [(path.stat().st_mode, path.stat().st_uid) for path in parents] == before
        assert (private / "postgres").readlink().parent == embedded_place.SYSTEM_STATE
    finally:
        shutil.rmtree((private / "postgres").resolve())


def test_roots_server_copies_the_programs_of_a_package_in_a_private_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    real = embedded_place.packaged_programs()
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        root = Path(directory)
        root.chmod(0o755)
        private = root / "private"
        private.mkdir(0o700)
        package = real.parents[1]
        for part in (package, package.with_name(f"{package.name}.libs")):
            (private / part.name).symlink_to(part)
        monkeypatch.setattr(embedded_place, "packaged_programs", lambda: private / real.relative_to(package.parent))
        monkeypatch.setattr(embedded_place, "SYSTEM_STATE", root / "state")
        with EmbeddedServer(private / "home") as server, connect(server) as connection:
            row = connection.execute("select setting from pg_settings where name = 'config_file'").fetchone()
            assert row is not None
            assert str(row[0]).startswith(str(root / "state"))
        (copy,) = (root / "state").glob("postgres-18.*")
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        copied_at = copy.stat().st_mtime_ns
        with EmbeddedServer(private / "home"):
            assert copy.stat().st_mtime_ns == copied_at


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


def test_without_useradd_the_error_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_place, "SYSTEM_USER", "roster-no-such-user")
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(PermanentError, match="no useradd") as refused:
        EmbeddedServer(home).__enter__()
    assert "roster-no-such-user" in refused.value.hint


def test_an_ordinary_users_server_is_in_the_home_and_private(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the path is too long for a socket, or has a comma, which libpq would read as a list of hosts."""
    programs = embedded_place.programs_for(embedded_place.system_account())
    monkeypatch.setattr(embedded_place, "packaged_programs", lambda: programs)
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

            result = in_fork(use, "nobody")
            assert result.startswith("works at"), result
            socket = Path(result.removeprefix("works at "))
            assert (socket == home / "postgres" / "socket") is beside
            if not beside:
                assert socket.parent == Path("/tmp")  # noqa: S108 -- the path that is tested
                socket.rmdir()
        with pytest.raises(PermanentError, match="another user"):
            EmbeddedServer(Path(directory) / "home").__enter__()


def test_another_user_cannot_connect(home: Path) -> None:
    with EmbeddedServer(home) as server:

        def try_to_connect() -> str:
            try:
                connect(server)
            except psycopg.OperationalError:
                return "refused"
            return "connected"

        assert in_fork(try_to_connect, "nobody") == "refused"
        # Also if the directory were not private: the server asks the kernel which user connects.
        socket = Path(str(server.url("postgres").query["host"]))
        for path in (socket, socket.parent, socket / f".s.PGSQL.{embedded_place.PORT}"):
            path.chmod(0o777)
        assert in_fork(try_to_connect, "nobody") == "refused"
