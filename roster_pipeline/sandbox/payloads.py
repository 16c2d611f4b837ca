"""Makes a district from recorded answers of Clever: list pages of users, sections, districts and tokens, served unchanged.

Belongs here: finding and reading the recordings, and inventing the schools, terms and courses that they refer to but do not contain.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from roster_pipeline.errors import UsageError
from roster_pipeline.sandbox.district import District, Record, roles_of, schools_of
from roster_pipeline.sandbox.people import GENERATED_AT

# what a recording contains -> a key that only its records have
_DISTINCTIVE_KEYS = {"tokens": "access_token", "users": "roles", "sections": "students", "districts": "portal_url"}


def load_payloads(directory: Path) -> District:
    """The district of the recordings in `directory` (`*.json`, list bodies that Clever sent).

    The records in a file show what the file contains. Recorded records are served unchanged. The token becomes the token of the district
    that the users belong to, even if the recorded owner is another district.

    Raises:
        UsageError: the folder or a recording is missing, or a recording is not readable.
    """
    found = _recordings(directory)
    missing = [kind for kind in _DISTINCTIVE_KEYS if kind not in found]
    if missing:
        raise UsageError(
            f"{directory} has no recording of {', '.join(missing)}.", hint="Recordings are Clever's list answers, one JSON file each."
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
            raise UsageError(f"{file} is not a list answer of Clever.", hint="It needs the form {data: [...], links: [...]}.") from None
        for kind, key in _DISTINCTIVE_KEYS.items():
            if records and key in records[0]:
                found.setdefault(kind, []).extend(records)
    return found


def _owner(users: list[Record], districts: list[Record]) -> Record:
    district_id = users[0]["district"]
    for record in districts:
        if record["id"] == district_id:
            return record
    raise UsageError("The district of the recorded users is not among the recorded districts.", district=district_id)


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
