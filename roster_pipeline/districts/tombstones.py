"""Tombstones: the people of a district who were erased. No pull may bring them back (R18.2).

Belongs here: writing a tombstone, asking for one, and leaving erased people out of the pages of a pull. Does not belong here: erasing
somebody (`support/erasure.py`).

A tombstone is a salted hash of a Clever id. Anybody who has an id can find out whether it was erased; nobody can read ids from tombstones.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import Connection

_WRITE = sa.text("""
    with salts as (
        select coalesce((select salt from ops.erased where district_id = :district_id limit 1), gen_random_uuid()) as salt
    )
    insert into ops.erased (district_id, salt, clever_id_hash, purge_id, erased_at)
    select :district_id, salts.salt, ops.hash_clever_id(salts.salt, people.clever_id), :purge_id, :now
    from salts
    cross join unnest(cast(:clever_ids as text[])) as people (clever_id)
    on conflict do nothing
""")
_FIND = sa.text("""
    select purge_id, erased_at from ops.erased
    where district_id = :district_id and clever_id_hash = ops.hash_clever_id(salt, :clever_id)
""")
_ALL = "select clever_id_hash from ops.erased where district_id = %s order by clever_id_hash"

# The landing is made of temporary tables of this session (`sync/landing.py`). Each id is hashed once.
_FIND_LANDED = """
    create temporary table "clever.erased" as
    with landed as (
        select clever_id from pg_temp."clever.users"
        union
        select members.clever_id
        from pg_temp."clever.sections" as sections
        cross join lateral unnest(sections.students || sections.teachers) as members (clever_id)
        union
        select clever_id from pg_temp."clever.findings" where resource = 'users'
    ),

    salts as (select distinct salt from ops.erased where district_id = %(district_id)s),

    hashed as (
        select landed.clever_id, ops.hash_clever_id(salts.salt, landed.clever_id) as clever_id_hash
        from landed
        cross join salts
    )
    select hashed.clever_id
    from hashed
    inner join ops.erased as erased on hashed.clever_id_hash = erased.clever_id_hash
    where erased.district_id = %(district_id)s
"""
_REMOVE_USERS = """
    with removed as (
        delete from pg_temp."clever.users" as landed
        using pg_temp."clever.erased" as erased
        where landed.clever_id = erased.clever_id
        returning landed.clever_id
    )
    select count(distinct clever_id) from removed
"""
_REMOVE_FINDINGS = """
    with removed as (
        delete from pg_temp."clever.findings" as found
        using pg_temp."clever.erased" as erased
        where found.resource = 'users' and found.clever_id = erased.clever_id
        returning found.rule, found.severity
    )
    select rule, severity, count(*) from removed group by rule, severity
"""
# A list that Clever did not send stays null: it is not an empty one (R4.7).
_REMOVE_MEMBERS = """
    update pg_temp."clever.sections" as sections
    set
        students = case when sections.students is not null then array(
            select members.clever_id
            from unnest(sections.students) with ordinality as members (clever_id, place)
            where members.clever_id not in (select erased.clever_id from pg_temp."clever.erased" as erased)
            order by members.place
        ) end,
        teachers = case when sections.teachers is not null then array(
            select members.clever_id
            from unnest(sections.teachers) with ordinality as members (clever_id, place)
            where members.clever_id not in (select erased.clever_id from pg_temp."clever.erased" as erased)
            order by members.place
        ) end
    where (sections.students || sections.teachers) && array(select erased.clever_id from pg_temp."clever.erased" as erased)
"""


def write_tombstones(connection: Connection, district_id: int, clever_ids: Sequence[str], *, purge_id: int, now: datetime) -> None:
    """Keep these Clever ids away from all further syncs of the district."""
    row = {"district_id": district_id, "clever_ids": list(clever_ids), "purge_id": purge_id, "now": now}
    connection.execute(_WRITE, row)


def find_tombstone(connection: Connection, district_id: int, clever_id: str) -> tuple[int, datetime] | None:
    """The purge and the time of the erasure of this Clever id; None if it was not erased."""
    row = connection.execute(_FIND, {"district_id": district_id, "clever_id": clever_id}).first()
    return (row.purge_id, row.erased_at) if row is not None else None


def tombstones_digest(driver: "psycopg.Connection[Any]", district_id: int) -> bytes:
    """A hash over all tombstones of the district. A record that was decoded under other tombstones is not a seen one."""
    hashes = [bytes(row[0]) for row in driver.execute(_ALL, (district_id,))]
    return blake2b(b"".join(hashes)).digest() if hashes else b""


def leave_out_erased(driver: "psycopg.Connection[Any]", district_id: int) -> tuple[int, Counter[tuple[str, str]]]:
    """Remove erased people from the landing of this session: their records, their findings, and their ids in the lists of sections.

    Returns:
        How many erased people Clever still sends, and the findings that were removed, by rule and severity.
    """
    if driver.execute("select 1 from ops.erased where district_id = %s limit 1", (district_id,)).fetchone() is None:
        return 0, Counter()
    driver.execute(_FIND_LANDED, {"district_id": district_id})
    (people,) = driver.execute(_REMOVE_USERS).fetchone() or (0,)
    removed = Counter({(name, severity): rows for name, severity, rows in driver.execute(_REMOVE_FINDINGS)})
    driver.execute(_REMOVE_MEMBERS)
    driver.execute('drop table pg_temp."clever.erased"')
    return people, removed
