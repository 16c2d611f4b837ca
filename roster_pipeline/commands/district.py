"""`roster district`: a district's agreement, settings and state."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from sqlalchemy import Connection

from roster_pipeline.commands.environment import current_database
from roster_pipeline.commands.offboard import offboard
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.commands.who import by_option, reason_option
from roster_pipeline.database.clock import database_time
from roster_pipeline.database.engine import translate_database_errors
from roster_pipeline.database.lock import district_lock
from roster_pipeline.districts.agreement import (
    MOST_LICENSES,
    Agreement,
    District,
    all_districts,
    find_district,
    record_agreement,
    schools_agreed,
    set_status,
)
from roster_pipeline.districts.changes import POLICIES, agreement_of, change_agreement, record_change, setting_value
from roster_pipeline.districts.domains import refuse_shared_domain
from roster_pipeline.districts.rekey import rekey as give_new_id
from roster_pipeline.errors import UsageError
from roster_pipeline.profiles import PROFILES
from roster_pipeline.visible import visible


@click.group()
def district() -> None:
    """Record, change, list, show, pause, resume and offboard districts."""


district.add_command(offboard)


@district.command()
@click.argument("clever_id")
@click.option("--name", required=True, help="The district's name.")
@click.option("--profile", required=True, type=click.Choice(list(PROFILES)), help="The vendor whose rules apply.")
@click.option("--domain", required=True, help="The part after @ in its users' logins.")
@click.option("--shared-domain", is_flag=True, help="Another district has this domain, and the logins are distinct all the same.")
@click.option("--start-date", type=click.DateTime(["%Y-%m-%d"]), help="No nightly sync before this day.")
@click.option("--licenses", type=click.IntRange(0, MOST_LICENSES), help="How many students it has bought seats for.")
@click.option("--over-license-policy", type=click.Choice(POLICIES), help="What happens to students beyond the licenses.")
@click.option("--grades", metavar="GRADE,...", help="Grades the agreement covers, like Kindergarten,1,2; empty for all.")
@click.option(
    "--school",
    "schools",
    multiple=True,
    metavar="SCHOOL[=LICENSES]",
    help="A school the agreement covers, by name or Clever id; repeat for each, or once empty for all. Put a = after a name that has one.",
)
@click.option("--auto-initial", is_flag=True, help="The first sync may soft-delete existing rows without approval.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting, like brakes.role_floor=20; repeat for each.")
@by_option()
@json_option
def add(
    clever_id: str,
    name: str,
    profile: str,
    domain: str,
    start_date: datetime | None,
    licenses: int | None,
    over_license_policy: str | None,
    grades: str | None,
    schools: Sequence[str],
    settings: Sequence[str],
    by: str | None,
    *,
    shared_domain: bool,
    auto_initial: bool,
    as_json: bool,
) -> None:
    """Record a district's agreement and make it active.

    Run it again to update the agreement: options that you leave out keep their value, and --school replaces the list of schools.

    Example: roster district add 67ee1af60978174923afab13 --name North --profile typing_agent --domain north.example.org --by Ann
    """
    agreement = Agreement(
        clever_id=clever_id,
        name=name,
        profile=profile,
        domain=domain,
        start_date=start_date.date() if start_date else None,
        licenses=licenses,
        over_license_policy=over_license_policy,
        grades=[grade.strip() for grade in grades.split(",") if grade.strip()] if grades is not None else None,
        schools=[_school(text) for text in schools if text] if schools else None,
        settings=_settings(settings) | ({"auto_initial": True} if auto_initial else {}),
    )
    with current_database() as database, translate_database_errors(), database.engine.begin() as connection:
        before = agreement_of(connection, clever_id)
        recorded = record_agreement(connection, agreement)
        record_change(connection, "district_add", recorded.clever_id, before, by=by)
        if not shared_domain:
            refuse_shared_domain(connection, clever_id, recorded.row["domain"])
        document = _document(connection, recorded)
    if as_json:
        print_json(document)
    else:
        click.echo(f"District {clever_id} is recorded and active (district id {recorded.district_id}, profile {profile}).")
        click.echo(f"Next: `roster readiness {clever_id}`; `roster district show {clever_id}` prints its settings.")


@district.command("set")
@click.argument("reference", metavar="DISTRICT")
@click.argument("assignments", metavar="KEY=VALUE...", nargs=-1, required=True)
@by_option()
@reason_option
@json_option
def set_(reference: str, assignments: Sequence[str], by: str | None, reason: str | None, *, as_json: bool) -> None:
    """Change single values of a DISTRICT's agreement or settings; everything else stays.

    KEY is name, domain, profile, start_date, licenses, over_license_policy, grades, or a setting, like brakes.role_floor. `licenses=`,
    without a value, means no limit; a setting without a value is that of the profile again. All values are recorded, or none.

    Example: roster district set 67ee1af60978174923afab13 licenses=1200 brakes.role_share=0.1 --by "J. Doe"
    """
    with current_database() as database, translate_database_errors(), database.engine.begin() as connection:
        changed_district, changed = change_agreement(connection, reference, _assignments(assignments), by=by, reason=reason)
        document = _document(connection, changed_district)
    if as_json:
        print_json(document | {"changed": changed})
    elif changed:
        rows = [(key, _shown(each, "before"), _shown(each, "after")) for key, each in changed.items()]
        print_table(("Key", "Before", "Now"), rows)
        click.echo(f"District {changed_district.clever_id} ({visible(changed_district.name)}) is changed. The next sync follows it.")
    else:
        click.echo(f"District {changed_district.clever_id} ({visible(changed_district.name)}) has these values already.")


@district.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """List every district.

    Example: roster district list
    """
    with current_database() as database, translate_database_errors(), database.engine.connect() as connection:
        found = all_districts(connection)
    if as_json:
        print_json({"districts": [dict(each.row) for each in found]})
    elif found:
        rows = [(each.district_id, each.clever_id, each.profile, each.status, each.name) for each in found]
        print_table(("Id", "Clever id", "Profile", "Status", "Name"), rows)
    else:
        click.echo("No district yet. `roster district add` records one; `roster demo` makes one up.")


@district.command()
@click.argument("reference", metavar="DISTRICT")
@json_option
def show(reference: str, *, as_json: bool) -> None:
    """Show a DISTRICT's agreement and its settings. Each setting says where it comes from: the profile, or the district itself.

    Example: roster district show 67ee1af60978174923afab13
    """
    with current_database() as database, translate_database_errors(), database.engine.connect() as connection:
        document = _document(connection, find_district(connection, reference))
    if as_json:
        print_json(document)
        return
    grades = document["agreed_grades"]
    lines = {key: value for key, value in document.items() if key not in ("schools", "settings")} | {
        "agreed_grades": ", ".join(grades or [])
    }
    print_table(("District", ""), [(key, str(value) if value not in (None, "") else None) for key, value in lines.items()])
    if document["schools"]:
        schools = [(each["licenses"], each["clever_id"], each["name"]) for each in document["schools"]]
        print_table(("Licenses", "Clever id", "Agreed school"), schools)
    if document["settings"]:
        settings = [(key, each["from"], json.dumps(each["value"])) for key, each in document["settings"].items()]
        print_table(("Setting", "From", "Value"), settings)


@district.command()
@click.argument("reference", metavar="DISTRICT")
@by_option()
@reason_option
@json_option
def pause(reference: str, by: str | None, reason: str | None, *, as_json: bool) -> None:
    """Stop syncing an active DISTRICT. No user is deleted.

    Example: roster district pause 67ee1af60978174923afab13 --by "J. Doe" --reason "summer"
    """
    _change_status(reference, "active", "paused", act="district_pause", by=by, reason=reason, as_json=as_json)


@district.command()
@click.argument("reference", metavar="DISTRICT")
@by_option()
@reason_option
@json_option
def resume(reference: str, by: str | None, reason: str | None, *, as_json: bool) -> None:
    """Sync a paused DISTRICT again.

    Example: roster district resume 67ee1af60978174923afab13 --by "J. Doe"
    """
    _change_status(reference, "paused", "active", act="district_resume", by=by, reason=reason, as_json=as_json)


@district.command()
@click.argument("reference", metavar="DISTRICT")
@click.argument("new_clever_id")
@by_option(required=True)
@json_option
def rekey(reference: str, new_clever_id: str, by: str, *, as_json: bool) -> None:
    """Give a DISTRICT that was recreated at Clever its new Clever id.

    Its next sync recognises people and schools under their new ids, and is held as a whole until somebody approves it.

    Example: roster district rekey 67ee1af60978174923afab13 67ee1af60978174923afab14 --by "J. Doe"
    """
    with current_database() as database, translate_database_errors(), database.engine.connect() as locking:
        found = find_district(locking, reference)
        # The lock is the session's, and the change has its own transaction.
        with district_lock(locking, found.district_id, found.clever_id), database.engine.begin() as connection:
            changed = give_new_id(connection, reference, new_clever_id, by=by, now=database_time(connection))
    if as_json:
        print_json({"district_id": changed.district_id, "district": changed.clever_id, "before": found.clever_id, "status": changed.status})
    else:
        click.echo(f"District {found.clever_id} is {changed.clever_id} now, and {changed.status}.")
        click.echo(f"Next: `roster plan {changed.clever_id}`. Its next sync waits for approval: `roster holds`.")


def _change_status(reference: str, before: str, after: str, *, act: str, by: str | None, reason: str | None, as_json: bool) -> None:
    with current_database() as database, translate_database_errors(), database.engine.begin() as connection:
        recorded = agreement_of(connection, find_district(connection, reference).clever_id)
        changed = set_status(connection, reference, before, after)
        record_change(connection, act, changed.clever_id, recorded, by=by, reason=reason)
    if as_json:
        print_json({"district_id": changed.district_id, "district": changed.clever_id, "status": changed.status})
    else:
        click.echo(f"District {changed.clever_id} is {changed.status}.")


def _document(connection: Connection, recorded: District) -> dict[str, Any]:
    row = {key: value for key, value in recorded.row.items() if key != "settings"}
    schools = [{key: each[key] for key in ("name", "clever_id", "licenses")} for each in schools_agreed(connection, recorded.district_id)]
    effective = _flat(recorded.rules.model_dump(mode="json")) if recorded.rules else {}
    own = _flat(recorded.row["settings"])
    settings = {key: {"value": value, "from": "district" if key in own else "profile"} for key, value in effective.items()}
    return {**row, "schools": schools, "settings": settings}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, named as `--set` names them: `brakes.role_floor`."""
    brakes = settings.get("brakes", {})
    return {key: value for key, value in settings.items() if key != "brakes"} | {f"brakes.{key}": value for key, value in brakes.items()}


