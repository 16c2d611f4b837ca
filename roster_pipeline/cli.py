"""The `roster` command: its table of commands, and how any of them ends.

Belongs here: which module holds which command, and the translation of every error into a message and an exit status (SPEC 2).
Does not belong here: what a command does (`commands/`, one module each). A command is imported when it is called, so that `--help` answers
at once.
"""

import importlib
import json
import signal
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, NoReturn

import click

from roster_pipeline.errors import RosterError, UsageError

INTERRUPTED = 130
TERMINATED = 143


class Entry(NamedTuple):
    """Where a command is defined, and its line in `roster --help`."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "demo": Entry("roster_pipeline.commands.demo", "demo", "A made-up district, synced three times: see what the pipeline does."),
    "dev": Entry("roster_pipeline.commands.dev", "dev", "Run the Dagster UI and daemon on this machine."),
    "migrate": Entry("roster_pipeline.commands.migrate", "migrate", "Create the database's tables, or bring them up to this release."),
    "district": Entry("roster_pipeline.commands.district", "district", "Record, list, show, pause and resume districts."),
    "sync": Entry("roster_pipeline.commands.sync", "sync", "Sync one district, here and now."),
    "request": Entry("roster_pipeline.commands.request", "request", "Ask for a sync, which the daemon starts within seconds."),
    "plan": Entry("roster_pipeline.commands.plan", "plan", "Show what a sync would do now, and write nothing."),
    "readiness": Entry("roster_pipeline.commands.readiness", "readiness", "Is a district ready for its first sync?"),
    "holds": Entry("roster_pipeline.commands.holds", "holds", "Show what is held and waits for a decision."),
    "approve": Entry("roster_pipeline.commands.holds", "approve", "Let the next sync do what a hold holds."),
    "reject": Entry("roster_pipeline.commands.holds", "reject", "Keep it held."),
    "status": Entry("roster_pipeline.commands.status", "status", "Show recent syncs and how they ended."),
    "health": Entry("roster_pipeline.commands.health", "health", "Does everything go as it should? For monitoring, too."),
    "explain": Entry("roster_pipeline.commands.explain", "explain", "Everything known about one person, and why."),
    "admins": Entry("roster_pipeline.commands.people", "admins", "Import school and district admins from a CSV file."),
    "users": Entry("roster_pipeline.commands.people", "users", "Import users of any role from a CSV file."),
    "purge": Entry("roster_pipeline.commands.purge", "purge", "Remove users for good who were soft-deleted long ago."),
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
        assert isinstance(command, click.Command)  # noqa: S101  (a wrong line in the table above)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.command(cls=_Commands)
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
def roster(**_: bool) -> None:
    """Nightly Clever rostering into PostgreSQL.

    DISTRICT is a district's Clever id or the application's district id.

    Exit status: 0 done, 1 failed or refused, 2 wrong usage, 3 held, 4 another sync of this district is running.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its status.

    Args:
        arguments: what follows `roster` on the command line; by default this process's.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Read from the line itself: they count also when the rest of it cannot be understood.
    as_json, debug = "--json" in given, "--debug" in given
    _install_handlers(as_json=as_json, debug=debug)
    try:
        _refuse_undecodable(given)
        status = roster.main(given, prog_name="roster", standalone_mode=False) or 0
    except RosterError as error:
        status = _failed(error, as_json=as_json, debug=debug)
    except click.ClickException as error:
        status = _misused(error, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        status = _interrupted(as_json=as_json)
    sys.exit(status)


def _install_handlers(*, as_json: bool, debug: bool) -> None:
    """For the whole process: what to do about unexpected errors, and about a stop from outside."""
    if not debug:
        sys.excepthook = lambda kind, error, trace: _unexpected(kind, error, trace, as_json=as_json)
    # SIGTERM ends like Ctrl-C, with every clean-up: the sync's row tells the truth, the embedded server stops.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))


def _refuse_undecodable(arguments: list[str]) -> None:
    """Bytes that are no UTF-8 arrive as lone surrogates, which no database takes."""
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
        click.echo(f"Error: {error}", err=True)
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
    """A mistake in this project. Neither its message nor its traceback is shown: either can hold what a row holds (SPEC 12)."""
    del error, trace
    reason, hint = f"Internal error: {kind.__name__}.", "`roster --debug ...` shows the traceback, which can hold personal data."
    if as_json:
        _error_document(reason, hint, 1)
    else:
        click.echo(f"Error: {reason}\n{hint}", err=True)


def _error_document(reason: str, hint: str, exit_status: int, *, retryable: bool = False, **more: object) -> None:
    known = {name: value for name, value in more.items() if value is not None}
    click.echo(json.dumps({"error": reason, "hint": hint, "retryable": retryable, "exit_status": exit_status, **known}))


if __name__ == "__main__":
    main()
