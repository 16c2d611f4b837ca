"""`roster findings`: the records that the checks of the last sync found.

Does not belong here: reading them (`support/findings.py`). Names go to the caller's own terminal, or to the file that the caller names
(SPEC 12).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from roster_pipeline.commands.csv_file import csv_option, write_csv
from roster_pipeline.commands.environment import current_database
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.database.engine import translate_database_errors
from roster_pipeline.database.models import Model
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.errors import UsageError
from roster_pipeline.support.findings import Found, audited_sync, count_findings, list_findings
from roster_pipeline.sync.run import project_models
from roster_pipeline.visible import visible

# So many records of a rule, if no rule is named.
SHOWN = 10


@click.command()
@click.argument("reference", metavar="DISTRICT")
@click.argument("rule", required=False)
@csv_option
@json_option
def findings(reference: str, rule: str | None, path: Path | None, *, as_json: bool) -> None:
    """List the records of a DISTRICT that violate a rule, as the last applied sync found them; with RULE, only those of that rule.

    Names are personal data: they are printed to this terminal, or written to the file.

    Example: roster findings 67ee1af60978174923afab13 username_missing --csv found.csv
    """
    audits = {each.table: each for each in project_models().of("audits")}
    if rule is not None and rule not in audits:
        raise UsageError(f"There is no rule {rule!r}.", hint=f"The rules are: {', '.join(audits)}.")
    is_complete = as_json or path is not None or rule is not None
    with current_database() as database, translate_database_errors(), database.engine.connect() as connection:
        district = find_district(connection, reference)
        sync_id = audited_sync(connection, district.district_id)
        counts = count_findings(connection, district.district_id)
        found = list(list_findings(connection, district.district_id, rule=rule, first=None if is_complete else SHOWN))
    counts = {each: number for each, number in counts.items() if rule in (None, each)}
    if path is not None:
        write_csv(path, Found._fields, found)
    if as_json:
        rules = [{"rule": each, "severity": audits[each].severity, "records": number} for each, number in counts.items() if each in audits]
        document = {"district": district.clever_id, "district_id": district.district_id, "sync_id": sync_id, "rules": rules}
        print_json(document | ({"file": str(path)} if path is not None else {"findings": [each._asdict() for each in found]}))
    elif sync_id is None:
        click.echo(f"No sync of district {district.clever_id} ({visible(district.name)}) has been applied yet.")
    else:
        click.echo(f"District {district.clever_id} ({visible(district.name)}): {sum(counts.values()):,} findings of sync {sync_id}.")
        if path is not None:
            click.echo(f"They are in {path}.")
        else:
            _print(counts, audits, found)


def _print(counts: Mapping[str, int], audits: Mapping[str, Model], found: Iterable[Found]) -> None:
    if counts:
        rows = [(number, each, audits[each].description.partition(".")[0] + ".") for each, number in counts.items() if each in audits]
        print_table(("Records", "Rule", "What it finds"), rows)
    records = list(found)
    if records:
        print_table(
            ("Rule", "Resource", "Clever id", "Username", "Name"),
            [(each.rule, each.resource, each.clever_id, each.username, each.name) for each in records],
        )
    if len(records) < sum(counts.values()):
        click.echo(f"Only the first {SHOWN} of each rule: name a RULE to see all of them, or write a file with --csv FILE.")
