"""The launcher behind `roster dev`: opens the application's database and Dagster's, and runs `dagster dev` with them.

Belongs here: preparing what `dagster dev` needs, starting it, and waiting until all of it has ended. Does not belong here: Dagster's
configuration (`dagster.yaml`, `workspace.yaml`) and its definitions (`defs/`).
"""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import SecretStr

from roster_pipeline.database.engine import Database, ensure_dagster_database, open_database, translate_database_errors
from roster_pipeline.database.lock import dev_lock
from roster_pipeline.database.migrate import migrate
from roster_pipeline.errors import PermanentError
from roster_pipeline.settings import Settings

HOST = "127.0.0.1"
PROJECT = Path(__file__).resolve().parent.parent
# `dagster dev` gives its web server and daemon up to a minute each to end.
_END_SECONDS = 150
# A running sync rolls back in this time, and records that in ops.syncs.
_CODE_SERVER_END_SECONDS = 20
_POLL_SECONDS = 0.2


def run_dev(settings: Settings, *, port: int, say: Callable[[str], None]) -> int:
    """Run Dagster's UI and daemon until Ctrl-C or SIGTERM. Call in the main thread.

    Args:
        port: of the UI, on loopback.
        say: prints the UI's URL, once the UI answers.

    Returns:
        0 after Ctrl-C, SIGTERM or a closed terminal, once every process that it started has ended.

    Raises:
        PermanentError: the port is in use, this is not a checkout, another `roster dev` uses the database, or Dagster ended by itself.
        RosterError: the database cannot be opened or migrated.
    """
    _require_free(port)
    with open_database(settings) as database:
        migrate(database)
        ensure_dagster_database(database)
        environment = _environment(settings, database, port)
        home = _prepare_home(Path(environment["DAGSTER_HOME"]))
        _add_partitions(database, environment)
        arguments = ["dev", "-w", str(PROJECT / "workspace.yaml"), "-h", HOST, "-p", str(port)]
        command = [sys.executable, "-m", "roster_pipeline.defs.webserver", *arguments]
        with _only_one(database), _interrupted() as stop, _pipe() as held_open:
            # It gets its own process group: a Ctrl-C in the terminal reaches it only through us, and we can end all its processes.
            # It starts while we handle SIGINT: a child inherits an ignored SIGINT (a shell's `&`), and Dagster then ignores SIGTERM too.
            environment |= {"ROSTER_LAUNCHER_PIPE": str(held_open)}
            child = subprocess.Popen(command, cwd=home, env=environment, start_new_session=True, pass_fds=[held_open])
            try:
                _watch(child, stop, port, say)
            finally:
                _end_group(child)
    if not stop.is_set():
        raise PermanentError(
            "Dagster ended by itself: its web server or its daemon died, or it could not start.",
            hint="Its messages above say which. No sync is applied in part; start it again.",
        )
    return 0


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PermanentError(f"Port {port} cannot be used: {error.strerror}.", hint="Choose another --port.") from None


def _environment(settings: Settings, database: Database, port: int) -> dict[str, str]:
    """Our environment and every setting, with absolute paths: the children run in another folder, and do not read our `.env`."""
    home = settings.roster_home.resolve()
    values = {name.upper(): getattr(settings, name) for name in settings.model_fields_set}
    texts = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
        if value is not None
    }
    return {
        "ROSTER_UI_URL": f"http://{HOST}:{port}",
        **os.environ,
        **texts,
        "ROSTER_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
        "ROSTER_DAGSTER_URL": database.dagster_url.render_as_string(hide_password=False),
    }


def _prepare_home(home: Path) -> Path:
    configuration = PROJECT / "dagster.yaml"
    if not configuration.exists():
        raise PermanentError(f"There is no {configuration}.", hint="Run `roster dev` from a checkout of the project.")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(configuration, home / "dagster.yaml")
    return home


def _add_partitions(database: Database, environment: Mapping[str, str]) -> None:
    """Adds a partition for every district, so that the UI has them at once, not only after the sensor's first tick."""
    from roster_pipeline.defs.districts import add_missing_partitions

    with _environ(environment):
        add_missing_partitions(database)


@contextmanager
def _only_one(database: Database) -> Iterator[None]:
    """Two daemons would start everything twice. The lock ends with this process, however it ends."""
    with translate_database_errors(), database.engine.connect() as opened, dev_lock(opened.execution_options(isolation_level="AUTOCOMMIT")):
        yield


@contextmanager
def _pipe() -> Iterator[int]:
    """The reading end of a pipe. It is at its end once this process has ended, also by `kill -9`, and then the children end too."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(writing)
        os.close(reading)


@contextmanager
def _environ(environment: Mapping[str, str]) -> Iterator[None]:
    """Changes this process's environment during the block: Dagster finds its instance through it."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _interrupted() -> Iterator[threading.Event]:
    """Yields an event that SIGINT, SIGTERM or a closed terminal sets during the block. With nohup, a closed terminal does not."""
    stop = threading.Event()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _watch(child: "subprocess.Popen[bytes]", stop: threading.Event, port: int, say: Callable[[str], None]) -> None:
    """Returns when `stop` is set, or the child has ended. Prints the UI's URL once it answers."""
    announced = False
    while child.poll() is None and not stop.wait(_POLL_SECONDS):
        if not announced and _answers(port):
            say(f"Dagster's UI: http://{HOST}:{port}  (Ctrl-C stops it)")
            announced = True


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/server_info")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end_group(child: "subprocess.Popen[bytes]") -> None:
    """Ends the child, and returns when no process of its group is left. Its code server ends later than it, and needs the database."""
    child.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        child.wait(_END_SECONDS)
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal_group(child.pid, number)
        deadline = time.monotonic() + _CODE_SERVER_END_SECONDS
        while time.monotonic() < deadline:
            child.poll()
            if not _signal_group(child.pid, 0):
                return
            time.sleep(_POLL_SECONDS)


def _signal_group(group: int, number: int) -> bool:
    """Sends a signal to a process group; False if no process of it is left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
