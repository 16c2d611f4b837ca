"""`roster approve`, `roster reject`, `roster revoke`: what a person decides about holds (R13.3 to R13.5).

Does not belong here: which decisions are possible (`support/holds.py`), and listing holds (`holds.py`).
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from sqlalchemy import Connection

from roster_pipeline.brake_kinds import KINDS
from roster_pipeline.commands.environment import current_database
from roster_pipeline.commands.holds import SHOWN, print_hold
from roster_pipeline.commands.output import json_option, print_json
from roster_pipeline.commands.request import NOBODY
from roster_pipeline.commands.who import NOT_BLANK, by_option, reason_option
from roster_pipeline.database.clock import database_time
from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.errors import UsageError
from roster_pipeline.fleet.requests import is_taken_up
from roster_pipeline.support import holds as library
from roster_pipeline.support.held_acts import held_acts
from roster_pipeline.support.holds import Decider

_FIELDS = ("hold_id", "district", "kind", "status", "plan_hash", "decided_by", "decided_principal", "decided_at", "expires_at")


def _which(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments that say which holds a decision is about."""
    for option in reversed(
        (
            click.argument("holds", metavar="[HOLD]...", type=int, nargs=-1),
            click.option("--sync", "sync_id", type=int, metavar="SYNC", help="All open holds on which this sync has ended."),
            click.option("--kind", type=click.Choice(sorted(KINDS)), help="With --sync: only those of this kind."),
            by_option(required=True, text="Who decided; stored with the hold and in ops.audit."),
            reason_option,
            click.option("--plan-hash", "seen", multiple=True, metavar="HASH", help="Decide only if this is still what is held."),
            click.option("--yes", is_flag=True, help="Do not ask, also on a terminal."),
            json_option,
        )
    ):
        command = option(command)
    return command


@click.command()
@_which
def approve(**options: Any) -> None:
    """Let the next sync do exactly what each HOLD holds, until the approval expires. All of them are approved, or none.

    On a terminal it first shows what would be released, and asks. A hold that has changed meanwhile is refused.

    Example: roster approve 7 8 --by "J. Doe" --reason "ticket 4711: the school has closed"
    """
    _decide(library.approve, "Approve", **options)


@click.command()
@_which
def reject(**options: Any) -> None:
    """Keep each HOLD held, until its plan changes or somebody approves it after all. All of them are rejected, or none.

    Example: roster reject --sync 4711 --kind school_role --by "J. Doe"
    """
    _decide(library.reject, "Reject", **options)


@click.command()
@click.argument("hold", type=int)
@by_option(required=True, text="Who revokes it; stored in ops.audit.")
@click.option("--reason", required=True, metavar="TEXT", type=NOT_BLANK, help="Why; stored in ops.audit.")
@json_option
def revoke(hold: int, *, by: str, reason: str, as_json: bool) -> None:
    """Take the approval of HOLD back, as long as no sync has used it.

    Example: roster revoke 7 --by "J. Doe" --reason "wrong district"
    """
    with current_database() as database, translate_database_errors(), database.engine.begin() as connection:
        row = library.revoke(connection, hold, Decider(by, reason))
    if as_json:
        print_json({name: row[name] for name in _FIELDS})
    else:
        click.echo(f"The approval of hold {hold} is revoked. It is open again.")


def _decide(
    decision: Callable[..., list[Mapping[str, Any]]],
    verb: str,
    *,
    holds: Sequence[int],
    sync_id: int | None,
    kind: str | None,
    by: str,
    reason: str | None,
    seen: Sequence[str],
    yes: bool,
    as_json: bool,
) -> None:
    if bool(holds) == (sync_id is not None):
        raise UsageError("Name the holds, or a sync with --sync.", hint="`roster holds` lists the holds that wait.")
    if kind is not None and sync_id is None:
        raise UsageError("--kind goes with --sync.", hint="`roster holds` lists the holds that wait.")
    with current_database() as database, translate_database_errors():
        with database.engine.connect() as connection:
            ids = list(holds) if sync_id is None else library.holds_of_sync(connection, sync_id, kind=kind)
            if not (yes or as_json) and sys.stdin.isatty() and sys.stdout.isatty():
                shown = _show(connection, ids)
                click.confirm(f"{verb} {'this hold' if len(ids) == 1 else f'these {len(ids)} holds'}?", abort=True)
                seen = seen or shown
        rows, taken_up = _write(database, decision, ids, Decider(by, reason), seen)
    if as_json:
        decided = [{name: row[name] for name in _FIELDS} for row in rows]
        print_json(decided[0] | {"holds": decided})
        return
    for row in rows:
        _print_decision(row)
    if rows[0]["status"] == "approved" and not taken_up:
        click.echo(f"{NOBODY} Or sync it in this process: `roster sync {rows[0]['district_id']}`.", err=True)


def _show(connection: Connection, ids: Sequence[int]) -> list[str]:
    """What each hold holds. Returns the hashes that were shown."""
    found = [library.find_hold(connection, each) for each in ids]
    for row in found:
        print_hold(row, list(held_acts(connection, row["hold_id"])), first=SHOWN)
    return [row["plan_hash"] for row in found]


def _write(
    database: Database, decision: Callable[..., list[Mapping[str, Any]]], ids: Sequence[int], decider: Decider, seen: Sequence[str]
) -> tuple[list[Mapping[str, Any]], bool]:
    with database.engine.begin() as connection:
        return decision(connection, ids, decider, now=database_time(connection), seen=seen), is_taken_up(connection)


def _print_decision(row: Mapping[str, Any]) -> None:
    if row["status"] == "approved":
        until = f"{row['expires_at']:%Y-%m-%d %H:%M} UTC"
        click.echo(f"Hold {row['hold_id']} is approved until {until}, for exactly what it holds now. The next sync does it.")
    else:
        click.echo(f"Hold {row['hold_id']} is rejected. It stays held until its plan changes.")
