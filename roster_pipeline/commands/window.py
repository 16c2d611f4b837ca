"""`roster window`: adds, lists and cancels the windows of a district or of all districts of a profile (R14.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click
from sqlalchemy import Connection

from roster_pipeline.commands.environment import current_database
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.commands.who import NOT_BLANK, by_option, reason_option
from roster_pipeline.database.clock import database_time
from roster_pipeline.database.engine import translate_database_errors
from roster_pipeline.districts.agreement import all_districts, find_district
from roster_pipeline.districts.changes import setting_value
from roster_pipeline.districts.windows import (
    MOST_NIGHTS,
    Kind,
    NewWindow,
    Window,
    add_window,
    cancel_window,
    checked_limits,
    current_windows,
)
from roster_pipeline.errors import UsageError
from roster_pipeline.profiles import PROFILES
from roster_pipeline.visible import visible

_DAY = click.DateTime(["%Y-%m-%d"])


@click.group()
def window() -> None:
    """Add, list and cancel windows: spans of nights that are agreed in advance."""


@window.command()
@click.argument("reference", metavar="[DISTRICT]", required=False)
@click.option("--profile", type=click.Choice(list(PROFILES)), help="For all districts of this profile that have no window of their own.")
@click.option("--kind", required=True, type=click.Choice(list(MOST_NIGHTS)), help="What is different in these nights.")
@click.option("--from", "first", required=True, type=_DAY, metavar="DAY", help="The first night, by the day on which it begins.")
@click.option("--to", "last", required=True, type=_DAY, metavar="DAY", help="The last night.")
@click.option("--limit", "limits", multiple=True, metavar="KEY=VALUE", help="A limit of a rollover, like role_share=0.6; repeat for each.")
@by_option(required=True)
@click.option("--reason", required=True, metavar="TEXT", type=NOT_BLANK, help="Why; shown wherever the window is. No names of people.")
@json_option
def add(
    reference: str | None,
    profile: str | None,
    kind: Kind,
    first: datetime,
    last: datetime,
    limits: Sequence[str],
    by: str,
    reason: str,
    *,
    as_json: bool,
) -> None:
    """Agree on a window for a DISTRICT, or for all districts of a profile.

    A night lasts from noon to noon in Los Angeles: the sync at 00:00 belongs to the night before. freeze: nothing syncs. additions_only:
    nobody and nothing is deactivated until the window is over. rollover: the brakes have the limits of the window, and graduates are
    counted apart. A window is never changed, only cancelled.

    Example: roster window add 67ee1af60978174923afab13 --kind rollover --from 2026-08-03 --to 2026-08-14 --by Ann --reason "ticket 12"
    """
    if (reference is None) == (profile is None):
        raise UsageError("Name a DISTRICT or a --profile, and not both.")
    with current_database() as database, translate_database_errors(), database.engine.begin() as connection:
        district_id = find_district(connection, reference).district_id if reference is not None else None
        new = NewWindow(district_id, profile, kind, first.date(), last.date(), checked_limits(_limits(limits)))
        now = database_time(connection)
        added = add_window(connection, new, by=by, reason=reason, now=now)
        document = _documents(connection, [added], now)[0]
    if as_json:
        print_json(document)
        return
    click.echo(f"Window {added.window_id} is recorded: {added.kind} in {added.span}, for {document['for']}.")
    click.echo("It is on now." if document["is_on"] else f"It begins at {added.begins_at:%Y-%m-%d %H:%M} UTC, noon in Los Angeles.")


@window.command("list")
@click.argument("reference", metavar="[DISTRICT]", required=False)
@click.option("--all", "is_all", is_flag=True, help="Also windows that are over or cancelled.")
@json_option
def list_(reference: str | None, *, is_all: bool, as_json: bool) -> None:
    """List the windows that are on or still to come, of a DISTRICT and its profile, or of all.

    Example: roster window list --all
    """
    with current_database() as database, translate_database_errors(), database.engine.connect() as connection:
        district_id = find_district(connection, reference).district_id if reference is not None else None
        now = database_time(connection)
        found = _documents(connection, current_windows(connection, district_id=district_id, now=None if is_all else now), now)
    if as_json:
        print_json({"windows": found})
    elif found:
        rows = [(each["window_id"], each["kind"], each["first_night"], each["last_night"], _state(each), each["for"]) for each in found]
        print_table(("Window", "Kind", "First night", "Last night", "State", "For"), rows)
        for each in found:
            limits = "".join(f" {key}={value:g}" for key, value in each["limits"].items())
            click.echo(f"Window {each['window_id']}, by {visible(each['created_by'])}: {visible(each['reason'])}{limits}")
    else:
        click.echo("No window is on or to come." if not is_all else "There is no window.")


@window.command()
@click.argument("window_id", metavar="WINDOW", type=click.IntRange(1, 2**63 - 1))
@by_option(required=True)
@reason_option
@json_option
def cancel(window_id: int, by: str, reason: str | None, *, as_json: bool) -> None:
    """Cancel a WINDOW. From the next sync on it no longer counts.

    Example: roster window cancel 3 --by Ann --reason "everything is loaded"
    """
    with current_database() as database, translate_database_errors(), database.engine.begin() as connection:
        now = database_time(connection)
        cancelled = cancel_window(connection, window_id, by=by, reason=reason, now=now)
        document = _documents(connection, [cancelled], now)[0]
    if as_json:
        print_json(document)
    else:
        click.echo(f"Window {window_id} is cancelled ({cancelled.kind}, {cancelled.span}, for {document['for']}).")


def _limits(assignments: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in assignments:
        key, separator, value = text.partition("=")
        if not separator or not value:
            raise UsageError(f"--limit {text}: write KEY=VALUE.")
        if key in found:
            raise UsageError(f"--limit {key} is named twice.")
        found[key] = setting_value(key, value)
    return found


def _documents(connection: Connection, found: Sequence[Window], now: datetime) -> list[dict[str, Any]]:
    """The windows as documents, each with whose it is."""
    known = {each.district_id: each for each in all_districts(connection)}

    def whose(each: Window) -> dict[str, Any]:
        if each.district_id is None:
            return {"district": None, "for": f"profile {each.profile}"}
        district = known[each.district_id]
        return {"district": district.clever_id, "for": f"district {district.clever_id} ({visible(district.name)})"}

    return [
        asdict(each)
        | whose(each)
        | {"is_on": each.cancelled_at is None and each.begins_at <= now < each.ends_at, "is_over": now >= each.ends_at}
        for each in found
    ]


def _state(document: Mapping[str, Any]) -> str:
    if document["cancelled_at"] is not None:
        return "cancelled"
    return "on" if document["is_on"] else "over" if document["is_over"] else "to come"
