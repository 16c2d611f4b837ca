"""Lists the records behind the counts of the audits, with names (R4.3).

Belongs here: reading `ops.findings` for a person who wants to know which records a count is about. The names are personal data: they go to
the caller's own terminal or file (SPEC 12). Does not belong here: writing it (`sync/findings.py`).
"""

from collections.abc import Iterator
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

# Names are those of the last accepted snapshot; of a record that it does not have, those of the application.
_LIST = """
    with numbered as (
        select
            rule, resource, clever_id,
            row_number() over (partition by rule order by resource, clever_id) as position
        from ops.findings
        where district_id = :district_id and (cast(:rule as text) is null or rule = :rule)
    )
    select
        found.rule,
        found.resource,
        found.clever_id,
        coalesce(
            shared.first_name || ' ' || shared.last_name, nullif(concat_ws(' ', users.first_name, users.last_name), ''),
            sections.name, classrooms.name, staged_schools.name, schools.name
        ) as name,
        coalesce(shared.username, users.username) as username
    from (select *, resource in ('users', 'enrollments') as is_person from numbered) as found
    left join staging.users as shared
        on found.is_person and shared.district_id = :district_id and found.clever_id = shared.clever_id
    left join app.users as users on found.is_person and users.district_id = :district_id and found.clever_id = users.clever_id
    left join staging.sections as sections
        on found.resource = 'sections' and sections.district_id = :district_id and found.clever_id = sections.clever_id
    left join app.classrooms as classrooms
        on found.resource = 'sections' and classrooms.district_id = :district_id and found.clever_id = classrooms.clever_id
    left join staging.schools as staged_schools
        on found.resource = 'schools' and staged_schools.district_id = :district_id and found.clever_id = staged_schools.clever_id
    left join app.schools as schools
        on found.resource = 'schools' and schools.district_id = :district_id and found.clever_id = schools.clever_id
    where cast(:first as bigint) is null or found.position <= :first
    order by found.rule, found.position
"""
_COUNT = "select rule, sum(records) as records from ops.finding_records where district_id = :district_id group by rule order by rule"
_SYNC = "select sync_id from ops.audited where district_id = :district_id"


class Found(NamedTuple):
    """One record that violates the rule of an audit.

    resource: the collection of the record. Of `enrollments`, the record is the person that a section lists.
    name, username: None if neither Clever nor the application has the record.
    """

    rule: str
    resource: str
    clever_id: str
    name: str | None
    username: str | None


def audited_sync(connection: Connection, district_id: int) -> int | None:
    """The sync that the findings are of; None if no sync of the district has been applied."""
    return connection.execute(sa.text(_SYNC), {"district_id": district_id}).scalar()


def count_findings(connection: Connection, district_id: int) -> dict[str, int]:
    """The number of records of each rule that has any."""
    return {row.rule: int(row.records) for row in connection.execute(sa.text(_COUNT), {"district_id": district_id})}


def list_findings(connection: Connection, district_id: int, *, rule: str | None = None, first: int | None = None) -> Iterator[Found]:
    """The records, in the order of rule, collection and Clever id.

    Args:
        rule: the name of an audit; None lists all.
        first: only so many records of each rule; None lists all.
    """
    for row in connection.execute(sa.text(_LIST), {"district_id": district_id, "rule": rule, "first": first}):
        yield Found(*row)
