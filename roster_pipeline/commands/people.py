"""`roster admins import` and `roster users import`: import people from a CSV file, and report what happened to every row.

Does not belong here: the import itself (`people/`). Only a preview prints names and usernames, to the terminal of the person who asked for
it (SPEC 12).
"""

from collections.abc import Sequence
from typing import IO, Any

import click

from roster_pipeline.commands.environment import read_settings
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.database.engine import open_database
from roster_pipeline.people.imports import ROLES, ImportReport, Kind, PlannedPerson, import_people
from roster_pipeline.people.reader import COLUMNS

REFUSED = 1


@click.group()
def admins() -> None:
    """Import school and district admins from CSV. No sync changes them."""


@click.group()
def users() -> None:
    """Import users of any role from CSV, if the district's profile allows that. No sync changes them."""


def _import_command(kind: Kind) -> click.Command:
    @click.command("import", help=_HELP.format(kind=kind, columns=", ".join(COLUMNS), roles=", ".join(ROLES[kind])))
    @click.argument("file", type=click.File("rb"))
    @click.option("--district", required=True, help="Clever id or district id.")
    @click.option("--strict", is_flag=True, help="If a row is refused, import nothing.")
    @click.option("--preview", is_flag=True, help="Write nothing; print what would happen, names included.")
    @json_option
    @click.pass_context
    def command(context: click.Context, file: IO[bytes], district: str, *, strict: bool, preview: bool, as_json: bool) -> None:
        settings = read_settings()
        with open_database(settings) as database:
            report = import_people(database, settings, district, file, kind, strict=strict, preview=preview)
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

Good rows are imported. Every refused row is reported with its line (the header is line 1), and the exit status is then 1. People who are
not in the file stay unchanged. Importing the same file again changes nothing.
"""

admins.add_command(_import_command("admins"))
users.add_command(_import_command("users"))


def _document(report: ImportReport, *, preview: bool) -> dict[str, Any]:
    document = {
        "district": report.district.clever_id,
        "district_id": report.district.district_id,
        "preview": preview,
        "written": report.is_written,
        **dict(_counts(report)),
        "errors": [error._asdict() for error in report.errors],
    }
    return document | ({"people": [person._asdict() for person in report.people]} if preview else {})


def _print_report(report: ImportReport, *, preview: bool) -> None:
    if report.people:
        people = [(each.line, each.action, each.username, f"{each.first_name} {each.last_name}", _roles(each)) for each in report.people]
        print_table(("Line", "Would", "Username", "Name", "Roles then"), people, title="Preview")
        if more := report.created + report.restored + report.updated - len(people):
            click.echo(f"... and {more:,} more.")
    if report.errors:
        print_table(
            ("Line", "Column", "Reason"), [(each.line, each.column or "(row)", each.reason) for each in report.errors], title="Refused rows"
        )
    *people_counts, (_, refused) = _counts(report)
    counted = ", ".join(f"{number:,} {name}" for name, number in people_counts)
    click.echo(f"District {report.district.clever_id}: people {'would be ' if preview else ''}{counted}; {refused:,} rows refused.")
    if not report.is_written:
        click.echo("Nothing was written: this is a preview." if preview else "Nothing was written: --strict imports all rows or none.")


def _roles(person: PlannedPerson) -> str:
    roles = ", ".join(person.roles)
    return f"{roles} (changes: {', '.join(person.changed)})" if person.changed else roles


def _counts(report: ImportReport) -> Sequence[tuple[str, int]]:
    return [(name, getattr(report, name)) for name in ("created", "restored", "updated", "unchanged", "refused")]
