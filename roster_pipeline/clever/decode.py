"""Bytes from Clever -> typed records, and findings about them. No network, and no state beyond one collection.

A page is decoded in one call into the Structs of `records.py`. Only if a type is wrong are its records decoded one by one (R4.2). Does not
belong here: which records are seen (`source/digests.py`), which page comes next (`paging.py`), and rules about values instead of types
(contracts).
"""

import re
from collections import Counter
from functools import cache
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

import msgspec
from msgspec import Raw, Struct

from roster_pipeline.clever.absence import meaning_of_absence
from roster_pipeline.clever.records import District, Record, Wire, record_type
from roster_pipeline.errors import PermanentError
from roster_pipeline.source.digests import SnapshotIndex
from roster_pipeline.source.protocol import SourceDistrict
from roster_pipeline.source.rules import DISTRICTS, finding, rule
from roster_pipeline.source.vocabulary import Collection, Finding

T = TypeVar("T")


class MalformedBodyError(ValueError):
    """A body is not JSON, or not the envelope that Clever documents. The error's text quotes nothing of the body."""


class Link(Struct):
    """One entry of an envelope's `links`."""

    rel: str
    uri: str


class ListBody(Struct):
    """A page of a collection: `{"data": [{"data": {...}, "uri": ...}, ...], "links": [...]}`. `data` stays bytes: a JSON array."""

    data: Raw
    links: list[Link]

    def __post_init__(self) -> None:
        if bytes(memoryview(self.data)[:1]) != b"[":
            raise ValueError("data is not an array")


class CountBody(Struct):
    """The answer to `count=true`: `{"count": 600, "links": [...]}`. Recorded of v1 only, so a body without a count is as good as none."""

    count: Raw = Raw(b"null")

    @property
    def records(self) -> int | None:
        """How many records the collection has; None if the body does not say so."""
        return int(self.count) if bytes(self.count).isdigit() else None


class SingleBody(Struct):
    """One object: `{"data": {...}, "links": [...]}`."""

    data: Raw


class DistrictsBody(Struct):
    """/districts: the list of the one district a token belongs to."""

    data: list[SingleBody]


