"""Dagster's web server behind our guard: `python -m roster_pipeline.defs.webserver`, with the options of `dagster-webserver`.

Belongs here: starting Dagster's own programs in such a way that no page of another site can use the server, and that they end with the
process that started them. Does not belong here: which requests pass (`http_guard.py`).

The server is read-only: nobody can launch or stop anything through it. `--writable` makes one for data engineers. With `dev` as the first
argument, it runs `dagster dev`, whose server is writable and on this machine only.
"""

import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import dagster._cli.dev
import dagster_webserver.cli

from roster_pipeline.http_guard import Guard

# A file descriptor of a pipe that the launcher holds open. When it is closed, the launcher has ended, however it did.
LAUNCHER_PIPE = "ROSTER_LAUNCHER_PIPE"
_END_SECONDS = 60
# Both programs are replaced in part, and mypy takes their imported names for private.
_DEV: Any = dagster._cli.dev
_SERVER: Any = dagster_webserver.cli
_DAEMON, _WEBSERVER, _OWN = "dagster._daemon", "dagster_webserver", "roster_pipeline.defs.webserver"


def main(arguments: Sequence[str]) -> None:
    """Runs one of Dagster's programs until it ends.

    Args:
        arguments: `dev` and the options of `dagster dev`; `daemon` and those of `dagster-daemon`; or the options of `dagster-webserver`.
    """
    _end_with_launcher()
    program, *rest = arguments or [""]
    if program == "dev":
        _start_own_programs()
        sys.argv = ["dagster dev", *rest]
        _DEV.dev_command(prog_name="dagster dev")
    elif program == "daemon":
        sys.argv = ["dagster-daemon", *rest]
        runpy.run_module(_DAEMON, run_name="__main__", alter_sys=True)
    else:
        _guard()
        sys.argv = ["dagster-webserver", *_writable_only_if_asked(arguments)]
        _SERVER.main()


def _writable_only_if_asked(arguments: Sequence[str]) -> list[str]:
    if "--writable" in arguments:
        return [each for each in arguments if each != "--writable"]
    return [*arguments, "--read-only"]


def _guard() -> None:
    create = _SERVER.create_app_from_workspace_process_context
    address = urlsplit(os.environ.get("ROSTER_UI_URL", ""))

    def create_guarded(*args: Any, **options: Any) -> Guard:
        return Guard(create(*args, **options), names=[address.hostname] if address.hostname else [])

    _SERVER.create_app_from_workspace_process_context = create_guarded


def _start_own_programs() -> None:
    """`dagster dev` starts the web server and the daemon by their modules. It starts ours instead."""
    start = _DEV.open_ipc_subprocess
    ours = {_WEBSERVER: [_OWN, "--writable"], _DAEMON: [_OWN, "daemon"]}

    def start_ours(parts: Sequence[str], **options: Any) -> Any:
        replaced = [new for part in parts for new in ours.get(part, [part])]
        if (pipe := os.environ.get(LAUNCHER_PIPE)) is not None:
            options["pass_fds"] = [*options.get("pass_fds", ()), int(pipe)]
        return start(replaced, **options)

    _DEV.open_ipc_subprocess = start_ours


def _end_with_launcher() -> None:
    if (pipe := os.environ.get(LAUNCHER_PIPE)) is not None:
        threading.Thread(target=_wait_for_launcher, args=(int(pipe),), daemon=True).start()


def _wait_for_launcher(pipe: int) -> None:
    """Ends this process as Ctrl-C does, once the launcher has ended; if that is not enough, at once."""
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_END_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