def _school(text: str) -> tuple[str, int | None]:
    """A school and its licenses. A name with a = in it ends with another one: `A=B=` or `A=B=20`."""
    name, separator, licenses = text.rpartition("=")
    if not separator:
        return text, None
    if not licenses:
        return name, None
    if not (licenses.isdecimal() and len(licenses) <= 9):
        raise UsageError(
            f"--school {text}: the number of licenses must follow the last =.",
            hint="If the name itself has a =, end it with another one: `--school 'A=B='`, or `--school 'A=B=20'` for 20 licenses.",
        )
    return name, int(licenses)


def _settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Turns `KEY=VALUE` texts into the jsonb of `app.districts.settings`. `record_agreement` checks the values."""
    settings: dict[str, Any] = {}
    for text in assignments:
        key, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"--set {text}: write KEY=VALUE.")
        if key == "brakes":
            raise UsageError("--set brakes: name one limit, like brakes.role_floor=20.")
        if key.startswith("brakes."):
            settings.setdefault("brakes", {})[key.removeprefix("brakes.")] = setting_value(key, value)
        else:
            settings[key] = setting_value(key, value)
    return settings


def _assignments(texts: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` texts by key."""
    found: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise UsageError(f"{text}: write KEY=VALUE.")
        if key in found:
            raise UsageError(f"{key} is named twice.")
        found[key] = value
    return found


def _shown(change: Mapping[str, Any], when: str) -> str | None:
    return json.dumps(change[when]) if change.get(when) is not None else None
