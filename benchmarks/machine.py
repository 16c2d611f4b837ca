"""One unattended machine: a simulated Clever, the embedded PostgreSQL and `roster dev`, with a clock that we control.

Belongs here: starting and ending the real processes, and the clock. Does not belong here: what happens on the machine (`week.py`,
`night.py`).

The clock runs at normal speed, and jumps over the hours in which nothing happens. Every process loads it as a small library (`clock.c`), so
this needs Linux and a C compiler.
"""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from roster_pipeline.database.embedded import EmbeddedServer
from roster_pipeline.database.embedded_place import ENVIRONMENT
from roster_pipeline.database.engine import ensure_dagster_database, open_database
from roster_pipeline.database.migrate import migrate
from roster_pipeline.sandbox import Sandbox, SandboxServer
from roster_pipeline.settings import Settings

CLOCK = "ROSTER_BENCHMARK_CLOCK"
# Real seconds to wait for an event.
PATIENCE = 900.0

_OPEN_RUNS = "select count(*) from runs where status in ('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING')"
_HAS_TABLES = sa.text("select num_nulls(to_regclass('instigators'), to_regclass('daemon_heartbeats'), to_regclass('runs')) = 0")
_FOLLOWED = sa.text("""
    select
        exists (select from daemon_heartbeats where daemon_type = 'SCHEDULER' and "timestamp" > :since)
        and (select count(*) from instigators where instigator_type = 'SCHEDULE') >= 4
""")
_OURS = ("DAGSTER_HOME", "ROSTER_DAGSTER_URL", "ROSTER_DATABASE_URL")


def run_with_clock(module: str, begins: datetime) -> Path:
    """Returns the file of the clock. Without a clock, it runs the module again with a clock at `begins`, and exits with its status."""
    if CLOCK in os.environ:
        return Path(os.environ[CLOCK])
    compiler = shutil.which("cc")
    if compiler is None:
        sys.exit("A C compiler is needed for the clock: install gcc.")
    with tempfile.TemporaryDirectory(prefix="roster-") as folder:
        # Root's embedded server runs as another user, and must be able to read the clock too.
        Path(folder).chmod(0o755)
        library, offset = Path(folder, "clock.so"), Path(folder, "clock")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, Path(__file__).with_name("clock.c")], check=True)
        offset.write_bytes(struct.pack("q", round(begins.timestamp() - time.time())))
        offset.chmod(0o644)
        environment = {**os.environ, CLOCK: str(offset), "LD_PRELOAD": str(library)}
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)


