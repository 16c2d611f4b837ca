"""Seen records are restored from the last accepted snapshot, so a pull decodes only the unseen ones.

Belongs here: reading digests from `staging`, and copying seen records from `staging` into the landing, as if they had been decoded. Does
not belong here: how digests are compared (`source/digests.py`), and when a whole district is unchanged (`unchanged.py`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import psycopg
import pyarrow
from psycopg import sql
from sqlalchemy import Connection

from roster_pipeline import contracts
from roster_pipeline.database import copying
from roster_pipeline.database.copying import copy_rows
from roster_pipeline.database.engine import psycopg_connection
from roster_pipeline.database.models import SQL
from roster_pipeline.districts.agreement import District
from roster_pipeline.districts.tombstones import tombstones_digest
from roster_pipeline.errors import TransientError
from roster_pipeline.source import times
from roster_pipeline.source.digests import SnapshotIndex, bit_of
from roster_pipeline.source.vocabulary import Collection
from roster_pipeline.sync import frames
from roster_pipeline.sync import landing as landing_module
from roster_pipeline.sync.session import PlanningContext, PullResult

_SEEN = "clever.seen"
# How many records of each collection the last accepted snapshot has, in the order of `Collection`. A person can be in several.
_SIZES = """
    select
        (select count(*) from staging.schools where district_id = %(district_id)s),
        (select count(*) from staging.terms where district_id = %(district_id)s),
        (select count(*) from staging.courses where district_id = %(district_id)s),
        (select count(*) from staging.sections where district_id = %(district_id)s),
        count(student_schools), count(teacher_schools), count(staff_schools), count(*) filter (where is_district_admin)
    from staging.users
    where district_id = %(district_id)s
"""
# Whether a row of staging.users has the role of a collection.
_HAS_ROLE = {
    Collection.STUDENTS: "student_schools is not null",
    Collection.TEACHERS: "teacher_schools is not null",
    Collection.STAFF: "staff_schools is not null",
    Collection.DISTRICT_ADMINS: "is_district_admin",
}


def snapshot_index(connection: Connection, district: District, code: Sequence[Path]) -> SnapshotIndex:
    """The index of a district's last accepted snapshot. Records with findings are not in it.

    Args:
        code: the files of the source that decide what a record becomes.
    """
    driver = psycopg_connection(connection)
    others = [each for each in contracts.RESOURCES if each != "users"]
    digests = {each: _digests(driver, sql.Identifier("staging", each), district.district_id) for each in others}
    digests["users"], roles = _people(driver, district.district_id)
    row = driver.execute(_SIZES, {"district_id": district.district_id}).fetchone()
    key = _key(district, code, tombstones_digest(driver, district.district_id))
    return SnapshotIndex(key, digests, dict(zip(Collection, row or (), strict=False)), roles)


def restore_seen(context: PlanningContext, pulled: PullResult, among: Mapping[str, sql.Identifier] | None = None) -> int:
    """Copy the seen records from the last accepted snapshot into the landing, each at its position in the pull.

    It runs in the transaction that plans, so the snapshot that it reads is the one that the sync replaces.

    Args:
        among: by resource, a table with rows of the last snapshot. Of these resources only the rows in the table are copied.

    Returns:
        The number of rows copied.

    Raises:
        TransientError: another snapshot has been accepted since the pull began. This can only happen to a dry run.
    """
    driver, district = psycopg_connection(context.connection), context.district
    driver.execute(f'create temporary table "{_SEEN}" (collection text, digest uuid, position bigint) on commit drop'.encode())
    subsets = among or {}
    sources = {**{each: sql.Identifier("staging", each) for each in contracts.RESOURCES}, **subsets}
    expected = Counter[Collection]()
    for collection in Collection:
        subset = subsets.get(collection.resource)
        # Page by page, so that memory stays flat (R3.5).
        for seen in pulled.index.seen(collection, _digests(driver, subset, district.district_id) if subset else None):
            expected[collection] += len(seen.digests)
            columns = {
                "collection": pyarrow.array([collection.value] * len(seen.digests), pyarrow.string()),
                "digest": pyarrow.array([digest.hex() for digest in seen.digests], pyarrow.string()),
                "position": pyarrow.array(seen.positions, pyarrow.int64()),
            }
            copy_rows(driver, sql.Identifier("pg_temp", _SEEN), pyarrow.table(columns))
    driver.execute(f'analyze pg_temp."{_SEEN}"'.encode())
    for collection, rows in expected.items():
        query = _copy_seen(collection, sources[collection.resource])
        if driver.execute(query, (district.district_id, collection.value)).rowcount != rows:
            raise TransientError(
                "Another sync of this district committed during this dry run.", hint="Try again.", district=district.clever_id
            )
    pulled.landing.complete()
    return expected.total()


def _digests(driver: "psycopg.Connection[Any]", source: sql.Identifier, district_id: int) -> bytes:
    query = sql.SQL("select string_agg(uuid_send(digest), '') from {} where district_id = %s and digest is not null").format(source)
    row = driver.execute(query, (district_id,)).fetchone()
    return bytes(row[0]) if row and row[0] else b""


def _people(driver: "psycopg.Connection[Any]", district_id: int) -> tuple[bytes, bytes]:
    """The digests of all people, and for each one byte with the roles: one query, so both have the same order."""
    bits = sql.SQL(" | ").join(
        sql.SQL("case when {} then {} else 0 end").format(sql.SQL(condition), bit_of(collection))
        for collection, condition in _HAS_ROLE.items()
    )
    query = sql.SQL(
        "select string_agg(uuid_send(digest), ''), string_agg(set_byte('\\x00', 0, {}), '') "
        "from staging.users where district_id = %s and digest is not null"
    ).format(bits)
    row = driver.execute(query, (district_id,)).fetchone()
    return (bytes(row[0]), bytes(row[1])) if row and row[0] else (b"", b"")


def _copy_seen(collection: Collection, source: sql.Identifier) -> sql.Composed:
    names = [column.name for column in contracts.columns(collection.resource)] + ["digest"]
    more = ["position", "rejected"] + (["collection"] if collection.role else [])
    return sql.SQL(
        "insert into {landed} ({columns}) select {stored}, seen.position, false{collection} from {seen} as seen "
        "inner join {staged} as staged on seen.digest = staged.digest where staged.district_id = %s and seen.collection = %s"
    ).format(
        landed=sql.Identifier("pg_temp", f"clever.{collection.resource}"),
        columns=sql.SQL(", ").join(map(sql.Identifier, names + more)),
        stored=sql.SQL(", ").join(sql.Identifier("staged", name) for name in names),
        collection=sql.SQL(", seen.collection" if collection.role else ""),
        seen=sql.Identifier("pg_temp", _SEEN),
        staged=source,
    )


def _key(district: District, code: Sequence[Path], tombstones: bytes) -> bytes:
    """The key of all digests: the district, and everything that decides what a record becomes in staging (the code, the profile, and who
    was erased)."""
    rules = district.require_rules()
    scope = f"{district.clever_id}:{rules.student_email}:{rules.student_name}:".encode()
    return blake2b(scope + code_digest(tuple(code)) + tombstones, digest_size=16).digest()


@cache
def code_digest(source: tuple[Path, ...]) -> bytes:
    """A hash of the code between a record and staging: the code of the source, and the code that all sources share."""
    shared = [Path(str(module.__file__)) for module in (contracts, frames, landing_module, copying, times)]
    files = [*source, *shared, *sorted((SQL / "staging").glob("*.sql"))]
    return blake2b(b"".join(file.read_bytes() for file in files)).digest()
