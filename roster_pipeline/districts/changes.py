"""Changing the agreement or the settings of a recorded district, and recording who changed what (R13.2).

Belongs here: `roster district set`, and the differences that `ops.audit` keeps of every change of a district. Does not belong here: the
whole agreement (`agreement.py`), and what a setting means (`profiles.py`).
"""

import json
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, get_origin

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.audit import record_act
from roster_pipeline.database.tables import districts
from roster_pipeline.districts.agreement import (
    MOST_LICENSES,
    Agreement,
    District,
    UnusableSettingsError,
    check_agreement,
    find_district,
    schools_agreed,
)
from roster_pipeline.districts.domains import clean_domain, refuse_shared_domain
from roster_pipeline.errors import PermanentError, UsageError
from roster_pipeline.profiles import Profile, effective_profile

POLICIES = ("warn", "wait", "hold")

_COLUMNS = ("name", "domain", "profile", "status", "start_date", "licenses", "over_license_policy", "agreed_grades")


def agreement_of(connection: Connection, clever_id: str) -> dict[str, Any]:
    """Everything that can be changed about a district, by key; the values are JSON. Empty if there is no such district."""
    row = connection.execute(sa.select(districts).where(districts.c.clever_id == clever_id)).mappings().one_or_none()
    if row is None:
        return {}
    values = {key: row[key].isoformat() if isinstance(row[key], date) else row[key] for key in _COLUMNS}
    schools = {f"school {each['name']}": each["licenses"] for each in schools_agreed(connection, row["district_id"])}
    return {**values, **schools, **_flat(row["settings"])}


def record_change(
    connection: Connection, act: str, clever_id: str, before: Mapping[str, Any], *, by: str | None = None, reason: str | None = None
) -> dict[str, dict[str, Any]]:
    """Record in `ops.audit` what an act has changed, in the caller's transaction. An act that has changed nothing is not recorded.

    Args:
        before: `agreement_of` the district before the act.

    Returns:
        The keys that differ, each with the values `before` and `after`. A missing key has none of the two.
    """
    after = agreement_of(connection, clever_id)
    keys = [key for key in {**before, **after} if (key in before, before.get(key)) != (key in after, after.get(key))]
    changed = {key: {when: values[key] for when, values in (("before", before), ("after", after)) if key in values} for key in sorted(keys)}
    if changed:
        district_id = connection.execute(sa.select(districts.c.district_id).where(districts.c.clever_id == clever_id)).scalar_one()
        facts = {when: {key: each[when] for key, each in changed.items() if when in each} for when in ("before", "after")}
        record_act(connection, act, given_name=by, reason=reason, district_id=district_id, subject=f"district {clever_id}", facts=facts)
    return changed


def change_agreement(
    connection: Connection, reference: str, assignments: Mapping[str, str], *, by: str | None = None, reason: str | None = None
) -> tuple[District, dict[str, dict[str, Any]]]:
    """Change single values of a district's agreement or settings, all or none; what is not named stays, its status too.

    Args:
        assignments: the new values as text, by key: a key of the agreement (`licenses`, `grades` ...) or of a setting
            (`brakes.role_floor`). Empty text takes the value away: no licenses agreed, or the setting of the profile again.

    Returns:
        The district, and what has changed (`record_change`).

    Raises:
        UnknownDistrictError: there is no such district.
        UsageError: a key or a value is not valid. The message names the key and its range.
        PermanentError: nobody has recorded an agreement with the district.
    """
    clever_id = _clever_id(connection, reference)
    row = connection.execute(sa.select(districts).where(districts.c.clever_id == clever_id).with_for_update()).mappings().one()
    if row["profile"] is None:
        raise PermanentError("The district has no agreement yet.", hint="Record it with `roster district add`.", district=clever_id)
    before = agreement_of(connection, clever_id)
    columns = {_COLUMN_OF.get(key, key): _PARSERS[key](key, text) for key, text in assignments.items() if key in _PARSERS}
    settings = _changed(row["settings"], {key: text for key, text in assignments.items() if key not in _PARSERS})
    new = {**row, **columns}
    check_agreement(
        Agreement(
            clever_id,
            new["name"],
            new["profile"],
            new["domain"] or "",
            start_date=columns.get("start_date"),
            licenses=columns.get("licenses"),
            grades=columns.get("agreed_grades"),
        )
    )
    effective_profile(new["profile"], settings)
    if "domain" in columns:
        refuse_shared_domain(connection, clever_id, columns["domain"])
    changing = sa.update(districts).where(districts.c.clever_id == clever_id)
    connection.execute(changing.values(**columns, settings=settings, updated_at=sa.func.now()))
    changed = record_change(connection, "district_set", clever_id, before, by=by, reason=reason)
    return find_district(connection, clever_id), changed


def setting_value(key: str, text: str) -> Any:
    """Reads the value of a setting: as JSON if it is JSON, else as text. A setting that is a list takes `a,b`."""
    try:
        return json.loads(text)
    except ValueError:
        field = Profile.model_fields.get(key)
        return [part.strip() for part in text.split(",")] if field and get_origin(field.annotation) is tuple else text


def _clever_id(connection: Connection, reference: str) -> str:
    """Also of a district whose settings are not valid: they can be corrected here."""
    try:
        return find_district(connection, reference).clever_id
    except UnusableSettingsError as error:
        found = sa.select(districts.c.clever_id).where(districts.c.district_id == error.district_id)
        return str(connection.execute(found).scalar_one())


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by the keys that people write: `brakes.role_floor`."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _changed(recorded: Mapping[str, Any], assignments: Mapping[str, str]) -> dict[str, Any]:
    """The settings with these values; one that is empty is removed."""
    settings: dict[str, Any] = json.loads(json.dumps(dict(recorded)))
    for key, text in assignments.items():
        *path, name = key.split(".") if key.startswith("brakes.") else [key]
        if key == "brakes":
            raise UsageError("brakes: name one limit, like brakes.role_floor=20.")
        place = settings
        for part in path:
            place = place.setdefault(part, {}) if isinstance(place.get(part, {}), dict) else place
        if text:
            place[name] = setting_value(key, text)
        else:
            place.pop(name, None)
    return {key: value for key, value in settings.items() if value != {}}


def _text(key: str, text: str) -> str:
    if not text.strip():
        raise UsageError(f"{key} must not be blank.")
    return text


def _domain(key: str, text: str) -> str:
    del key
    return clean_domain(text)


def _day(key: str, text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise UsageError(f"{key} must be a day like 2026-08-15, or empty for none.") from None


def _licenses(key: str, text: str) -> int | None:
    if text and not (text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_LICENSES))):
        raise UsageError(f"{key} must be a whole number from 0 to {MOST_LICENSES:,}, or empty for no limit.")
    return int(text) if text else None


def _policy(key: str, text: str) -> str:
    if text not in POLICIES:
        raise UsageError(f"{key} must be one of: {', '.join(POLICIES)}.")
    return text


def _grades(key: str, text: str) -> list[str]:
    del key
    return [grade.strip() for grade in text.split(",") if grade.strip()]


# The keys of the agreement, and how each is read. All other keys are settings.
_PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "name": _text,
    "domain": _domain,
    "profile": _text,
    "start_date": _day,
    "licenses": _licenses,
    "over_license_policy": _policy,
    "grades": _grades,
}
_COLUMN_OF = {"grades": "agreed_grades"}
