"""Dates and times as a roster source sends them, each parsed once (R4.9). PostgreSQL only ever gets what these functions return.

Does not belong here: which columns are dates or times (`contracts.py`).
"""

import re
from datetime import UTC, date, datetime

# ISO 8601 as Clever writes it: a day, or a day with a time, with or without seconds and zone. Python's own parser also takes weeks.
_WRITTEN = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?:Z|[+-]\d{2}(?::?\d{2})?)?)?",
    re.ASCII,
)


def instant(text: str) -> datetime | None:
    """The time in aware UTC; None if the text is no time. Without a zone, it is UTC."""
    written = _parsed(text)
    if written is None:
        return None
    try:
        return written.replace(tzinfo=UTC) if written.tzinfo is None else written.astimezone(UTC)
    except OverflowError:  # before the year 1 or after 9999, once it is in UTC
        return None


def day(text: str) -> date | None:
    """The day as written, whatever the zone; None if the text is neither a day nor a time."""
    written = _parsed(text)
    return None if written is None else written.date()


def _parsed(text: str) -> datetime | None:
    if not _WRITTEN.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # such as 30 February, the year 0, or a zone of 24 hours
        return None
