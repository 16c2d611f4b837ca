"""`roster purge`: removes soft-deleted users permanently. Without --yes it is a dry run.

Does not belong here: who may be removed, and removing them (`support/purge.py`).
"""

from datetime import datetime
from typing import Any

import click

from roster_pipeline.commands.environment import read_settings
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.commands.who import by_option
from roster_pipeline.database.clock import time_of
from roster_pipeline.database.engine import open_database
from roster_pipeline.database.migrate import require_current_schema
from roster_pipeline.errors import UsageError
from roster_pipeline.support.purge import Purge, plan_purge, purge_users

REFUSED = 1
_IDS_SHOWN = 10


@click.command()
@click.argument("district")
@click.option("--deleted-before", required=True, type=click.DateTime(["%Y-%m-%d"]), help="A day in Los Angeles, at least 30 days ago.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Refuse to remove more users than this.")
@by_option(text="Who removes them; required with --yes, and stored in ops.purges.")
@click.option("--yes", is_flag=True, help="Remove them. Without it nothing is written.")
@json_option
@click.pass_context
def purge(context: click.Context, district: str, deleted_before: datetime, limit: int, by: str | None, *, yes: bool, as_json: bool) -> None:
    """Permanently remove users of a DISTRICT that were soft-deleted before a day. Without --yes, only count them.

    This also removes their roles and enrollments, and the values in their history (ops.changes). The history still shows that something
    changed, and when. There is no undo: a person who returns later is a new user.

    It never removes protected users, users marked do_not_restore, and people that Clever shared at the district's last sync. It leaves
    soft-deleted schools and classrooms, because other rows refer to their ids.

    Exit status 1 if there are more users than --limit, or if another table of the application refers to one of them.

    Example: roster purge 67ee1af60978174923afab13 --deleted-before 2026-01-31 --by "J. Doe" --yes
    """
    if yes and by is None:
        raise UsageError("--yes needs --by WHO.", hint="It is stored in ops.purges.")
    settings, day = read_settings(), deleted_before.date()
    with open_database(settings) as database:
        require_current_schema(database)
        now = time_of(database)
        if yes:
            found = purge_users(database, settings, district, deleted_before=day, limit=limit, by=by or "", now=now)
        else:
            found = plan_purge(database, settings, district, deleted_before=day, now=now)
    is_over_limit = len(found.user_ids) > limit
    if as_json:
        print_json(_document(found, is_over_limit=is_over_limit, is_removed=yes))
    else:
        _print(found, is_over_limit=is_over_limit, is_removed=yes)
    if is_over_limit:
        context.exit(REFUSED)


def _document(found: Purge, *, is_over_limit: bool, is_removed: bool) -> dict[str, Any]:
    return {
        "district": found.district.clever_id,
        "district_id": found.district.district_id,
        "removed": is_removed,
        "users": len(found.user_ids),
        "user_ids": found.user_ids[:_IDS_SHOWN],
        "by_role": found.by_role,
        "is_over_limit": is_over_limit,
        "rows": found.removed,
    }


def _print(found: Purge, *, is_over_limit: bool, is_removed: bool) -> None:
    users = len(found.user_ids)
    if users:
        print_table(
            ("Role", "School", "Name", "Users"),
            [(each["role"] or "(none)", each["school_id"], each["school"], each["users"]) for each in found.by_role],
        )
        more = f" and {users - _IDS_SHOWN:,} more" if users > _IDS_SHOWN else ""
        click.echo(f"User ids: {', '.join(map(str, found.user_ids[:_IDS_SHOWN]))}{more}.")
    click.echo(f"District {found.district.clever_id}: {users:,} users {'removed' if is_removed else 'would be removed'}.")
    if found.removed:
        click.echo(
            f"With them {found.removed['roles']:,} roles and {found.removed['enrollments']:,} enrollments;"
            f" {found.removed['changes_emptied']:,} rows of ops.changes have lost their values."
        )
    if is_over_limit:
        click.echo("That is more than --limit: --yes would be refused.")
    elif users and not is_removed:
        click.echo("Nothing was written. `--yes --by WHO` removes them permanently.")
