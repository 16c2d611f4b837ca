"""Finding a district, recording its agreement, and its effective rules.

Belongs here: reading and writing `app.districts` and `app.agreed_schools`. Does not belong here: what a profile means (`profiles.py`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from roster_pipeline.database.audit import record_act
from roster_pipeline.database.tables import agreed_schools, districts
from roster_pipeline.districts.domains import clean_domain
from roster_pipeline.errors import PermanentError, UsageError
from roster_pipeline.profiles import PROFILES, Profile, effective_profile, require_profile

MOST_LICENSES = 999_999_999
# Days outside are typing errors, or stand for "not yet": pause the district instead.
FIRST_START = date(2000, 1, 1)
LATEST_START = timedelta(days=3_650)

_CLEVER_ID = re.compile(r"^[0-9A-Za-z_-]{1,64}$")


@dataclass(frozen=True)
class District:
    """One row of `app.districts`.

    Attributes:
        rules: the effective profile; None if nobody has recorded an agreement.
    """

    district_id: int
    clever_id: str
    name: str
    status: str
    profile: str | None
    rules: Profile | None
    row: Mapping[str, Any]

    @property
    def is_rekeyed(self) -> bool:
        """Whether no sync has been applied yet under the district's new Clever id (R6.5)."""
        return self.row["rekeyed_from"] is not None

    def require_rules(self) -> Profile:
        """The district's effective profile.

        Raises:
            PermanentError: nobody has recorded an agreement with the district yet.
        """
        if self.rules is None:
            raise PermanentError(
                "The district has no profile.", hint="Record its agreement with `roster district add`.", district=self.clever_id
            )
        return self.rules


class UnknownDistrictError(PermanentError):
    """No district has this Clever id or district id."""


class UnusableSettingsError(UsageError):
    """Somebody has changed the district's settings by hand, and they are not valid.

    Attributes:
        district_id: the application's id.
    """

    def __init__(self, error: UsageError, row: Mapping[str, Any]) -> None:
        self.district_id = int(row["district_id"])
        super().__init__(error.reason, hint=error.hint, district=row["clever_id"])


def find_district(connection: Connection, reference: str) -> District:
    """The district with this Clever id, or else with this district id.

    Raises:
        UnknownDistrictError: there is none.
        UnusableSettingsError: its own settings are not valid.
    """
    by_clever_id = connection.execute(sa.select(districts).where(districts.c.clever_id == reference)).mappings().one_or_none()
    row = by_clever_id
    if row is None and reference.isdecimal() and len(reference) < 19:
        row = connection.execute(sa.select(districts).where(districts.c.district_id == int(reference))).mappings().one_or_none()
    if row is None:
        raise UnknownDistrictError(
            f"There is no district {reference if _CLEVER_ID.match(reference) else '(not an id)'}.",
            hint="`roster district list` shows the districts; `roster district add` makes one.",
        )
    return _district(dict(row))


def all_districts(connection: Connection) -> list[District]:
    """Every district, oldest first. A district with invalid settings gets the rules of its profile here; its own sync reports the error."""
    found = []
    for row in connection.execute(sa.select(districts).order_by(districts.c.district_id)).mappings():
        try:
            found.append(_district(dict(row)))
        except UnusableSettingsError:
            found.append(_with_rules(dict(row), PROFILES.get(row["profile"])))
    return found


def schools_agreed(connection: Connection, district_id: int) -> list[Mapping[str, Any]]:
    """The schools of a district's agreement: name, Clever id, licenses. An empty list means no limit (R6.4)."""
    query = sa.select(agreed_schools).where(agreed_schools.c.district_id == district_id).order_by(agreed_schools.c.agreed_school_id)
    return [dict(row) for row in connection.execute(query).mappings()]


def inactive(district: District) -> tuple[str, str]:
    """Why a district that is not active does not sync, and what to do about it."""
    hints = {
        "requested": "`roster district add` records its agreement and makes it active.",
        "paused": "`roster district resume` makes it active.",
        "disconnected": "Clever does not list it. When it connects again, it has the status that it had; nothing else is needed.",
    }
    return f"The district is {district.status}; only active districts sync.", hints[district.status]


def set_status(connection: Connection, reference: str, before: str, after: str) -> District:
    """Move a district from status `before` to `after`. A district that has `after` already is left unchanged.

    Raises:
        PermanentError: there is no such district, or it has neither status.
    """
    found = find_district(connection, reference)
    connection.execute(
        sa.update(districts)
        .where(districts.c.district_id == found.district_id, districts.c.status == before)
        .values(status=after, updated_at=sa.func.now())
    )
    changed = find_district(connection, reference)
    if changed.status != after:
        reason = f"The district is {changed.status}; only one that is {before} can be {after}."
        raise PermanentError(reason, hint=inactive(changed)[1], district=changed.clever_id)
    return changed


def withdraw_auto_initial(connection: Connection, district: District, principal: str) -> None:
    """Switch the setting `auto_initial` off, because the district's first sync has been applied (R7.6). `ops.audit` shows it.

    `updated_at` stays: nobody has changed the agreement.

    Args:
        principal: what has used the permission, as `kind:name`.
    """
    settings = {**district.row["settings"], "auto_initial": False}
    connection.execute(sa.update(districts).where(districts.c.district_id == district.district_id).values(settings=settings))
    facts = {"before": {"auto_initial": True}, "after": {"auto_initial": False}}
    record_act(connection, "settings", principal=principal, district_id=district.district_id, subject="auto_initial", facts=facts)


