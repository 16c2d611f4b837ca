"""Every command that changes something is in `ops.audit`, with what the person said and who it was (R13.2).

Does not belong here: what a command does.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from roster_pipeline.cli import COMMANDS
from roster_pipeline.cli import roster as root
from roster_pipeline.database.audit import os_principal
from roster_pipeline.sandbox import District, Sandbox
from roster_pipeline_tests.commands.conftest import Roster

Query = Callable[..., list[Any]]
BY, WHY = ("--by", "Ann"), ("--reason", "a reason")

# Commands that change nothing, or nothing that a person decides.
READING = {
    "demo": "makes and syncs a district of its own; its syncs are in ops.syncs",
    "dev": "starts the services",
    "district list": "",
    "district show": "",
    "plan": "",
    "rollover preview": "",
    "window list": "",
    "readiness": "",
    "holds list": "",
    "holds show": "",
    "status": "marks crashed syncs, which nobody decides",
    "health": "marks crashed syncs, which nobody decides",
    "findings": "",
    "explain": "",
    "admins template": "",
    "users template": "",
}
# The act of every other command.
ACTS = {
    "migrate": "migrate",
    "district add": "district_add",
    "district set": "district_set",
    "district rekey": "rekey",
    "district pause": "district_pause",
    "district resume": "district_resume",
    "connections accept": "accept_connections",
    "sync": "sync",
    "request": "request",
    "approve": "approve",
    "reject": "reject",
    "revoke": "revoke",
    "admins import": "import",
    "admins remove": "remove",
    "users import": "import",
    "purge": "purge",
    "window add": "window_add",
    "window cancel": "window_cancel",
    "erase": "erase",
    "district offboard": "offboard",
}


def leaves(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that has no commands below it."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for word in command.list_commands(context):
            below = command.get_command(context, word)
            assert below is not None
            yield from leaves(below, f"{name} {word}".strip())
    else:
        yield name, command


ALL = {name: command for name, command in leaves(root) if not name.startswith("sandbox")}


def test_every_command_is_one_or_the_other() -> None:
    """A new command has to say whether it changes something."""
    assert set(ALL) == set(READING) | set(ACTS)
    assert not set(READING) & set(ACTS)
    assert {name.split(" ")[0] for name in ALL} == set(COMMANDS) - {"sandbox"}


@pytest.mark.parametrize("name", ACTS)
def test_it_takes_a_name(name: str) -> None:
    """SPEC 2: `--by WHO`, or `--requested-by` of a sync."""
    assert {option for each in ALL[name].params for option in each.opts} & {"--by", "--requested-by"}


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_json_and_an_example(name: str) -> None:
    """SPEC 2. The example is a line of its own that begins with the command."""
    assert "--json" in {option for each in ALL[name].params for option in each.opts}
    assert f"Example: roster {name.removesuffix(' list')}" in (ALL[name].help or "")


@pytest.fixture
def ready(roster: Roster, district: District, clever: Sandbox, query: Query) -> District:
    """A district that has been synced, with a hold, an imported admin, and a user that was deleted long ago."""
    assert roster("sync", district.id).status == 0
    query("insert into app.users (district_id, username, deleted_at) values (1, 'old', now() - interval '90 days')")
    clever.change().remove_users(sorted(district.shared("users", "student"))[:14])
    assert roster("sync", district.id).status == 3
    return district


@pytest.mark.parametrize("name", [name for name in ACTS if name not in ("migrate", "connections accept")])
def test_the_act_is_recorded(name: str, ready: District, roster: Roster, query: Query, tmp_path: Path) -> None:
    """R13.1, R13.2: the newest row, in the transaction of the act: what was given, who it was, and which district."""
    file = tmp_path / "people.csv"
    file.write_text("username,first_name,last_name,role,school,email\nada,Ada,Byron,district_admin,,\n")
    hold = str(query("select hold_id from ops.holds where kind = 'district_role'")[0][0])
    new_id = "f" * 24
    add = ("--name", "New", "--profile", "typing_agent", "--domain", "new.example.org")
    night = query("select ops.night_of(now()) + 1")[0][0].isoformat()
    window = (ready.id, "--kind", "freeze", "--from", night, "--to", night, *WHY)
    steps: dict[str, list[tuple[str, ...]]] = {
        "district add": [(new_id, *add)],
        "district set": [(ready.id, "licenses=5")],
        "district rekey": [(ready.id, new_id)],
        "district pause": [(ready.id,)],
        "district resume": [(ready.id,)],
        "sync": [(ready.id,)],
        "request": [(ready.id,)],
        "approve": [(hold,)],
        "reject": [(hold,)],
        "revoke": [(hold, *WHY)],
        "admins import": [(str(file), "--district", ready.id)],
        "admins remove": [("ada", "--district", ready.id)],
        "users import": [(str(file), "--district", ready.id)],
        "purge": [(ready.id, "--deleted-before", "2020-01-01", "--yes", "--limit", "10")],
        "window add": [window],
        "window cancel": [("1",)],
        "erase": [(ready.id, ready.shared("users", "student")[0], *WHY, "--apply")],
        "district offboard": [(ready.id, "--erase", *WHY, "--apply")],
    }
    before = {"revoke": ("approve", hold, *BY), "district resume": ("district", "pause", ready.id)}
    before |= {"window cancel": ("window", "add", *window, *BY), "district offboard": before["district resume"]}
    before |= {"admins remove": ("admins", "import", str(file), "--district", ready.id)}
    if name.startswith("users"):
        assert roster("district", "set", ready.id, "users_csv=true").status == 0
    if name == "purge":
        steps["purge"] = [(ready.id, "--deleted-before", query("select (now() - interval '31 days')::date")[0][0].isoformat(), "--yes")]
    if name in before:
        assert roster(*before[name]).status == 0, before[name]
    last = query("select max(audit_id) from ops.audit")[0][0] or 0
    (arguments,) = steps[name]
    who = ("--requested-by", "Ann") if name in ("sync", "request") else BY
    ended = roster(*name.split(" "), *arguments, *who)
    assert ended.status in (0, 3), ended.err
    found = query("select act, given_name, principal, district_id is not null from ops.audit where audit_id > :last", last=last)
    assert (ACTS[name], "Ann", os_principal(), True) in [tuple(row) for row in found]
