"""`roster erase`: erases one person for good. Without --apply it is a dry run.

Does not belong here: whose rows are removed, and removing them (`support/erasure.py`).
"""

from dataclasses import asdict
from typing import Any

import click

from roster_pipeline.commands.environment import read_settings
from roster_pipeline.commands.explain import print_matches
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.commands.who import NOT_BLANK, by_option
from roster_pipeline.database.clock import time_of
from roster_pipeline.database.engine import open_database
from roster_pipeline.database.migrate import require_current_schema
from roster_pipeline.support.erasure import Erasure, erase_person
from roster_pipeline.support.explanation import Ambiguous
from roster_pipeline.support.removal import Counts
from roster_pipeline.visible import visible

REFUSED = 1

required_reason = click.option(
    "--reason", required=True, metavar="TEXT", type=NOT_BLANK, help="Why, like a ticket's number; kept in ops.purges and ops.audit."
)


@click.command()
@click.argument("district")
@click.argument("person")
@by_option(required=True, text="Who erases; kept in ops.purges and ops.audit.")
@required_reason
@click.option("--apply", is_flag=True, help="Erase. Without it nothing is written.")
@json_option
@click.pass_context
def erase(context: click.Context, district: str, person: str, by: str, reason: str, *, apply: bool, as_json: bool) -> None:
    """Erase one PERSON of a DISTRICT for good: a parent has asked for it. Without --apply, only say what would be removed.

    PERSON is a Clever id, else a username, else a user id, as in `roster explain`. The account goes with roles, enrollments, the record of
    Clever, and all values in the history. A row that a table of the application refers to is blanked instead. No later sync brings the
    person back, although Clever still sends them. There is no undo.

    Refused: several people fit, or the person is the district's account owner. Protected people, held ones, and those marked do_not_restore
    are erased.

    \b
    Example: roster erase 5f0000000000000000000001 ana.li --by "Kim, support" --reason "ticket 4711" --apply
    """
    settings = read_settings()
    with open_database(settings) as database:
        require_current_schema(database)
        found = erase_person(database, settings, district, person, by=by, reason=reason, apply=apply, now=time_of(database))
    if isinstance(found, Ambiguous):
        if as_json:
            print_json(asdict(found))
        else:
            print_matches(found)
            click.echo("Nothing was erased.")
        context.exit(REFUSED)
    if as_json:
        print_json(_document(found))
    else:
        _print(found)


def _document(found: Erasure) -> dict[str, Any]:
    return {
        "district": found.district.clever_id,
        "district_id": found.district.district_id,
        "user_id": found.user_id,
        "erased": found.purge_id is not None,
        "purge_id": found.purge_id,
        "tombstones": found.clever_ids,
        "counts": found.counts,
        "classroom_ids": list(found.classroom_ids),
        "pending_holds": found.pending_holds,
    }


def _print(found: Erasure) -> None:
    print_counts(found.counts)
    is_done = found.purge_id is not None
    who = f"user {found.user_id}" if found.user_id is not None else "a person without an account"
    click.echo(f"District {found.district.clever_id} ({visible(found.district.name)}): {who} {'is' if is_done else 'would be'} erased.")
    if found.clever_ids:
        click.echo(f"Clever ids that {'stay' if is_done else 'would stay'} away from every sync: {found.clever_ids}.")
    if found.classroom_ids:
        ids = ", ".join(map(str, found.classroom_ids))
        click.echo(f"The last name is in the names of classrooms {ids}. The district renames them in Clever, and the next sync follows.")
    if found.pending_holds:
        click.echo(f"{found.pending_holds} holds of the district wait. The next sync plans them again: decide then.")
    click.echo(
        f"Purge {found.purge_id} records it. Backups keep what they have until they expire."
        if is_done
        else "Nothing was written. `--apply` erases for good."
    )


def print_counts(counts: Counts) -> None:
    """Rows by table and by what was done with them."""
    if counts:
        rows = [(table, what, number) for table, done in counts.items() for what, number in done.items()]
        print_table(("Table", "What", "Rows"), rows)
