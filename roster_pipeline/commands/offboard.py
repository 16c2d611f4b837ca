"""`roster district offboard`: the end of a contract. Exports a district, then erases it.

Does not belong here: what is written (`support/export.py`) and what is removed (`support/offboarding.py`).
"""

from pathlib import Path
from typing import Any

import click

from roster_pipeline.commands.environment import read_settings
from roster_pipeline.commands.erase import print_counts
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.commands.who import by_option, reason_option
from roster_pipeline.database.clock import time_of
from roster_pipeline.database.engine import open_database
from roster_pipeline.database.migrate import require_current_schema
from roster_pipeline.errors import UsageError
from roster_pipeline.support.export import Export, export_district
from roster_pipeline.support.offboarding import Offboarding, erase_district
from roster_pipeline.visible import visible


@click.command()
@click.argument("reference", metavar="DISTRICT")
@click.option("--export", "folder", metavar="FOLDER", type=click.Path(path_type=Path), help="Write all rows about it into a new folder.")
@click.option("--erase", is_flag=True, help="Erase it. Without --apply, only say what would be removed.")
@by_option(required=True)
@reason_option
@click.option("--apply", is_flag=True, help="With --erase: erase for good.")
@json_option
def offboard(reference: str, folder: Path | None, by: str, reason: str | None, *, erase: bool, apply: bool, as_json: bool) -> None:
    """The end of a contract: export everything that is held about a DISTRICT, or erase it.

    --export writes one CSV file for each table, and a manifest with rows, columns and SHA-256. The folder appears when it is complete.

    --erase needs a district that is paused or disconnected, and --reason. It removes its rows in app, staging, reconcile, findings and
    quarantine, and all values in ops.changes. A row of app that a table of the application refers to is blanked instead. Counts and one row
    of ops.purges remain. There is no undo.

    \b
    Example: roster district offboard 5f0000000000000000000001 --export ./example-unified --by "Kim, support"
    Example: roster district offboard 5f0000000000000000000001 --erase --by "Kim, support" --reason "contract 17 has ended" --apply
    """
    _require_one(folder, reason, erase=erase, apply=apply)
    settings = read_settings()
    with open_database(settings) as database:
        require_current_schema(database)
        now = time_of(database)
        if folder is not None:
            exported = export_district(database, settings, reference, folder, by=by, now=now)
            _show_export(exported, as_json=as_json)
        else:
            erased = erase_district(database, settings, reference, by=by, reason=reason or "", apply=apply, now=now)
            _show_erasure(erased, as_json=as_json)


def _require_one(folder: Path | None, reason: str | None, *, erase: bool, apply: bool) -> None:
    if erase == (folder is not None):
        raise UsageError("Name one of --export FOLDER and --erase.", hint="Export first, then erase.")
    if erase and reason is None:
        raise UsageError("--erase needs --reason TEXT.", hint="It is kept in ops.purges, which the district may see.")
    if apply and not erase:
        raise UsageError("--apply belongs to --erase.", hint="An export changes nothing.")


def _show_export(exported: Export, *, as_json: bool) -> None:
    rows = sum(each.rows for each in exported.tables)
    if as_json:
        document: dict[str, Any] = {"district": exported.district.clever_id, "folder": str(exported.folder), "rows": rows}
        tables = [{"table": each.table, "file": each.file, "rows": each.rows, "sha256": each.sha256} for each in exported.tables]
        print_json(document | {"tables": tables})
        return
    print_table(("File", "Rows"), [(each.file, each.rows) for each in exported.tables if each.rows])
    click.echo(
        f"District {exported.district.clever_id} ({visible(exported.district.name)}): {rows:,} rows in {len(exported.tables)} files,"
        f" with manifest.json, in {visible(str(exported.folder))}."
    )
    click.echo("They hold personal data, and only you can read them. Send them over a safe channel, and remove them afterwards.")


def _show_erasure(erased: Offboarding, *, as_json: bool) -> None:
    is_done = erased.purge_id is not None
    if as_json:
        document = {"district": erased.district.clever_id, "district_id": erased.district.district_id, "erased": is_done}
        print_json(document | {"purge_id": erased.purge_id, "counts": erased.counts})
        return
    print_counts(erased.counts)
    click.echo(f"District {erased.district.clever_id} ({visible(erased.district.name)}) {'is' if is_done else 'would be'} erased.")
    click.echo(
        f"Purge {erased.purge_id} records it, and can be shown to the district. Backups keep what they have until they expire."
        if is_done
        else "Nothing was written. `--apply` erases for good."
    )
