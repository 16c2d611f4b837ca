"""`roster admins` and `roster users`: import people from a CSV file, report what happened to every row, and end an imported account.

Does not belong here: the import itself (`people/`). Only a preview prints names and usernames, to the terminal of the person who asked for
it (SPEC 12).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

from roster_pipeline.commands.environment import read_settings
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.commands.who import by_option, reason_option
from roster_pipeline.database.engine import open_database
from roster_pipeline.people.imports import ROLES, ImportReport, Kind, PlannedPerson, counts_of, import_people
from roster_pipeline.people.reader import COLUMNS
from roster_pipeline.people.removal import remove_person

REFUSED = 1


@click.group()
def admins() -> None:
    """Import school and district admins from CSV, and end an imported account. No sync changes them."""


@click.group()
def users() -> None:
    """Import users of any role from CSV, if the district's profile allows that. No sync changes them."""


def _import_command(kind: Kind) -> click.Command:
    @click.command("import", help=_HELP.format(kind=kind, columns=", ".join(COLUMNS), roles=", ".join(ROLES[kind])))
    @click.argument("file", type=click.File("rb"))
    @click.option("--district", required=True, help="Clever id or district id.")
    @click.option("--strict", is_flag=True, help="If a row is refused, import nothing.")
    @click.option("--preview", is_flag=True, help="Write nothing; print what would happen, names included.")
    @by_option(text="Who imports; stored in ops.audit.")
    @json_option
    @click.pass_context
    def command(
        context: click.Context, file: IO[bytes], district: str, by: str | None, *, strict: bool, preview: bool, as_json: bool
    ) -> None:
        settings, name = read_settings(), Path(file.name).name
        with open_database(settings) as database:
            report = import_people(database, settings, district, file, kind, strict=strict, preview=preview, by=by, file_name=name)
        if as_json:
            print_json(_document(report, preview=preview))
        else:
            _print_report(report, preview=preview)
        if report.errors:
            context.exit(REFUSED)

    return command


_HELP = """Import {kind} from a CSV FILE (- for standard input).

Its first line names the columns {columns}, in any order. Role is one of {roles}. School is a name or a Clever id, empty for
district_admin. A person with several roles has one row for each, with the same username.

Good rows are imported. Every refused row is reported with its line (the header is line 1), and the exit status is then 1. Importing the
same file again changes nothing.

The file decides the imported roles of the people in it: a role that it no longer gives them ends, and is reported. People who are not in
the file stay unchanged: `roster admins remove` ends an account.

Example: roster {kind} import {kind}.csv --district 67ee1af60978174923afab13 --by "J. Doe" --preview
"""


_TEMPLATE_HELP = """Print the first line of a CSV file for `roster {kind} import`.

Example: roster {kind} template > {kind}.csv
"""


def _template_command(kind: Kind) -> click.Command:
    @click.command("template", help=_TEMPLATE_HELP.format(kind=kind))
    @json_option
    def command(*, as_json: bool) -> None:
        if as_json:
            print_json({"columns": list(COLUMNS), "roles": list(ROLES[kind])})
        else:
            click.echo(",".join(COLUMNS))

    return command


@click.command()
@click.argument("username")
@click.option("--district", required=True, help="Clever id or district id.")
@by_option()
@reason_option
@json_option
def remove(username: str, district: str, by: str | None, reason: str | None, *, as_json: bool) -> None:
    """End the imported account that has a USERNAME: it is deactivated, with its roles and classes. No sync would do that.

    Importing the person again restores the same account.

    Example: roster admins remove ann.li --district 67ee1af60978174923afab13 --by "J. Doe"
    """
    settings = read_settings()
    with open_database(settings) as database:
        removed = remove_person(database, settings, district, username, by=by, reason=reason)
    if as_json:
        ended = {"roles": removed.roles, "enrollments": removed.enrollments}
        print_json(
            {"district": removed.district.clever_id, "district_id": removed.district.district_id, "user_id": removed.user_id} | ended
        )
    else:
        click.echo(
            f"District {removed.district.clever_id}: user {removed.user_id} is deactivated,"
            f" with {removed.roles:,} roles and {removed.enrollments:,} enrollments."
        )


admins.add_command(_import_command("admins"))
admins.add_command(remove)
admins.add_command(_template_command("admins"))
users.add_command(_import_command("users"))
users.add_command(_template_command("users"))


def _document(report: ImportReport, *, preview: bool) -> dict[str, Any]:
    document = {
        "district": report.district.clever_id,
        "district_id": report.district.district_id,
        "preview": preview,
        "written": report.is_written,
        **counts_of(report),
        "ended": [each._asdict() for each in report.ended],
        "errors": [error._asdict() for error in report.errors],
    }
    return document | ({"people": [person._asdict() for person in report.people]} if preview else {})


def _print_report(report: ImportReport, *, preview: bool) -> None:
    if report.people:
        people = [(each.line, each.action, each.username, f"{each.first_name} {each.last_name}", _roles(each)) for each in report.people]
        print_table(("Line", "Would", "Username", "Name", "Roles then"), people, title="Preview")
        if more := report.created + report.restored + report.updated - len(people):
            click.echo(f"... and {more:,} more.")
    if report.ended:
        print_table(("Line", "Role that ends", "School"), report.ended, title="Roles that the file no longer gives")
        if more := report.roles_ended - len(report.ended):
            click.echo(f"... and {more:,} more.")
    if report.errors:
        print_table(
            ("Line", "Column", "Reason"), [(each.line, each.column or "(row)", each.reason) for each in report.errors], title="Refused rows"
        )
    counted = ", ".join(f"{getattr(report, name):,} {name}" for name in ("created", "restored", "updated", "unchanged"))
    would = "would be " if preview else ""
    click.echo(f"District {report.district.clever_id}: people {would}{counted}; {report.refused:,} rows refused.")
    for sentence in _sentences(report):
        click.echo(sentence)
    if not report.is_written:
        click.echo("Nothing was written: this is a preview." if preview else "Nothing was written: --strict imports all rows or none.")


def _sentences(report: ImportReport) -> Iterator[str]:
    """What else the person who imports has to know."""
    if report.roles_ended:
        yield f"Roles that end, because the file no longer gives them: {report.roles_ended:,}."
    if report.roles_left:
        yield (
            f"Roles that the file does not give, and that stay, because a refused row can be about them: {report.roles_left:,}."
            " Correct the rows, and import the file again."
        )
    if report.beyond_licenses:
        policy = report.district.row["over_license_policy"]
        done = {"warn": "they are imported all the same", "wait": "they wait for a license", "hold": "they are refused"}[policy]
        yield f"Students beyond the licenses: {report.beyond_licenses:,}; {done} (policy {policy})."


def _roles(person: PlannedPerson) -> str:
    more = [f"changes: {', '.join(person.changed)}"] if person.changed else []
    more += [f"ends: {', '.join(person.ends)}"] if person.ends else []
    return ", ".join(person.roles) + (f" ({'; '.join(more)})" if more else "")
