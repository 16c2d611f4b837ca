"""`roster explain`: everything about one person, in sentences that need no knowledge of the tables.

Belongs here: what every code means, and the layout. Does not belong here: finding the facts (`support/explain.py`). Names of people are
printed here and by the import previews, on the caller's own terminal, and nowhere else (SPEC 12).
"""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import NamedTuple

import click

from roster_pipeline.commands.environment import current_database
from roster_pipeline.commands.holds import meaning
from roster_pipeline.commands.output import json_option, print_json, print_table
from roster_pipeline.database.engine import translate_database_errors
from roster_pipeline.districts.agreement import find_district
from roster_pipeline.support.explain import explain_person
from roster_pipeline.support.explanation import Ambiguous, Change, Decision, Explanation, Hold, ListedRole, School, User
from roster_pipeline.visible import visible


class Meaning(NamedTuple):
    """What a code means, for people who have never seen it, and the rule behind it."""

    text: str
    rule: str

    def __str__(self) -> str:
        return f"{self.text} ({self.rule})."


# reconcile.user_matches.decision
DECISIONS = {
    "link": Meaning("Rostered as the user who is linked to this Clever id", "R5.1"),
    "adopt": Meaning("Rostered as a user who was here before: the account stays, and is linked to this Clever id", "R5.2"),
    "relink": Meaning("Rostered as the user who was linked to an old Clever id of the same person", "R5.3"),
    "create": Meaning("Rostered as a new user", "R5.4"),
    "protected": Meaning("The user is protected: no sync changes them", "R8.1"),
    "deactivated": Meaning("Support has deactivated the user on purpose (do_not_restore): no sync restores them", "R8.3"),
    "relink_deactivated": Meaning("Moved to a new Clever id, and still deactivated on purpose by support (do_not_restore)", "R8.3"),
    "frozen": Meaning("The user is left unchanged, because Clever's record cannot be used", "R4.6"),
    "held": Meaning("Held: the user is left unchanged until a person decides", "R7.4"),
    "none": Meaning("Not rostered", "R5.4"),
}

# reconcile.user_matches.rule: how the person was recognised, or why they are not rostered.
RULES = {
    "clever_id": Meaning("Recognised by the Clever id", "R5.1"),
    "username": Meaning("Recognised by the username: one user without a Clever id had it here, and one person in Clever", "R5.2"),
    "two_of_three": Meaning(
        "Recognised by two of three: username that Clever gives, SIS id, both names; the Clever id linked before is no longer in Clever",
        "R5.3",
    ),
    "duplicate_record": Meaning(
        "Clever lists this person twice. There is no second account: classes of both records are those of the other record's user",
        "R5.10",
    ),
    "new": Meaning("No existing user was recognised as this person", "R5.4"),
    "outside_school": Meaning("The schools that Clever lists are outside the sharing agreement", "R6.4"),
    "outside_grade": Meaning("The grade is outside the sharing agreement", "R6.4"),
    "no_role": Meaning("Clever lists no role at a shared school", "R5.8"),
    "quarantined": Meaning("Clever's record breaks a mandatory rule, and is quarantined", "R4.2"),
    "unreadable": Meaning("Not in the records of Clever that can be read, but one has no readable id, and can be this person's", "R4.8"),
    "relink_waits": Meaning(
        "This is probably a new Clever id of a user who is here. It is linked as soon as all records of that role can be read", "R4.8"
    ),
    "username_taken": Meaning("A protected user has this Clever id as username, so the record is quarantined", "R5.5"),
    "relinks": Meaning("Too many people have new Clever ids at once; linking the new ids to their users waits for approval", "R7.3"),
    "held_role": Meaning("The only roles that Clever lists wait for approval: of a new admin, or at a school that is held", "R7.4"),
    "held_school": Meaning("The only schools are held: account, roles and classes stay, the rest follows Clever", "R7.4"),
    "licenses": Meaning("Beyond the licenses: waits for approval, or for more licenses", "R9.2"),
    "absent": Meaning("Clever shares nobody who is recognised as this user", "R7.2"),
}

# reconcile.user_matches.username_rule
USERNAMES = {
    "own_id": Meaning("The Clever id, as for every admin and for people without a username in Clever", "R5.5"),
    "kept": Meaning("What Clever gives; the user had it already", "R5.5"),
    "given": Meaning("What Clever gives; nobody else claimed it", "R5.5"),
    "taken": Meaning("The Clever id, because another user with a better claim keeps the username that Clever gives", "R5.5"),
    "held": Meaning("The present one: names, username and ways to sign in stay until a person decides", "R7.4"),
    "withheld": Meaning("The Clever id, because somebody who is held keeps the username that Clever gives", "R7.4"),
    "contested": Meaning("The Clever id, because Clever gives the username to several people and none of them had it", "R5.5"),
}


