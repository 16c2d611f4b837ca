"""A district from recorded Clever answers: list pages of users, sections, districts and tokens, served again unchanged.

Belongs here: finding and reading the recordings, and making up the schools, terms and courses that they refer to but do not contain.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from roster_pipeline.errors import UsageError
from roster_pipeline.sandbox.district import District, Record, roles_of, schools_of
from roster_pipeline.sandbox.people import GENERATED_AT

# what a recording holds -> a key that the records of no other kind have
_TELLING_KEYS = {"tokens": "access_token", "users": "roles", "sections": "students", "districts": "portal_url"}


def load_payloads(directory: Path) -> District:
    """The district that the recordings in `directory` (`*.json`, list bodies as Clever sent them) describe.

    Which file is which is told from the records in it. Recorded records are served unchanged. The token goes to the district that the data
    belongs to, also where the recorded owner is another one.

    Raises:
        UsageError: the folder or a recording is missing, or a recording is not readable.
    """
    found = _recordings(directory)
    missing = [kind for kind in _TELLING_KEYS if kind not in found]
    if missing:
        raise UsageError(
            f"{directory} holds no recording of {', '.join(missing)}.", hint="Recordings are Clever's list answers, one JSON file each."
        )
    users, sections = found["users"], found["sections"]
    district = District(_owner(users, found["districts"]), token=dict(found["tokens"][0]))
    for user in users:
        district.put("users", user["id"], user, roles=tuple(roles_of(user)))
    for section in sections:
        district.put("sections", section["id"], section)
    _synthesise(district, users, sections)
    return district


def _recordings(directory: Path) -> dict[str, list[Record]]:
    if not directory.is_dir():
        raise UsageError(f"There is no folder {directory}.")
    found: dict[str, list[Record]] = {}
    for file in sorted(directory.glob("*.json")):
        try:
            items = json.loads(file.read_bytes())["data"]
            records = [item.get("data", item) for item in items]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UsageError(f"{file} is no list answer of Clever.", hint="It needs the shape {data: [...], links: [...]}.") from None
        for kind, key in _TELLING_KEYS.items():
            if records and key in records[0]:
                found.setdefault(kind, []).extend(records)
    return found


def _owner(users: list[Record], districts: list[Record]) -> Record:
    wanted = users[0]["district"]
    for record in districts:
        if record["id"] == wanted:
            return record
    raise UsageError("The recorded districts do not hold the one that the recorded users belong to.", district=wanted)


def _synthesise(district: District, users: list[Record], sections: list[Record]) -> None:
    """Schools, terms and courses for every id that users or sections refer to."""
    stamp = GENERATED_AT[0]
    schools = _distinct([school for user in users for school in schools_of(user)], (section["school"] for section in sections))
    for number, key in enumerate(schools, 1):
        fields: Record = {
            "name": f"School {number}",
            "sis_id": str(number),
            "school_number": str(number),
            "created": stamp,
            "last_modified": stamp,
        }
        district.put("schools", key, {"id": key, "district": district.id, **fields})
    for number, key in enumerate(_distinct(section.get("term_id") for section in sections), 1):
        district.put("terms", key, {"id": key, "district": district.id, "name": f"Term {number}", "start_date": "", "end_date": ""})
    for number, key in enumerate(_distinct(section.get("course") for section in sections), 1):
        district.put("courses", key, {"id": key, "district": district.id, "name": f"Course {number}", "number": str(number)})


def _distinct(*groups: Iterable[str | None]) -> list[str]:
    return sorted({key for group in groups for key in group if key})
