"""The domain of a district: what follows @ in its users' logins (R6.6).

Belongs here: reading a domain as people type or paste it, and districts that share one. Does not belong here: usernames, and the logins
that stand for two people (`audits/shared_login.sql`).
"""

import re

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.errors import PermanentError, UsageError

# Letters of any script, digits and hyphens; no blank, no part that is empty.
_DOMAIN = re.compile(r"[^\W_]([\w-]*[^\W_])?(\.[^\W_]([\w-]*[^\W_])?)*")

_SHARING = sa.text("""
    select clever_id, name
    from app.districts
    where app.domain_key(domain) = app.domain_key(:domain) and clever_id <> :clever_id and status in ('active', 'paused')
    order by district_id
""")


def clean_domain(text: str) -> str:
    """The domain in a text whose meaning is plain: `@example.org`, `https://example.org/` and `Example.org.` are `example.org`.

    Raises:
        UsageError: the text is no domain, and might mean something else.
    """
    domain = text.strip().lower().removeprefix("https://").removeprefix("http://").removeprefix("@").removesuffix("/").removesuffix(".")
    if not _DOMAIN.fullmatch(domain) or len(domain) > 253:
        raise UsageError("--domain: this is no domain.", hint="Give what follows @ in the users' logins, such as example.org.")
    return domain


def refuse_shared_domain(connection: Connection, clever_id: str, domain: str) -> None:
    """Refuse a domain that another district has: a login, `username@domain`, could stand for two people.

    Raises:
        PermanentError: another active or paused district has the domain. A paused one can be resumed, and its people sign in meanwhile.
    """
    if other := connection.execute(_SHARING, {"domain": domain, "clever_id": clever_id}).first():
        raise PermanentError(
            f"Its domain is that of district {other.clever_id} ({other.name}) too: one login could stand for two people.",
            hint="If they share it: `roster district add --shared-domain`. If it was recreated at Clever: `roster district rekey`.",
            district=clever_id,
        )