@click.command()
@click.argument("district")
@click.argument("person")
@json_option
def explain(district: str, person: str, *, as_json: bool) -> None:
    """Explain one PERSON of a DISTRICT: what Clever shares, what was decided and why, what was written when, and how they sign in.

    PERSON is a Clever id, else a username, else a user id. Prints names: for your own eyes only.

    Example: roster explain 67ee1af60978174923afab13 ann.li
    """
    with current_database() as database, translate_database_errors(), database.engine.connect() as connection:
        found = explain_person(connection, find_district(connection, district), person)
    if as_json:
        print_json(asdict(found) | ({"says": dict(_says(found))} if isinstance(found, Explanation) else {}))
    elif isinstance(found, Ambiguous):
        print_matches(found)
    else:
        _print(found)


def print_matches(found: Ambiguous) -> None:
    """The people who fit, each with the ids that name one."""
    click.echo(f"{len(found.matches)} people fit as {_words(found.found_by)}. Name one by Clever id, or by user id:")
    rows = [
        (each.clever_id, each.user_id, "yes" if each.is_active else "no", f"{each.first_name} {each.last_name}") for each in found.matches
    ]
    print_table(("Clever id", "User id", "Active", "Name"), rows)


def _print(found: Explanation) -> None:
    print_table(("About", "Answer"), [(heading, sentences) for heading, sentences in _says(found)])
    if found.user is None:
        return
    click.echo("History, newest first:" if found.user.changes else "No sync and no import has ever written this user.")
    for each in found.user.changes:
        click.echo(f"  {_time(each.changed_at)}, {visible(_who(each))}: {_what(each)}\n      {visible(_difference(each))}")
    if more := found.user.changes_in_all - len(found.user.changes):
        click.echo(f"And {more:,} older changes: select * from ops.changes where user_id = {found.user.user_id};")  # noqa: S608  (shown, not run)


def _says(found: Explanation) -> Iterator[tuple[str, list[str]]]:
    """Headings and their sentences, from Clever to the sign-in. A heading without anything to say is left out."""
    yield "Person", _person(found)
    yield "In Clever", list(_in_clever(found))
    if found.findings:
        yield "Problems", list(_problems(found))
    if found.decision is not None:
        yield "Decision", list(_decision(found, found.decision))
        if found.decision.username_rule is not None:
            yield "Username", list(_username(found.decision))
    if found.holds:
        yield "Waits for", [_hold(each) for each in found.holds]
    yield "Account", list(_account(found.user))
    if found.user is not None:
        yield "Roles", _roles(found.user)
        yield "Classrooms", [_classrooms(found.user)]
        if found.user.row["license_status"] is not None and found.user.row["deleted_at"] is None:
            yield "Seat", [_SEATS[found.user.row["license_status"]]]
    yield "Sign-in", [_sign_in(found)]


def _person(found: Explanation) -> list[str]:
    described = found.shared.record or (found.user.row if found.user is not None else {})
    names = " ".join(described[part] for part in ("first_name", "middle_name", "last_name") if described.get(part))
    ids = [f"Clever id {found.clever_id}" if found.clever_id else "", f"user id {found.user.user_id}" if found.user is not None else ""]
    return [*([names] if names else []), f"{', '.join(each for each in ids if each)}; found by {_words(found.found_by)}"]


def _in_clever(found: Explanation) -> Iterator[str]:
    pulled_at = found.shared.pulled_at
    if pulled_at is None:
        yield "Not known: no pull of this district has been accepted yet."
    elif found.clever_id is None:
        yield "Never linked to Clever."
    elif found.shared.status == "absent":
        yield f"Not shared, as of {_time(pulled_at)}."
    elif found.shared.status == "unreadable":
        yield f"Not among the records that can be read, as of {_time(pulled_at)}. One has no readable id, and can be this person's (R4.8)."
    elif found.shared.status == "quarantined":
        yield f"Shared, as of {_time(pulled_at)}, and quarantined: only the Clever id of the record is stored (R4.6)."
    else:
        yield f"Shared, as of {_time(pulled_at)}."
        yield from (_listed(each) for each in found.shared.roles)


def _listed(role: ListedRole) -> str:
    schools = ", ".join(_school(each) for each in role.schools)
    return f"{_words(role.role).capitalize()}{f' at {schools}' if schools else ''}."


def _school(school: School) -> str:
    remarks = [*(["primary"] if school.is_primary else []), *([school.status] if school.status != "rostered" else [])]
    return (school.name or school.clever_id) + (f" ({', '.join(remarks)})" if remarks else "")


def _problems(found: Explanation) -> Iterator[str]:
    yield f"As of sync {found.findings[0].sync_id}, the last one that found any:"
    yield from (f"{_rule(each.rule)} ({each.severity})" for each in found.findings)