class Machine:
    """A context manager: database and Clever run during the block, and everything is removed after it.

    Args:
        clock: from `run_with_clock`.
        settings: environment variables for `roster dev` and every command.

    Attributes:
        database, sandbox: the application's database, and the simulated Clever.
        environment: the environment of `roster dev`. A change has effect from its next start.
    """

    def __init__(self, clock: Path, settings: Mapping[str, str]) -> None:
        self.sandbox = Sandbox(rate_limit=None)
        self._clock = clock
        self._home = clock.parent / "home"
        self._clever_port, self._ui_port = free_port(), free_port()
        self._dev: subprocess.Popen[bytes] | None = None
        self._clever: SandboxServer | None = None
        clever = f"http://127.0.0.1:{self._clever_port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in _OURS},
            "ROSTER_HOME": str(self._home),
            "CLEVER_API_URL": clever,
            "CLEVER_AUTH_URL": clever,
            "CLEVER_CLIENT_ID": self.sandbox.client_id,
            "CLEVER_CLIENT_SECRET": self.sandbox.client_secret,
            # Dagster's code servers end when they are not called for some time. A jump of the clock must not end them.
            "DAGSTER_CODE_SERVER_AUTO_RESTART_INTERVAL": "1",
            "DAGSTER_GRPC_PROXY_HEARTBEAT_TTL_SECONDS": "1000000",
            **settings,
        }

    def __enter__(self) -> Self:
        self._home.mkdir(mode=0o755)
        with ExitStack() as opened:
            # The data of root's server are not below the temporary folder.
            opened.callback(lambda: shutil.rmtree((self._home / "postgres").resolve(), ignore_errors=True))
            # Order and age are those of the database's clock (R11.6), so the server has the same clock as everybody else.
            ENVIRONMENT.update({name: os.environ[name] for name in (CLOCK, "LD_PRELOAD")})
            opened.enter_context(EmbeddedServer(self._home))
            self.settings = Settings(_env_file=None, **self._own_settings())
            self.database = opened.enter_context(open_database(self.settings))
            migrate(self.database)
            ensure_dagster_database(self.database)
            self._dagster_database = sa.create_engine(self.database.dagster_url)
            opened.callback(self._dagster_database.dispose)
            self._log = opened.enter_context((self._home / "dev.log").open("wb"))
            opened.callback(self.stop_clever)
            opened.callback(self.stop)
            self.start_clever()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._opened.close()

    def _own_settings(self) -> dict[str, Any]:
        return {
            "roster_home": self._home,
            **{name.lower(): value for name, value in self.environment.items() if name.startswith("CLEVER_")},
        }

    # --- processes ---

    def start(self) -> int:
        """Starts `roster dev`. Returns its process id when its daemon follows the schedules, so that it cannot miss one afterwards."""
        began = datetime.now(UTC)
        command = [sys.executable, "-m", "roster_pipeline.cli", "dev", "--port", str(self._ui_port)]
        self._dev = dev = subprocess.Popen(command, cwd=self._home, env=self.environment, stdout=self._log, stderr=self._log)
        self.wait("the daemon", lambda: self._follows_schedules(began) or dev.poll() is not None)
        if dev.poll() is not None:
            raise TimeoutError(f"roster dev ended with {dev.returncode} instead of starting")
        return dev.pid

    def stop(self) -> None:
        """Stops `roster dev` and waits until it has ended."""
        if self._dev is not None and self._dev.poll() is None:
            self._dev.send_signal(signal.SIGTERM)
            self._dev.wait()

    def ended(self) -> int:
        """Waits until `roster dev` ends by itself, and returns its exit status."""
        assert self._dev is not None
        return self._dev.wait(PATIENCE)

    def roster(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Runs a command of the pipeline, with --json."""
        command = [sys.executable, "-m", "roster_pipeline.cli", *arguments, "--json"]
        return subprocess.run(command, cwd=self._home, env=self.environment, capture_output=True, text=True, check=False)

    def start_clever(self) -> None:
        """Starts the simulated Clever, with the data that it had before."""
        self._clever = SandboxServer(self.sandbox, self._clever_port)
        self._clever.__enter__()

    def stop_clever(self) -> None:
        """Stops the simulated Clever: its address does not answer."""
        if self._clever is not None:
            self._clever.__exit__(None, None, None)
            self._clever = None

    def _follows_schedules(self, since: datetime) -> bool:
        with self._dagster_database.connect() as connection:
            if not connection.execute(_HAS_TABLES).scalar_one():
                return False
            return bool(connection.execute(_FOLLOWED, {"since": since.replace(tzinfo=None)}).scalar_one())

    # --- time ---

    def jump(self, moment: datetime) -> None:
        """Sets the clock of every process to this moment, unless that is in the past."""
        ahead = (moment - datetime.now(UTC)).total_seconds()
        if ahead > 0:
            with self._clock.open("r+b") as file:
                (offset,) = struct.unpack("q", file.read(8))
                file.seek(0)
                file.write(struct.pack("q", offset + round(ahead)))

    def wait(self, what: str, is_true: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Waits until the function returns true. The clock runs meanwhile.

        Raises:
            TimeoutError: it did not return true in time.
        """
        deadline = time.monotonic() + patience
        while not is_true():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain for {what}")
            time.sleep(1)

    # --- state ---

    def is_idle(self) -> bool:
        """Whether no sync and no Dagster run is queued or running."""
        with self._dagster_database.connect() as connection:
            runs = int(connection.execute(sa.text(_OPEN_RUNS)).scalar_one())
        return runs == 0 and self.number("select count(*) from ops.syncs where finished_at is null") == 0

    def last_run_ended_at(self) -> datetime:
        """When the last Dagster run ended, as Dagster has recorded it."""
        with self._dagster_database.connect() as connection:
            return datetime.fromtimestamp(float(connection.execute(sa.text("select max(end_time) from runs")).scalar_one()), UTC)

    def number(self, query: str) -> int:
        """The one number that a query returns."""
        return int(str(self.column(query)[0]))

    def column(self, query: str) -> list[object]:
        """The first column of a query."""
        with self.database.engine.connect() as connection:
            return list(connection.execute(sa.text(query)).scalars())


def free_port() -> int:
    """A port that is not in use now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
