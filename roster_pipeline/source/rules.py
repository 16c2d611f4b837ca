"""The quarantine rules: every rule that a single record can break, with its severity and its text (R4.9). There is no other list.

Belongs here: which rules there are. From this list come the asset checks (`defs/checks.py`), the alerts (`alerts/causes.py`) and the texts
on the terminal. Does not belong here: the formats of columns (`contracts.py`, from which a part of this list is derived), how a source
finds a broken record (`clever/decode.py`), and rules that need more than one record (`dbt_like_sql/audits/`).

A finding is made with `finding`, and loaded by `sync/landing.py`. Both refuse a rule that is not in this list.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from roster_pipeline import contracts
from roster_pipeline.source.vocabulary import Finding, Severity


class Rule(NamedTuple):
    """One quarantine rule.

    Attributes:
        resource: a key of `contracts.RESOURCES`, or DISTRICTS.
        name: as in `ops.quarantine`. Unique within its resource.
        severity: `error` quarantines the record, and is worth an alert. `warn` drops the value, and the record stays.
        audit: the audit that counts the same records, if the database finds them. Its check and its alert are those of this rule too.
    """

    resource: str
    name: str
    severity: Severity
    description: str
    audit: str | None = None


class UnknownRuleError(LookupError):
    """A finding of a rule that is not in this list, or with another severity: nothing would check it, explain it or send an alert."""


# The resource of the district object. It has no contract: it is one record.
DISTRICTS = "districts"

# The fields of each object in JSON, by the name that the rule of their type has. A field of severity `error` quarantines the record: the
# fields that R4.2 names, and those without which a person who is present would look absent (a role, a school, the members of a section).
_TYPES: Mapping[str, Mapping[str, Severity]] = {
    DISTRICTS: {"name": "warn", "state": "warn", "last_sync": "warn", "last_clever_sync": "warn"},
    "schools": {"district": "error", "name": "error", "last_modified": "warn"},
    "terms": {"district": "error", "name": "warn", "start_date": "warn", "end_date": "warn"},
    "courses": {"district": "error", "name": "warn", "number": "warn"},
    "sections": {
        "district": "error",
        "school": "error",
        "name": "error",
        "course": "warn",
        "term_id": "warn",
        "students": "error",
        "teachers": "error",
        "teacher": "warn",
        "last_modified": "warn",
    },
    "users": {
        "district": "error",
        "name": "error",
        "first_name": "error",
        "middle_name": "warn",
        "last_name": "error",
        "email": "warn",
        "last_modified": "warn",
        "roles": "error",
        "student": "error",
        "teacher": "error",
        "staff": "error",
        "district_admin": "error",
        "school": "error",
        "schools": "error",
        "sis_id": "warn",
        "state_id": "warn",
        "student_number": "warn",
        "grade": "warn",
        "credentials": "warn",
        "district_username": "warn",
        "preferred_name": "warn",
        "preferred_first_name": "warn",
        "preferred_middle_name": "warn",
        "preferred_last_name": "warn",
    },
}

# Rules that are about no single column.
_OF_RECORDS = {
    "id_missing": "The record has no readable id, so nobody knows which one it is: it is quarantined.",
    "district_missing": "The record does not say which district it belongs to: it is quarantined (R3.6).",
    "foreign_district": "The record belongs to another district than the token, and is never written (R3.6).",
}
_OUTCOMES: Mapping[Severity, str] = {"error": "the row is quarantined", "warn": "the value is dropped"}


def _listed() -> Iterator[Rule]:
    for resource, fields in _TYPES.items():
        for field, severity in fields.items():
            text = f"{field} does not have its documented JSON type: {_OUTCOMES[severity]}."
            yield Rule(resource, f"{field}_type", severity, text)
    yield Rule(DISTRICTS, "last_sync_format", "warn", f"last_sync is not a time: {_OUTCOMES['warn']}.")
    for resource in contracts.RESOURCES:
        yield from _of_columns(resource)
        for name, text in _OF_RECORDS.items():
            yield Rule(resource, name, "error", text)
    yield Rule("sections", "teachers_missing", "warn", "Clever does not send the section's teachers: those of the classroom stay (R4.7).")
    yield Rule(
        "users", "roles_missing", "error", "Clever does not send the person's roles, or the one that was asked for: the row is quarantined."
    )
    yield Rule(
        "users",
        "schools_missing",
        "error",
        "Clever does not send the schools of a role, which is not an empty list: the row is quarantined.",
    )
    yield Rule(
        "users",
        "clever_id_taken_as_username",
        "error",
        "A protected user has this Clever id as username: the row is quarantined.",
        audit="clever_id_taken",
    )
    yield Rule(
        "users",
        "erased",
        "warn",
        "Clever still sends a person who was erased: the record is left out, and the sync does not bring the person back (R18.2).",
    )


def _of_columns(resource: str) -> Iterator[Rule]:
    for column in contracts.columns(resource):
        if column.missing == "error":
            yield Rule(resource, f"{column.name}_missing", "error", f"{column.name} is missing or blank: {_OUTCOMES['error']}.")
        if column.has_format:
            text = f"{column.name} does not have its documented format: {_OUTCOMES[column.broken]}."
            yield Rule(resource, f"{column.name}_format", column.broken, text)


@cache
def rules() -> Mapping[tuple[str, str], Rule]:
    """Every quarantine rule, by its resource and name."""
    listed = list(_listed())
    by_name = {(rule.resource, rule.name): rule for rule in listed}
    if len(by_name) < len(listed):
        raise AssertionError("two quarantine rules of one resource have the same name")
    return MappingProxyType(by_name)


def rule(resource: str, name: str) -> Rule:
    """The rule of this name.

    Raises:
        UnknownRuleError: it is not in the list.
    """
    try:
        return rules()[resource, name]
    except KeyError:
        raise UnknownRuleError(f"{resource}.{name} is not a quarantine rule: add it to source/rules.py") from None


def finding(resource: str, clever_id: str, name: str) -> Finding:
    """A finding of the rule of this name. `clever_id` is "" if the record has no readable id.

    Raises:
        UnknownRuleError: it is not in the list.
    """
    return Finding(clever_id, name, rule(resource, name).severity)


def check_listed(resource: str, found: Finding) -> None:
    """Refuse a finding that this list does not know.

    Raises:
        UnknownRuleError: its rule is not in the list, or has another severity.
    """
    if rule(resource, found.rule).severity != found.severity:
        raise UnknownRuleError(f"{resource}.{found.rule} has the severity {rule(resource, found.rule).severity}, not {found.severity}")
