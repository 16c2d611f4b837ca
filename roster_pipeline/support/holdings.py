"""Every stored table, and for each column whether it is personal. Who removes a person from it is said here, once (R18.1).

Belongs here: the list. A test compares it with the catalog of a database, so a new table or column without an answer fails. Does not belong
here: the statements (`removal.py`, `offboarding.py`, `fleet/retention.py`).

Personal is what names a person, or is a number or an id of theirs outside this database: a Clever id too. An id that only this database
gives (`user_id`) is not: without the row behind it, it names nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Holding:
    """One table.

    Attributes:
        personal: columns that can hold personal data.
        other: all other columns.
        person: what `roster erase` does with the rows of the person.
        district: what `roster district offboard --erase` does with the rows of the district.
        of_district: a condition on the row `held`: whether it is the district's. Empty: the table is not about single districts.
    """

    personal: frozenset[str]
    other: frozenset[str]
    person: str
    district: str
    of_district: str


_REMOVED = "removed"
_BLANKED = "removed; blanked if a table of the application refers to it"
_NOBODY = "holds no person"
_NO_DISTRICT = "is about no district"
_STAYS = "stays: ids and counts"


def _table(
    personal: str, other: str, *, person: str = _NOBODY, district: str = _REMOVED, of_district: str = "held.district_id = {district_id}"
) -> Holding:
    return Holding(frozenset(personal.split()), frozenset(other.split()), person, district, of_district)


_TIMES = "created_at updated_at"

HOLDINGS: Mapping[str, Holding] = {
    "app.districts": _table(
        "settings",
        "district_id clever_id name domain profile status start_date licenses over_license_policy agreed_grades rekeyed_from"
        f" active_since {_TIMES}",
        person="stays: `settings` can name the contact of a district; support changes it with `roster district set`",
        district="stays, without domain, grades and settings: acts and purges refer to it",
    ),
    "app.agreed_schools": _table("", "agreed_school_id district_id name clever_id licenses", district=_BLANKED),
    "app.schools": _table("", f"school_id district_id clever_id name source protected deleted_at {_TIMES}", district=_BLANKED),
    "app.users": _table(
        "clever_id username username_key first_name middle_name last_name email sis_id state_id student_number district_username grade",
        f"user_id district_id school_id source protected do_not_restore license_status login_methods deleted_at {_TIMES}",
        person=_BLANKED,
        district=_BLANKED,
    ),
    "app.user_roles": _table("", f"district_id user_id role school_id source deleted_at {_TIMES}", person=_BLANKED, district=_BLANKED),
    "app.classrooms": _table(
        "name clever_name",
        f"classroom_id district_id school_id clever_id source protected deleted_at term_name starts_on ends_on {_TIMES}",
        person="a soft-deleted one with the teacher's last name in its name is blanked; active ones are listed, to be renamed in Clever",
        district=_BLANKED,
    ),
    "app.enrollments": _table(
        "", f"district_id classroom_id user_id role is_primary source deleted_at {_TIMES}", person=_BLANKED, district=_BLANKED
    ),
    "staging.districts": _table("", "district_id clever_id name state last_sync pulled_at"),
    "staging.schools": _table("", "district_id clever_id name last_modified digest"),
    "staging.terms": _table("", "district_id clever_id name start_date end_date digest"),
    "staging.courses": _table("", "district_id clever_id name number digest"),
    "staging.sections": _table(
        "name students teachers",
        "district_id clever_id school course term last_modified digest",
        person="the Clever id is taken out of the lists; the name is the district's, as for app.classrooms",
    ),
    "staging.users": _table(
        "clever_id first_name middle_name last_name email username sis_id state_id student_number grade",
        "district_id school student_schools teacher_schools staff_schools is_district_admin last_modified digest",
        person=_REMOVED,
    ),
    "staging.quarantined": _table("clever_id", "district_id resource is_shown", person=_REMOVED),
    "staging.unreadable": _table("", "district_id collection"),
    "reconcile.user_matches": _table(
        "clever_id", "district_id user_id decision rule username_rule is_admin_held is_waiting", person=_REMOVED
    ),
    "reconcile.soft_deletes": _table("clever_id", "district_id entity entity_id reason held_by", person=_REMOVED),
    "reconcile.held_enrollments": _table("", "district_id classroom_id user_id role held_by", person=_REMOVED),
    "reconcile.license_reconciliation": _table("", "district_id scope school_id licenses used without_seat held is_over"),
    "reconcile.readiness": _table("", "district_id topic item count detail"),
    "ops.syncs": _table(
        "requested_by reason principal",
        "sync_id district_id trigger requested_at status started_at finished_at snapshot_at counts message dagster_run_id requested_role"
        " is_applied pull_no applied_no",
        person="loses requested_by and principal where they are the person's name, username or e-mail; a reason is support's own text",
        district="stays, without message, requested_by, principal and reason",
    ),
    "ops.holds": _table(
        "decided_by decided_principal",
        "hold_id sync_id district_id kind school_id role counts plan_hash status decided_at expires_at created_at used_by",
        person="loses decided_by and decided_principal where they are the person's; the plan is made again at the next sync",
        district="stays, without school and names of who decided; what waits is superseded",
    ),
    "ops.held_acts": _table(
        "act",
        "hold_id",
        person=_REMOVED,
        of_district="held.hold_id in (select hold_id from ops.holds where district_id = {district_id})",
    ),
    "ops.quarantine": _table("clever_id", "sync_id district_id resource rule severity", person=_REMOVED),
    "ops.finding_records": _table("clever_id", "district_id rule resource records", person=_REMOVED),
    "ops.audited": _table("", "district_id sync_id"),
    "ops.settled": _table("", "district_id sync_id snapshot state since_sync_id"),
    "ops.changes": _table(
        "before after",
        "sync_id district_id entity entity_id user_id action changed_at audit_id",
        person="loses its values",
        district="stays, without values",
    ),
    "ops.alerts": _table("", "alert_id event kind district_id sync_id facts is_urgent created_at closed_at", district=_STAYS),
    "ops.alert_deliveries": _table(
        "",
        "alert_id receiver accepted_at",
        district=_STAYS,
        of_district="held.alert_id in (select alert_id from ops.alerts where district_id = {district_id})",
    ),
    "ops.alert_receivers": _table("", "receiver failures next_attempt_at", district=_NO_DISTRICT, of_district=""),
    "ops.connections": _table("", "clever_id district_id connected_at disconnected_at status_before", district=_STAYS),
    "ops.token_listings": _table("", "is_newest began_at client doubted_since doubt", district=_NO_DISTRICT, of_district=""),
    "ops.feed_floor": _table("", "is_only removed_up_to", district=_NO_DISTRICT, of_district=""),
    # The database lets nobody change or remove a window. The names are those of the vendor's own people.
    "ops.windows": _table(
        "created_by cancelled_by principal",
        "window_id district_id profile kind first_night last_night limits reason created_at cancelled_at",
        person="stays: a window is about nights",
        district=_STAYS,
    ),
    "ops.ticks": _table("", "sensor ticked_at", district=_NO_DISTRICT, of_district=""),
    "ops.alembic_version": _table("", "version_num", district=_NO_DISTRICT, of_district=""),
    # Append-only. `given_name` is what the vendor's own people say of themselves.
    "ops.audit": _table(
        "given_name principal",
        "audit_id at act reason district_id subject facts",
        person="stays: facts have no personal data",
        district=_STAYS,
    ),
    "ops.purges": _table(
        "purged_by principal",
        "purge_id district_id purged_at users deleted_before kind reason counts",
        person="gets one row",
        district="gets one row",
    ),
    "ops.erased": _table(
        "",
        "erased_id district_id salt clever_id_hash purge_id erased_at",
        person="gets one row for each Clever id",
        district="stays: hashes",
    ),
}
