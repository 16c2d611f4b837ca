"""The table `ops.audit`: who did what (R13.1, R13.2).

Belongs here: writing a row of it, and finding out who runs this program. Does not belong here: the acts themselves. Code that changes
something for a person calls `record_act` in the same transaction. The table only grows; the database refuses anything else.
"""

import getpass
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import JSONB

from roster_pipeline.database.migrate import lasting_table


def os_principal() -> str:
    """The operating-system user of this process, as `os:NAME`."""
    try:
        return f"os:{getpass.getuser()}"
    except (KeyError, OSError):
        # A container can run under a number that has no name.
        return "os:unknown"


def record_act(
    connection: Connection,
    act: str,
    *,
    given_name: str | None = None,
    reason: str | None = None,
    district_id: int | None = None,
    subject: str | None = None,
    facts: Mapping[str, Any] | None = None,
    principal: str | None = None,
) -> int:
    """Record one act, in the caller's transaction. Returns its audit_id.

    Args:
        act: a word for it, such as "import".
        given_name: what the person said of themselves (--by), unchanged. Never blank.
        subject: what was acted on, such as "hold 7", "user 30" or a file's name.
        facts: counts, hashes, settings before and after. No personal data.
        principal: who acted, as `kind:name`; None: the operating-system user of this process.
    """
    table = lasting_table("ops.audit")
    row = {
        "act": act,
        "principal": principal or os_principal(),
        "given_name": given_name,
        "reason": reason,
        "district_id": district_id,
        "subject": subject,
        "facts": sa.cast(dict(facts or {}), JSONB),
    }
    return int(connection.execute(sa.insert(table).values(row).returning(table.c.audit_id)).scalar_one())
