"""Whether a field that every record needs is missing in a whole collection: the shape of the data has changed (R4.2).

Belongs here: the decision, from how often each rule was broken. Does not belong here: a type that changed for most records
(`clever/decode.py`), and fields that a district can switch off (a username, an id of its own system): the brake `identities` holds such a
change until a person has decided (R7.3).
"""

from collections.abc import Mapping

from roster_pipeline.errors import PermanentError
from roster_pipeline.source.rules import rules
from roster_pipeline.source.vocabulary import Collection

# A field has vanished if more than nine of ten records lack it. A few records are never the shape of the data: they are quarantined, which
# loses nobody either.
_NEARLY_ALL = 0.9
_LEAST_RECORDS = 10
_MISSING = "_missing"
# Of records without an id nobody knows how many there are. The decoder counts them, as it counts ids of the wrong type.
_NOT_COUNTED = "id_missing"


def refuse_vanished(collection: Collection, broken: Mapping[str, int], *, records: int, before: int, district: str) -> None:
    """Check a whole collection, after its last page.

    Args:
        broken: how many of its records broke each rule, by the name of the rule.
        records: how many records it has, seen ones too.
        before: how many of its records the last accepted snapshot has. Each of them has every field that a record needs. Without a record,
            nothing can have vanished: the broken records are quarantined.
        district: its Clever id.

    Raises:
        PermanentError: nearly all records lack a field without which a record is quarantined.
    """
    if not before:
        return
    for name, count in sorted(broken.items()):
        is_error = name.endswith(_MISSING) and name != _NOT_COUNTED and rules()[collection.resource, name].severity == "error"
        if is_error and count >= _LEAST_RECORDS and count > records * _NEARLY_ALL:
            field = name.removesuffix(_MISSING)
            raise PermanentError(
                f"The shape of Clever's data changed: {field} is missing in {count} of {records} {collection}.",
                hint="Nothing was written. Ask the district whether it still shares this field, and compare Clever's API changes with "
                "roster_pipeline/clever/records.py.",
                district=district,
            )
