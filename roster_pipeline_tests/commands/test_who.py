"""The options with which a person says who they are: never blank, in any command (R13.1)."""

from collections.abc import Iterator

import click
import pytest

from roster_pipeline.cli import roster as program
from roster_pipeline.commands.who import NOT_BLANK
from roster_pipeline_tests.commands.conftest import Roster

NAMES = {"--by", "--requested-by"}


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command without commands of its own, with its name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        elif command is not None:
            yield " ".join((*path, name)), command


def test_every_such_option_refuses_a_blank_text() -> None:
    """It is of the one type that does."""
    assert isinstance(program, click.Group)
    found = {
        f"{name} {opt}": option.type
        for name, command in commands(program)
        for option in command.params
        for opt in NAMES.intersection(option.opts)
    }
    assert len(found) > 5
    assert {name for name, kind in found.items() if kind is not NOT_BLANK} == set()


@pytest.mark.parametrize("blank", ["", "  ", "\t", "\u00a0"])
@pytest.mark.parametrize("command", [("approve", "1"), ("reject", "1"), ("admins", "import", "-", "--district", "d1")])
def test_a_blank_name_is_wrong_usage(roster: Roster, command: tuple[str, ...], blank: str) -> None:
    """R13.1: exit status 2, before anything is read."""
    ended = roster(*command, "--by", blank)
    assert (ended.status, "must not be blank" in ended.err) == (2, True)
