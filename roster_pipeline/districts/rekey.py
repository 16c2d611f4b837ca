"""Giving a recorded district the Clever id under which it was recreated (R6.5).

Belongs here: what follows from the new id outside the roster: the connection, and a district that a listing has recorded meanwhile. Does
not belong here: recognising people and schools under new ids (`dbt_like_sql/reconcile/`), which is the next sync's work.
"""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.audit import record_act
from roster_pipeline.database.tables import connections, districts
from roster_pipeline.districts.agreement import District, find_district, require_clever_id
from roster_pipeline.errors import PermanentError

# The tables of `ops` whose rows a listing and refused requests make for a district that is only requested.
_MADE_BEFORE_AN_AGREEMENT = ("ops.syncs", "ops.alerts")


def forget_old_id(connection: Connection, district: District) -> None:
    """The first sync under the new Clever id is applied."""
    if district.is_rekeyed:
        connection.execute(sa.update(districts).where(districts.c.district_id == district.district_id).values(rekeyed_from=None))


def rekey(connection: Connection, reference: str, clever_id: str, *, by: str, now: datetime) -> District:
    """Give a district a new Clever id, in the caller's transaction, which holds the district's lock.

    Its next sync recognises people and schools by other columns than their ids, and writes nothing until its one hold is approved.

    Args:
        by: who says so; never blank.

    Raises:
        UsageError: the id is not one.
        PermanentError: the district has no agreement, has this id already, or another district with users has it.
    """
    require_clever_id(clever_id)
    district = find_district(connection, reference)
    district.require_rules()
    if district.clever_id == clever_id:
        raise PermanentError("The district has this Clever id already.", hint="Nothing is to do.", district=clever_id)
    _absorb(connection, district, clever_id)
    # The old token may vanish now; it is no longer the token of this district.
    leaving = sa.delete(connections).where(connections.c.clever_id == district.clever_id).returning(connections.c.status_before)
    before = connection.execute(leaving).scalar()
    status = (before or "active") if district.status == "disconnected" else district.status
    values = {"clever_id": clever_id, "rekeyed_from": district.clever_id, "status": status, "updated_at": now}
    connection.execute(sa.update(districts).where(districts.c.district_id == district.district_id).values(values))
    record_act(
        connection,
        "rekey",
        given_name=by,
        district_id=district.district_id,
        subject=f"district {clever_id}",
        facts={"before": district.clever_id, "after": clever_id},
    )
    return find_district(connection, clever_id)


def _absorb(connection: Connection, district: District, clever_id: str) -> None:
    """Make room for the id: a listing has perhaps recorded a district that waits for its agreement."""
    query = sa.select(districts).where(districts.c.clever_id == clever_id).with_for_update()
    other = connection.execute(query).mappings().one_or_none()
    if other is None:
        return
    ids: dict[str, Any] = {"ours": district.district_id, "theirs": other["district_id"]}
    has_users = connection.execute(sa.text("select exists (select from app.users where district_id = :theirs)"), ids).scalar_one()
    if other["profile"] is not None or has_users:
        raise PermanentError(
            "Another district is recorded under this Clever id, with an agreement or users.",
            hint="`roster district show` shows it. If the id is right, ask a developer which of the two districts is to stay.",
            district=clever_id,
        )
    connection.execute(sa.update(connections).where(connections.c.clever_id == clever_id).values(district_id=district.district_id))
    for table in _MADE_BEFORE_AN_AGREEMENT:
        connection.execute(sa.text(f"update {table} set district_id = :ours where district_id = :theirs"), ids)  # noqa: S608
    connection.execute(sa.text("delete from app.districts where district_id = :theirs"), ids)
