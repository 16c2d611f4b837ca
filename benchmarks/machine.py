"""One machine that runs by itself: a simulated Clever, the embedded PostgreSQL and `roster dev`, with a clock in our hand.

Belongs here: starting and ending the real processes, and time. Does not belong here: what is done with them (`week.py`, `night.py`).

The clock runs at its usual speed and jumps over the hours in which nothing happens. It is a library of forty lines that every process is
started with (`clock.c`), so this needs Linux and a C compiler.
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
from roster_pipeline.database.engine import ensure_dagster_database, open_database
from roster_pipeline.database.migrate import migrate
from roster_pipeline.sandbox import Sandbox, SandboxServer
from roster_pipeline.settings import Settings

CLOCK = "ROSTER_BENCHMARK_CLOCK"
# Real seconds for whatever is waited for.
PATIENCE = 900.0

_OPEN_RUNS = "select count(*) from runs where status in ('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING')"
_HAS_TABLES = sa.text("select num_nulls(to_regclass('instigators'), to_regclass('daemon_heartbeats'), to_regclass('runs')) = 0")
_FOLLOWED = sa.text("""
    select
        exists (select from daemon_heartbeats where daemon_type = 'SCHEDULER' and "timestamp" > :since)
        and (select count(*) from instigators where instigator_type = 'SCHEDULE') >= 4
""")
_OURS = ("DAGSTER_HOME", "ROSTER_DAGSTER_URL", "ROSTER_DATABASE_URL")


def under_the_clock(module: str, begins: datetime) -> Path:
    """Where the clock is. The first process starts the module again with the clock at `begins`, and ends as that ends."""
    if CLOCK in os.environ:
        return Path(os.environ[CLOCK])
    compiler = shutil.which("cc")
    if compiler is None:
        sys.exit("A C compiler is needed for the clock: install gcc.")
    with tempfile.TemporaryDirectory(prefix="roster-") as folder:
        # The embedded server of root runs under an account of its own, and has the clock too.
        Path(folder).chmod(0o755)
        library, offset = Path(folder, "clock.so"), Path(folder, "clock")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, Path(__file__).with_name("clock.c")], check=True)
        offset.write_bytes(struct.pack("q", round(begins.timestamp() - time.time())))
        offset.chmod(0o644)
        environment = {**os.environ, CLOCK: str(offset), "LD_PRELOAD": str(library)}
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)


class Machine:
    """A context manager: database and Clever are there when entered, everything is gone when left.

    Args:
        clock: from `under_the_clock`.
        settings: environment variables for `roster dev` and every command.

    Attributes:
        database, sandbox: the application's, and the simulated Clever's data.
        environment: of `roster dev`; what is changed counts from its next start.
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
            # Dagster's code servers end when nobody calls for a while: a jump is not to look like that.
            "DAGSTER_CODE_SERVER_AUTO_RESTART_INTERVAL": "1",
            "DAGSTER_GRPC_PROXY_HEARTBEAT_TTL_SECONDS": "1000000",
            **settings,
        }

    def __enter__(self) -> Self:
        self._home.mkdir(mode=0o755)
        with ExitStack() as opened:
            # Where root's server keeps its data, that is not below the temporary folder.
            opened.callback(lambda: shutil.rmtree((self._home / "postgres").resolve(), ignore_errors=True))
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
        """`roster dev`. Returns its process id once its daemon follows the schedules: no moment before that is made up for."""
        began = datetime.now(UTC)
        command = [sys.executable, "-m", "roster_pipeline.cli", "dev", "--port", str(self._ui_port)]
        self._dev = dev = subprocess.Popen(command, cwd=self._home, env=self.environment, stdout=self._log, stderr=self._log)
        self.wait("the daemon", lambda: self._follows_schedules(began) or dev.poll() is not None)
        if dev.poll() is not None:
            raise TimeoutError(f"roster dev ended with {dev.returncode} instead of starting")
        return dev.pid

    def stop(self) -> None:
        """As Ctrl-C does."""
        if self._dev is not None and self._dev.poll() is None:
            self._dev.send_signal(signal.SIGTERM)
            self._dev.wait()

    def ended(self) -> int:
        """The exit status of `roster dev`, which ends by itself."""
        assert self._dev is not None
        return self._dev.wait(PATIENCE)

    def roster(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command of the pipeline, with --json."""
        command = [sys.executable, "-m", "roster_pipeline.cli", *arguments, "--json"]
        return subprocess.run(command, cwd=self._home, env=self.environment, capture_output=True, text=True, check=False)

    def start_clever(self) -> None:
        """The simulated Clever answers, with the data it had."""
        self._clever = SandboxServer(self.sandbox, self._clever_port)
        self._clever.__enter__()

    def stop_clever(self) -> None:
        """Nobody answers where Clever was."""
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
        """The clock of every process to this moment; never back."""
        ahead = (moment - datetime.now(UTC)).total_seconds()
        if ahead > 0:
            with self._clock.open("r+b") as file:
                (offset,) = struct.unpack("q", file.read(8))
                file.seek(0)
                file.write(struct.pack("q", offset + round(ahead)))

    def wait(self, what: str, has_come: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Until it has come; the clock runs meanwhile.

        Raises:
            TimeoutError: it has not.
        """
        deadline = time.monotonic() + patience
        while not has_come():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain for {what}")
            time.sleep(1)

    # --- what is to be seen ---

    def is_idle(self) -> bool:
        """No sync waits or runs, and no run of Dagster's."""
        with self._dagster_database.connect() as connection:
            runs = int(connection.execute(sa.text(_OPEN_RUNS)).scalar_one())
        return runs == 0 and self.number("select count(*) from ops.syncs where finished_at is null") == 0

    def last_run_ended_at(self) -> datetime:
        """By Dagster's own clock."""
        with self._dagster_database.connect() as connection:
            return datetime.fromtimestamp(float(connection.execute(sa.text("select max(end_time) from runs")).scalar_one()), UTC)

    def number(self, query: str) -> int:
        """The one number a query returns."""
        return int(str(self.column(query)[0]))

    def column(self, query: str) -> list[object]:
        """The first column of a query."""
        with self.database.engine.connect() as connection:
            return list(connection.execute(sa.text(query)).scalars())


def free_port() -> int:
    """One that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