# An escaped character: a whole one stays (group 1), half of a surrogate pair is dropped. In JSON a backslash always starts an escape.
_ESCAPE = re.compile(rb"(\\[^u]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def parse_body(body: bytes, shape: type[T]) -> T:
    """The envelope in `body`. Lone surrogates are dropped (R4.5): JSON allows them, UTF-8 does not.

    Raises:
        MalformedBodyError: not UTF-8, not JSON from the first byte to the last, or not of this shape.
    """
    try:
        body.decode()  # the decoder does not check the encoding of fields that it skips
        return _decode_tolerating_surrogates(body, shape)
    except msgspec.ValidationError:
        raise MalformedBodyError("its JSON does not have the documented shape") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedBodyError("it is not JSON") from None


def _decode_tolerating_surrogates(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return msgspec.json.decode(_ESCAPE.sub(lambda match: match[1] or b"", body), type=shape)


def parse_district(item: SingleBody) -> SourceDistrict | None:
    """The district object, with a finding for each optional value of the wrong type; None if it has no readable id."""
    _require_rules(District, DISTRICTS)
    try:
        values, broken = _salvage(item.data, District)
    except msgspec.ValidationError:
        return None
    if "id" not in values:
        return None
    district = District(**values)
    findings = [finding(DISTRICTS, district.id, _type_rule(column)) for column in broken]
    return SourceDistrict(district.id, district.name, district.state, district.last_sync, tuple(findings), district.last_clever_sync)


class Decoded(NamedTuple):
    """One page of a collection.

    Attributes:
        records: the usable unseen records.
        findings: what was wrong with records that are left out (`error`), or with optional values of these records (`warn`).
        digests: the digest of each record; None if a value of the record was dropped.
        positions: the position of each record in the pull of its resource.
        end: the position after the page's last record.
        size: how many records Clever sent on the page, with the seen and the unusable ones.
    """

    records: list[Record]
    findings: list[Finding]
    digests: list[bytes | None]
    positions: list[int]
    end: int
    size: int


class CollectionDecoder:
    """Decodes the pages of one collection of one district, and counts wrong types (R4.2).

    Args:
        index: the records of the last accepted snapshot, which are not decoded. Without it, every record is decoded.
    """

    def __init__(
        self,
        collection: Collection,
        district: str,
        *,
        keep_student_email: bool,
        prefer_name: bool = False,
        index: SnapshotIndex | None = None,
    ) -> None:
        self._collection = collection
        self._district = district
        self._index = index or SnapshotIndex()
        self._shape = record_type(collection, keep_student_email=keep_student_email, prefer_name=prefer_name)
        _require_rules(self._shape, collection.resource)
        item = msgspec.defstruct("Item", [("data", self._shape)], gc=False)
        self._items: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[item])  # type: ignore[valid-type]
        self._item: msgspec.json.Decoder[Any] = msgspec.json.Decoder(item)
        self._rows = 0
        self._wrong_types: Counter[str] = Counter()

    def decode(self, data: Raw) -> Decoded:
        """Decode the unseen records of one page's array."""
        items = msgspec.json.decode(data, type=list[Raw])
        self._rows += len(items)
        unseen, digests, first = self._index.filter_page(self._collection, items)
        findings: list[Finding] = []
        # Each record with its offset on the page, and whether it is complete: no value of it was dropped.
        decoded: list[tuple[Record, int, bool]]
        try:
            array = data if len(unseen) == len(items) else b"[" + b",".join([items[offset] for offset in unseen]) + b"]"
            decoded = [(item.data, offset, True) for item, offset in zip(self._items.decode(array), unseen, strict=True)]
        except msgspec.ValidationError:
            decoded = self._one_by_one([(items[offset], offset) for offset in unseen], findings)
        # One set per page is cheap. The loops below run only if Clever has sent records of another district, or of none.
        if not {record.district for record, _, _ in decoded} <= {self._district}:
            findings += [self._strayed(each) for each, _, _ in decoded if each.district != self._district]
            decoded = [each for each in decoded if each[0].district == self._district]
        if self._collection.role:
            decoded = self._with_readable_roles(decoded, findings)
        return Decoded(
            [record for record, _, _ in decoded],
            findings,
            [digests[offset] if is_complete else None for _, offset, is_complete in decoded],
            [first + offset for _, offset, _ in decoded],
            first + len(items),
            len(items),
        )

    def check_shape(self) -> None:
        """Check the whole collection. Call it after the last page.

        Raises:
            PermanentError: a mandatory field had the wrong type in more than half of the rows, and in more than one (R4.2).
        """
        for column, wrong in sorted(self._wrong_types.items()):
            if wrong > 1 and wrong * 2 > self._rows:
                raise PermanentError(
                    f"The shape of Clever's data changed: {column} has an unexpected type in {wrong} of {self._rows} {self._collection}.",
                    hint="Nothing was written. Compare Clever's API changes with roster_pipeline/clever/records.py.",
                    district=self._district,
                )

    def _strayed(self, record: Record) -> Finding:
        """The finding of a record that does not say that it belongs to the token's district (R3.6)."""
        return self._finding(record.id, "foreign_district" if record.district else "district_missing")

    def _with_readable_roles(self, decoded: list[tuple[Any, int, bool]], findings: list[Finding]) -> list[tuple[Any, int, bool]]:
        """The people whose roles can be read (R4.7)."""
        asked = self._collection.role or ""
        broken = {offset: rule for person, offset, _ in decoded if (rule := person.roles.broken_rule(asked))}
        if not broken:
            return decoded
        findings += [self._finding(person.id, broken[offset]) for person, offset, _ in decoded if offset in broken]
        return [each for each in decoded if each[1] not in broken]

    def _finding(self, clever_id: str, rule: str) -> Finding:
        return finding(self._collection.resource, clever_id, rule)

    def _one_by_one(self, items: list[tuple[Raw, int]], findings: list[Finding]) -> list[tuple[Record, int, bool]]:
        decoded: list[tuple[Record, int, bool]] = []
        for raw, offset in items:
            try:
                decoded.append((self._item.decode(raw).data, offset, True))
            except msgspec.ValidationError:
                record = self._salvage_record(raw, findings)
                if record is not None:
                    decoded.append((record, offset, False))
        return decoded

    def _salvage_record(self, item: Raw, findings: list[Finding]) -> Record | None:
        """A record with a wrong type, without its broken optional values; None if a mandatory value is broken."""
        try:
            values, broken = _salvage(msgspec.json.decode(item, type=SingleBody).data, self._shape)
        except msgspec.ValidationError:
            values, broken = {}, []
        clever_id = values.get("id", "")
        if values.get("district", self._district) != self._district:
            findings.append(self._finding(clever_id, "foreign_district"))
            return None
        if not clever_id:
            self._wrong_types["id"] += 1
            findings.append(self._finding("", "id_missing"))
            return None
        found = {column: self._finding(clever_id, _type_rule(column)) for column in broken}
        errors = [column for column, each in found.items() if each.severity == "error"]
        findings += found.values()
        self._wrong_types.update(errors)
        return None if errors else self._shape(**values)


# These values count as absent: the field keeps its default. But blank text is no list: it has the wrong type (R4.7).
_NULL = b"null"
_BLANK = b'""'


class _Field(NamedTuple):
    """How to decode one field of a wire object by itself. `nested`: the wire object in its type, if any (`StudentRole | None`)."""

    name: str
    decoder: msgspec.json.Decoder[Any]
    nested: type[Wire] | None
    is_list: bool
    column: str


@cache
def _fields(shape: type[Wire]) -> tuple[_Field, ...]:
    return tuple(
        _Field(
            name=field.name,
            decoder=msgspec.json.Decoder(field.type),
            nested=next((part for part in (field.type, *get_args(field.type)) if isinstance(part, type) and issubclass(part, Wire)), None),
            is_list=any(get_origin(part) is list for part in (field.type, *get_args(field.type))),
            column=shape.columns.get(field.name, field.name),
        )
        for field in msgspec.structs.fields(shape)
    )


def _type_rule(column: str) -> str:
    """The name of the rule that a value of the wrong JSON type breaks."""
    return f"{column}_type"


@cache
def _require_rules(shape: type[Wire], resource: str) -> None:
    """Every field that can have the wrong type has its rule in the list, at every depth (R4.9), and says what its absence means (R4.7).

    Raises:
        LookupError: a field does not say it.
        UnknownRuleError: a field has none. A missing rule is found when the decoder is made, not by the first odd record.
    """
    meaning_of_absence(shape)
    for field in _fields(shape):
        if field.name != "id":
            rule(resource, _type_rule(field.column))
        if field.nested:
            _require_rules(field.nested, resource)


@cache
def _loose(shape: type[Wire]) -> msgspec.json.Decoder[Any]:
    """A decoder of `shape` that leaves every field as bytes. It is still an allow-list: other fields are skipped."""
    return msgspec.json.Decoder(
        msgspec.defstruct(f"Loose{shape.__name__}", [(name, Raw, Raw(b"null")) for name in shape.__struct_fields__], gc=False)
    )


def _salvage(data: Raw, shape: type[Wire]) -> tuple[dict[str, Any], list[str]]:
    """The fields of a JSON object with the right type, ready for `shape(**values)`, and the columns of the broken ones.

    Raises:
        msgspec.ValidationError: `data` is not an object at all.
    """
    values: dict[str, Any] = {}
    broken: list[str] = []
    loose = _loose(shape).decode(data)
    for field in _fields(shape):
        raw = getattr(loose, field.name)
        text = bytes(raw)
        if text == _NULL or (text == _BLANK and not field.is_list):
            continue
        try:
            values[field.name] = field.decoder.decode(text)
        except msgspec.ValidationError:
            if field.nested and text.startswith(b"{"):
                inner_values, inner_broken = _salvage(raw, field.nested)
                values[field.name] = field.nested(**inner_values)
                broken += inner_broken
            else:
                broken.append(field.column)
    return values, broken