def _decision(found: Explanation, decision: Decision) -> Iterator[str]:
    if not decision.is_applied:
        yield "This is planned; nothing is written before the district's first sync is approved (R7.6)."
    if decision.clever_id != found.clever_id:
        yield f"Clever shares this person as {decision.clever_id}."
    if decision.decision != "none":
        yield str(DECISIONS[decision.decision])
    if decision.decision == "none" or RULES[decision.rule].rule != DECISIONS[decision.decision].rule:
        yield f"{'Not rostered. ' if decision.decision == 'none' else ''}{RULES[decision.rule]}"
    if decision.is_admin_held:
        yield "Becoming an admin waits for approval (R7.4)."


def _username(decision: Decision) -> Iterator[str]:
    yield str(USERNAMES[decision.username_rule or ""])
    if decision.username_holder is not None:
        yield f"User {decision.username_holder} has it."


def _hold(hold: Hold) -> str:
    where = f" at {hold.school}" if hold.school else ""
    what = meaning(hold.kind, hold.role, hold.counts)
    return f"Hold {hold.hold_id} ({hold.kind}{where}, {hold.status}, since {_time(hold.since)}): {what}."


_SOURCES = {"clever": "rostered from Clever", "csv": "imported from CSV", "app": "made in the application"}
_SEATS = {"licensed": "Has a license.", "waiting": "Waits for a license, because none is free (R9.2)."}


def _account(user: User | None) -> Iterator[str]:
    if user is None:
        yield "None: the application has no user for this person."
        return
    deleted_at = user.row["deleted_at"]
    state = "active" if deleted_at is None else f"deactivated (soft-deleted) since {_time(deleted_at)}"
    yield f"{state[0].upper()}{state[1:]}, {_SOURCES[user.row['source']]}, username {user.row['username'] or '(none)'}."
    if user.row["protected"]:
        yield "Protected: no sync changes this user, or their roles (R8.1)."
    if user.row["do_not_restore"]:
        yield "Marked do_not_restore: once deactivated, no sync restores this user (R8.3)."
    if user.deletion_reason is not None and user.held_by is None:
        yield f"Soft-deleted by the last sync. {RULES[user.deletion_reason]}"
    elif user.deletion_reason is not None and user.held_by == "additions_only":
        yield f"Will be soft-deleted when the window of additions only is over (R14.3). {RULES[user.deletion_reason]}"
    elif user.deletion_reason is not None:
        yield f"Would be soft-deleted, and stays until a person decides (R7.4). {RULES[user.deletion_reason]}"


def _roles(user: User) -> list[str]:
    return [
        _words(each.role)
        + (f" at {each.school}" if each.school_id is not None else "")
        + f", {_SOURCES[each.source]}"
        + (f"; lost on {_time(each.deleted_at)}" if each.deleted_at is not None else "")
        for each in user.roles
    ] or ["None."]


def _classrooms(user: User) -> str:
    ids = ", ".join(f"{each.classroom_id}{' (primary teacher)' if each.is_primary else ''}" for each in user.classrooms)
    return f"{len(user.classrooms)}: {ids}" if ids else "None."


def _sign_in(found: Explanation) -> str:
    user = found.user
    if user is None:
        return "Not at all: there is no account."
    if user.row["deleted_at"] is not None:
        return "Not at all: the account is deactivated."
    if not found.sign_in.methods:
        return "No method is recorded: neither a sync nor an import has ever set one."
    if list(found.sign_in.methods) == ["clever"]:
        return "Through Clever only, because the username is the Clever id (R5.9)."
    return f"By {', '.join(found.sign_in.methods)} (R5.9)." + (f" The login is {found.sign_in.login}." if found.sign_in.login else "")


def _who(change: Change) -> str:
    if change.sync_id is None:
        return f"{_words(change.trigger or 'change')} by {change.requested_by}"
    by = [_words(change.trigger or ""), f"for {change.requested_by}" if change.requested_by else ""]
    return f"sync {change.sync_id}" + (f" ({' '.join(each for each in by if each)})" if any(by) else "")


def _what(change: Change) -> str:
    parts = change.entity_id.split(":")
    if change.entity == "user_roles":
        return f"{_words(change.action)}: {_words(parts[1])}" + (f" at school {parts[2]}" if parts[2] else "")
    if change.entity == "enrollments":
        return f"{_words(change.action)}: classroom {parts[0]} as {parts[2]}"
    return _words(change.action)


def _difference(change: Change) -> str:
    if change.before is None and change.after is None:
        return "(the values are not kept any more)"
    before, after = change.before or {}, change.after or {}
    return "; ".join(
        f"{name}: {_value(before[name])} -> {_value(after.get(name))}" if name in before else f"{name}: {_value(after[name])}"
        for name in sorted({*before, *after})
    )


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "-" if value is None else str(value)


def _words(code: str) -> str:
    return {"clever_id": "Clever id"}.get(code, code.replace("_", " "))


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _rule(name: str) -> str:
    """The description of a rule that the record breaks."""
    # This import loads pandas, which takes half a second. It is only needed if there is a finding.
    from roster_pipeline.source.rules import rules

    known = rules().get(("users", name))
    return known.description if known else name