@dataclass(frozen=True)
class Agreement:
    """What `roster district add` records. None leaves the recorded value, or the default of a new district, unchanged."""

    clever_id: str
    name: str
    profile: str
    domain: str
    start_date: date | None = None
    licenses: int | None = None
    over_license_policy: str | None = None
    grades: Sequence[str] | None = None
    schools: Sequence[tuple[str, int | None]] | None = None
    settings: Mapping[str, Any] | None = None


def record_agreement(connection: Connection, agreement: Agreement) -> District:
    """Insert the district, or update the one with this Clever id, and make it active. New settings are merged into the recorded ones.

    Raises:
        UsageError: a value is not valid; nothing is written.
    """
    check_agreement(agreement)
    recorded = connection.execute(
        sa.select(districts.c.settings).where(districts.c.clever_id == agreement.clever_id).with_for_update()
    ).scalar()
    settings = _merge(recorded or {}, agreement.settings or {})
    effective_profile(agreement.profile, settings)
    optional = {
        "start_date": agreement.start_date,
        "licenses": agreement.licenses,
        "over_license_policy": agreement.over_license_policy,
        "agreed_grades": list(agreement.grades) if agreement.grades is not None else None,
    }
    values = {
        "name": agreement.name,
        "domain": clean_domain(agreement.domain),
        "profile": agreement.profile,
        "status": "active",
        "settings": settings,
        **{key: value for key, value in optional.items() if value is not None},
    }
    insert = pg.insert(districts).values(clever_id=agreement.clever_id, **values)
    statement = insert.on_conflict_do_update(index_elements=["clever_id"], set_={**values, "updated_at": sa.func.now()})
    district_id = connection.execute(statement.returning(districts.c.district_id)).scalar_one()
    if agreement.schools is not None:
        _record_schools(connection, district_id, agreement.schools)
    return find_district(connection, agreement.clever_id)


def _record_schools(connection: Connection, district_id: int, schools: Sequence[tuple[str, int | None]]) -> None:
    """Replace the schools of the agreement. A school that is in both lists keeps its recorded Clever id."""
    key = sa.func.app.normalize_username
    ours = agreed_schools.c.district_id == district_id
    connection.execute(
        sa.delete(agreed_schools).where(ours, key(agreed_schools.c.name).not_in([key(name) for name, _ in schools]) if schools else ours)
    )
    for name, licenses in schools:
        updated = connection.execute(
            sa.update(agreed_schools).where(ours, key(agreed_schools.c.name) == key(name)).values(name=name, licenses=licenses)
        )
        if not updated.rowcount:
            connection.execute(sa.insert(agreed_schools).values(district_id=district_id, name=name, licenses=licenses))


def require_clever_id(text: str) -> None:
    """Refuse a text that cannot be a Clever id.

    Raises:
        UsageError: it cannot.
    """
    if not _CLEVER_ID.match(text):
        raise UsageError("A district's Clever id is text of letters and digits, 24 of them at Clever.")


def check_agreement(agreement: Agreement) -> None:
    """Raises UsageError if a value is not valid. Its message names the range."""
    # Imported here, because it loads pandas, which takes half a second. Nearly every command imports this module, few call this function.
    from roster_pipeline.contracts import GRADES

    require_clever_id(agreement.clever_id)
    require_profile(agreement.profile)
    if not agreement.name.strip():
        raise UsageError("--name must not be blank.")
    if unknown := [grade for grade in agreement.grades or () if grade not in GRADES]:
        raise UsageError(f"Not a grade: {', '.join(unknown)}.", hint=f"Grades are: {', '.join(GRADES)}.")
    if agreement.licenses is not None and not 0 <= agreement.licenses <= MOST_LICENSES:
        raise UsageError(f"licenses must be a whole number from 0 to {MOST_LICENSES:,}.")
    last_day = datetime.now(UTC).date() + LATEST_START
    if agreement.start_date is not None and not FIRST_START <= agreement.start_date <= last_day:
        raise UsageError(f"start_date must be a day from {FIRST_START} to {last_day}.")
    names = [name.strip().lower() for name, _ in agreement.schools or ()]
    if len(set(names)) < len(names) or "" in names:
        raise UsageError("Each --school needs a name of its own.")


def _merge(recorded: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    brakes = {**recorded.get("brakes", {}), **changes.get("brakes", {})}
    return {**recorded, **changes, **({"brakes": brakes} if brakes else {})}


def _district(row: Mapping[str, Any]) -> District:
    if row["profile"] is None:
        return _with_rules(row, None)
    try:
        return _with_rules(row, effective_profile(row["profile"], row["settings"]))
    except UsageError as error:
        raise UnusableSettingsError(error, row) from None


def _with_rules(row: Mapping[str, Any], rules: Profile | None) -> District:
    return District(
        district_id=row["district_id"],
        clever_id=row["clever_id"],
        name=row["name"],
        status=row["status"],
        profile=row["profile"],
        rules=rules,
        row=row,
    )
