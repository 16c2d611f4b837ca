"""The options with which a person says who they are, and why they act. Every command that changes something has them.

Does not belong here: who that person is on this machine (`database/audit.py`).
"""

from collections.abc import Callable
from typing import Any

import click


class _Text(click.ParamType[str]):
    """A text that is not blank. It is stored unchanged."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail("must not be blank.", param, ctx)
        return str(value)


NOT_BLANK = _Text()


def by_option(*, required: bool = False, text: str = "Who does it; stored in ops.audit.") -> Callable[[Any], Any]:
    """The option `--by WHO`."""
    return click.option("--by", required=required, metavar="WHO", type=NOT_BLANK, help=text)


reason_option = click.option("--reason", metavar="TEXT", type=NOT_BLANK, help="Why; stored in ops.audit.")
