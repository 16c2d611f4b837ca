"""What it means that Clever leaves a field out (R4.7).

Belongs here: the meanings. Does not belong here: which field has which meaning (`records.py`).
"""

from collections.abc import Mapping
from enum import Enum, auto

from msgspec import Struct


class Absent(Enum):
    """What it means that Clever does not send a field, or sends null."""

    FAILS = auto()  # The pull fails, and nothing is written.
    UNREADABLE = auto()  # Nobody knows what the record is: nothing of its collection is soft-deleted (R4.8).
    QUARANTINED = auto()  # The record is quarantined: what exists behind it is left unchanged (R4.6).
    STAYS = auto()  # What the application has stays (R4.7).
    ELSEWHERE = auto()  # Another field says the same.
    NO_ROLE = auto()  # The person does not have this role (R5.8). The role that was asked for: QUARANTINED.
    EMPTY = auto()  # The value is empty. It takes no account, role or class from anybody.
    SIGN_IN = auto()  # The value is empty, and with it a way to sign in; for many people at once that is held (R7.3, `identities`).


def meaning_of_absence(shape: type[Struct]) -> Mapping[str, Absent]:
    """What the absence of each field of a Struct means, base classes included.

    Raises:
        LookupError: a field does not say it, or something is said of a field that is not there.
    """
    said: dict[str, Absent] = {}
    for each in reversed(shape.__mro__):
        said |= getattr(each, "absent", {})
    if said.keys() != set(shape.__struct_fields__):
        fields = ", ".join(sorted(said.keys() ^ set(shape.__struct_fields__)))
        raise LookupError(f"clever/records.py, {shape.__name__}.absent: what does the absence of {fields} mean?")
    return said
