"""How every command ends: help, usage errors, unexpected errors, interruption."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest

from roster_pipeline.cli import COMMANDS, roster
from roster_pipeline.sandbox import District, Sandbox
from roster_pipeline_tests.until import until

from .conftest import Roster


def _commands(group: click.Group, *path: str) -> dict[tuple[str, ...], click.Command]:
    context = click.Context(group)
    found: dict[tuple[str, ...], click.Command] = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found |= _commands(command, *path, name) if isinstance(command, click.Group) else {(*path, name): command}
    return found


def test_every_command_takes_json_and_says_what_it_does() -> None:
    """SPEC 2: every command has --json."""
    commands = _commands(roster)
    assert set(COMMANDS) == {path[0] for path in commands}
    for path, command in commands.items():
        assert any("--json" in parameter.opts for parameter in command.params), path
        assert command.get_short_help_str(), path


def test_help_imports_nothing_heavy(program: list[str], environment: None) -> None:
    """`roster --help` is fast: a module that takes long to import is imported by the command that needs it."""
    check = (
        "import sys, runpy, atexit; atexit.register(lambda: print(sorted({'pandas', 'dagster', 'sqlalchemy', 'rich'} & set(sys.modules))));"
    )
    code = f"{check} sys.argv = ['roster', '--help']; runpy.run_module('roster_pipeline.cli', run_name='__main__')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Show recent syncs" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "[]"


def test_wrong_usage(roster: Roster) -> None:
    """Exit status 2, and what to do; with --json the same as one JSON document."""
    assert roster("sync").status == 2
    ended = roster("nonsense")
    assert (ended.status, ended.out) == (2, "")
    assert "No such command 'nonsense'" in ended.err
    ended = roster("sync", "--json")
    assert (ended.status, ended.err) == (2, "")
    assert ended.document["error"].startswith("Missing argument")
    assert ended.document["exit_status"] == 2
    assert ended.document["retryable"] is False


def test_argument_that_is_not_text(roster: Roster) -> None:
    ended = roster("status", "\udcff")
    assert ended.status == 2
    assert "Argument 2 is not text" in ended.err


def test_environment_that_is_not_valid(roster: Roster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable, but not its value: it may be a secret."""
    monkeypatch.setenv("CLEVER_PAGE_LIMIT", "secret-looking")
    ended = roster("status")
    assert ended.status == 1
    assert "CLEVER_PAGE_LIMIT" in ended.err
    assert "secret-looking" not in ended.err


@pytest.mark.parametrize("options", [[], ["--json"], ["--debug"]])
def test_unexpected_error_shows_no_value(options: list[str]) -> None:
    """SPEC 12: an unexpected error shows only its type, unless --debug is given."""
    code = (
        "import click, sys\nfrom roster_pipeline import cli\n"
        "@click.command()\n@click.option('--json', is_flag=True)\ndef boom(**_): raise ValueError('Ada')\n"
        "sys.modules['boom'] = type(sys)('boom'); sys.modules['boom'].boom = boom\n"
        "cli.COMMANDS['boom'] = cli.Entry('boom', 'boom', '')\n"
        f"cli.main({[*options, 'boom'] if options == ['--debug'] else ['boom', *options]})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    shown = ended.stdout + ended.stderr
    if options == ["--debug"]:
        assert "Traceback" in ended.stderr
    else:
        assert "Internal error: ValueError." in shown
        assert "Ada" not in shown
        assert "Traceback" not in shown
    if options == ["--json"]:
        assert json.loads(ended.stdout)["exit_status"] == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_sync(
    number: signal.Signals,
    status: int,
    program: list[str],
    clever: Sandbox,
    district: District,
    query: Callable[..., list[Any]],
) -> None:
    """R11.4: Ctrl-C and SIGTERM end a sync cleanly: no traceback, a row that says `Interrupted.`, nothing written, a free lock."""
    clever.misbehave("delay", "/v3.0/sections", seconds=2, times=1)
    process = subprocess.Popen(
        [*program, "sync", district.id],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        # If a shell runs the tests in the background, they ignore Ctrl-C, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        # The delay is used up when the request arrives; the answer comes later.
        until(lambda: not len(clever.faults) or process.poll() is not None, seconds=60)
        assert process.poll() is None, process.communicate()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        clever.behave()
    assert process.returncode == status
    assert "Traceback" not in out + err
    assert query("select status, message from ops.syncs") == [("failed", "Interrupted.")]
    assert query("select count(*) from app.users") == [(0,)]
