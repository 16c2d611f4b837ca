"""The `roster` command: its table of commands, and how a command ends.

Belongs here: which module has which command, and the translation of every error into a message and an exit status (SPEC 2).
Does not belong here: what a command does (`commands/`, one module each). A command's module is imported when the command is called, so that
`--help` is fast.
"""

import importlib
import io
import json
import signal
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, NoReturn

import click

from roster_pipeline.errors import RosterError, UsageError
from roster_pipeline.visible import visible

INTERRUPTED = 130
TERMINATED = 143


class Entry(NamedTuple):
    """Where a command is defined, and its summary in `roster --help`."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "demo": Entry("roster_pipeline.commands.demo", "demo", "A made-up district, synced three times: see what the pipeline does."),
    "dev": Entry("roster_pipeline.commands.dev", "dev", "Run the Dagster UI and daemon on this machine."),
    "migrate": Entry("roster_pipeline.commands.migrate", "migrate", "Create the database's tables, or upgrade them to this release."),
    "district": Entry("roster_pipeline.commands.district", "district", "Record, list, show, pause and resume districts."),
    "window": Entry("roster_pipeline.commands.window", "window", "Add, list and cancel windows: nights agreed in advance."),
    "rollover": Entry("roster_pipeline.commands.rollover", "rollover", "Preview the change to a new school year."),
    "connections": Entry("roster_pipeline.commands.connections", "connections", "Accept a list of connections that was not believed."),
    "sync": Entry("roster_pipeline.commands.sync", "sync", "Sync one district now, in this process."),
    "request": Entry("roster_pipeline.commands.request", "request", "Request a sync, which the daemon starts within seconds."),
    "plan": Entry("roster_pipeline.commands.plan", "plan", "Show what a sync would do now, and write nothing."),
    "readiness": Entry("roster_pipeline.commands.readiness", "readiness", "Is a district ready for its first sync?"),
    "holds": Entry("roster_pipeline.commands.holds", "holds", "Show what is held and waits for a decision."),
    "approve": Entry("roster_pipeline.commands.decisions", "approve", "Let the next sync apply what is held."),
    "reject": Entry("roster_pipeline.commands.decisions", "reject", "Keep it held."),
    "revoke": Entry("roster_pipeline.commands.decisions", "revoke", "Take an approval back that no sync has used."),
    "status": Entry("roster_pipeline.commands.status", "status", "Show recent syncs and how they ended."),
    "health": Entry("roster_pipeline.commands.health", "health", "Check that the whole system works. Made for monitoring."),
    "findings": Entry("roster_pipeline.commands.findings", "findings", "The records that the checks of the last sync found."),
    "explain": Entry("roster_pipeline.commands.explain", "explain", "Everything known about one person, and why."),
    "admins": Entry("roster_pipeline.commands.people", "admins", "Import school and district admins from a CSV file."),
    "users": Entry("roster_pipeline.commands.people", "users", "Import users of any role from a CSV file."),
    "purge": Entry("roster_pipeline.commands.purge", "purge", "Permanently remove users that were soft-deleted long ago."),
    "erase": Entry("roster_pipeline.commands.erase", "erase", "Erase one person for good, at a parent's request."),
    "sandbox": Entry("roster_pipeline.sandbox.command", "sandbox", "A simulated Clever on this machine."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)  # noqa: S101  (else a line of COMMANDS is wrong)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.command(cls=_Commands)
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
def roster(**_: bool) -> None:
    """Nightly Clever rostering into PostgreSQL.

    DISTRICT is a district's Clever id or the application's district id.

    Exit status: 0 done, 1 failed or refused, 2 wrong usage, 3 held, 4 another sync of the district is running.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its status.

    Args:
        arguments: what follows `roster` on the command line; by default this process's arguments.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Not parsed by click: these two count even if the other arguments are wrong.
    as_json, debug = "--json" in words, "--debug" in words
    _install_handlers(as_json=as_json, debug=debug)
    _print_every_name()
    try:
        _refuse_undecodable(words)
        status = roster.main(words, prog_name="roster", standalone_mode=False) or 0
    except RosterError as error:
        status = _failed(error, as_json=as_json, debug=debug)
    except click.ClickException as error:
        status = _misused(error, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        status = _interrupted(as_json=as_json)
    sys.exit(status)


def _install_handlers(*, as_json: bool, debug: bool) -> None:
    """Sets how this process ends after an unexpected error, and after SIGTERM."""
    if not debug:
        sys.excepthook = lambda kind, error, trace: _unexpected(kind, error, trace, as_json=as_json)
    # SIGTERM runs every clean-up, as Ctrl-C does: the sync's row gets its true status, and the embedded server stops.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))


def _print_every_name() -> None:
    """A terminal or pipe that cannot show a character gets its number, such as \\u05e9. The command does not fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _refuse_undecodable(arguments: list[str]) -> None:
    """Refuses bytes that are not UTF-8: Python makes lone surrogates of them, which no database stores."""
    for position, argument in enumerate(arguments, start=1):
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise UsageError(f"Argument {position} is not text in UTF-8.")


def _failed(error: RosterError, *, as_json: bool, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    running = getattr(error, "running_sync_id", None)
    if as_json:
        more = {"district": error.district, "path": error.path, "running_sync_id": running}
        _error_document(error.reason, error.hint, error.exit_status, retryable=error.retryable, **more)
    else:
        click.echo("\n".join(map(visible, f"Error: {error}".split("\n"))), err=True)
        if running is not None:
            click.echo(f"It is sync {running}.", err=True)
    return error.exit_status


def _misused(error: click.ClickException, *, as_json: bool) -> int:
    if as_json:
        _error_document(error.format_message(), "`--help` after a command shows how to call it.", error.exit_code)
    else:
        error.show()
    return error.exit_code


def _interrupted(*, as_json: bool) -> int:
    if as_json:
        _error_document("Interrupted.", "", INTERRUPTED, retryable=True)
    else:
        click.echo("Interrupted.", err=True)
    return INTERRUPTED


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None, *, as_json: bool) -> None:
    """Reports a bug of this project. It shows neither message nor traceback, because either can contain personal data (SPEC 12)."""
    del error, trace
    reason, hint = f"Internal error: {kind.__name__}.", "`roster --debug ...` shows the traceback, which can hold personal data."
    if as_json:
        _error_document(reason, hint, 1)
    else:
        click.echo(f"Error: {reason}\n{hint}", err=True)


def _error_document(reason: str, hint: str, exit_status: int, *, retryable: bool = False, **more: object) -> None:
    filled = {name: value for name, value in more.items() if value is not None}
    click.echo(json.dumps({"error": reason, "hint": hint, "retryable": retryable, "exit_status": exit_status, **filled}))


if __name__ == "__main__":
    main()
