"""What a district's agreement and settings name and Clever does not have: it is reported at every sync (R6.4).

Belongs here: the sentences about it in a sync's message, as counts. Does not belong here: what the agreement means for the roster
(`reconcile/agreed_schools.sql`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.districts.agreement import District

_UNUSED = sa.text("""
    select
        (
            select count(*)
            from unnest(cast(:grades as text[])) as agreed (grade)
            where not exists (
                select from app.users
                where users.district_id = :district_id and users.deleted_at is null and users.grade = agreed.grade
            )
        ) as grades,
        (
            select count(*)
            from unnest(cast(:schools as text[])) as limited (clever_id)
            where not exists (
                select from app.schools
                where schools.district_id = :district_id and schools.deleted_at is null and schools.clever_id = limited.clever_id
            )
        ) as schools
""")


def name_unmatched(connection: Connection, district: District, counts: Mapping[str, Any], *, is_applied: bool) -> str:
    """Sentences about everything that matches nothing, each with a space before it; empty if there is nothing.

    Args:
        counts: of the sync, as in `ops.syncs.counts`.
        is_applied: whether the tables of `app` have what Clever shares; if not, they say nothing about grades and schools.
    """
    brakes = district.row["settings"].get("brakes", {})
    names = {"grades": list(district.row["agreed_grades"] or ()), "schools": list(brakes.get("schools", {}))}
    unused = connection.execute(_UNUSED, {"district_id": district.district_id, **names}).one()
    found = (unused.grades, unused.schools) if is_applied else (0, 0)
    return "".join(f" {each}" for each in _sentences(counts["audits"]["agreed_school_missing"], *found))


def _sentences(agreed_schools: int, grades: int, limited_schools: int) -> Iterator[str]:
    if agreed_schools:
        yield f"{_number(agreed_schools, 'school')} of the agreement {_match(agreed_schools)} no shared school: see `roster readiness`."
    if grades:
        yield f"{_number(grades, 'grade')} of the agreement {_match(grades)} no student."
    if limited_schools:
        yield f"{_number(limited_schools, 'school')} with brakes of its own {_match(limited_schools)} no active school."


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _match(count: int) -> str:
    return "matches" if count == 1 else "match"
