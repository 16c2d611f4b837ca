"""The kinds of brake: one object per kind, with everything about it except its SQL (R7.3, R7.6, R9.2).

Belongs here: the name of a kind, its limits, its texts, what its hold covers, and which people it affects. Does not belong here: which acts
it counts (`dbt_like_sql/reconcile/`), and whether it trips (`sync/brakes.py`). "Add a brake" in `docs/architecture.md` has the steps. Tests
compare these objects with the SQL models, the settings, the database's check constraint, the reference model and the docs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from roster_pipeline.profiles import HIGHEST_FLOOR, Brakes, Profile

# A limit that is more than so many times its default hardly limits anything.
FAR = 5

Column = Literal["school_id", "role", "collection"]


@dataclass(frozen=True)
class PlannedPerson:
    """The decisions of the last plan about one person that a hold can cause.

    Attributes:
        rule: `reconcile.user_matches.rule`; None if the person is not in the plan.
        username_rule: `reconcile.user_matches.username_rule`; None if no username was decided.
        is_admin_held: the person would become an admin, and that is held.
        waits_for_first_sync: the person is in the plan of a first sync that is held as a whole.
        deletion_held_by: `reconcile.soft_deletes.held_by` of a user that would be soft-deleted.
        roles: the user's active roles, each with its school.
        listed_roles: the roles that Clever lists for the person.
        held_enrollments: kind of the hold and role, of each enrollment that would end and is held.
        listed_schools: Clever ids of the schools that Clever lists for the person.
    """

    rule: str | None
    username_rule: str | None
    is_admin_held: bool
    waits_for_first_sync: bool
    deletion_held_by: str | None
    roles: frozenset[tuple[str, int | None]]
    listed_roles: frozenset[str]
    held_enrollments: frozenset[tuple[str, str]]
    listed_schools: frozenset[str]


# Whether a hold causes a decision about a person. The hold has `role`, `school_id` and `school_clever_id`.
Explains = Callable[[PlannedPerson, Mapping[str, Any]], bool]


@dataclass(frozen=True)
class BrakeKind:
    """One kind of brake.

    Attributes:
        name: its value in `ops.holds.kind`.
        columns: the columns of `reconcile.brakes` that distinguish two brakes of this kind; the others are null.
        limit: `role` means the district's settings `brakes.role_floor` and `brakes.role_share`. None: it trips at the first act.
        limits_of_roles: for roles that have a limit of their own: role -> limit, named in the same way.
        waived_by: the district's setting with which it never trips.
        acts: the model that lists the acts that this kind counts.
        sentence: describes one hold. It may contain `{acts}`, `{active}` and the columns, but not `{school_id}`.
        trips: when it trips, for people who read the check.
        holds: what it then holds, for the same people.
        covers: every model that reads holds of this kind. Everything else that is held follows from the decisions of these models.
        in_rollover: its limits in a rollover window that names no others (R14.4), by setting. Without any, a window never loosens it.
        holds_whole_sync: a sync writes nothing while it holds (R7.6).
        holds_first_sync: a first sync writes nothing while it holds.
        asset: the table whose check it is: the one that shows what would happen without holds.
        explains: whether a hold of this kind causes a decision about a person.
    """

    name: str
    columns: tuple[Column, ...]
    limit: str | None
    sentence: str
    trips: str
    holds: str
    covers: tuple[str, ...]
    asset: str
    explains: Explains
    acts: str = "reconcile.brake_acts"
    limits_of_roles: Mapping[str, str] = field(default_factory=dict)
    waived_by: str | None = None
    in_rollover: Mapping[str, float] = field(default_factory=dict)
    holds_whole_sync: bool = False
    holds_first_sync: bool = False

    @property
    def settings(self) -> tuple[str, ...]:
        """The fields of `profiles.Brakes` that are its limits: floor and share, for each role that has its own."""
        limits = () if self.limit is None else (self.limit, *self.limits_of_roles.values())
        return tuple(f"{limit}_{part}" for limit in limits for part in ("floor", "share"))

    @property
    def description(self) -> str:
        """When it trips and what it then holds."""
        return f"{self.trips} {self.holds}"

    def limit_of(self, role: str | None, active: int, limits: Brakes) -> Fraction | None:
        """The most acts that pass: the larger of floor and share of `active`. None: it trips at the first act."""
        if self.limit is None:
            return None
        limit = self.limits_of_roles.get(role or "", self.limit)
        floor, share = getattr(limits, f"{limit}_floor"), getattr(limits, f"{limit}_share")
        # Exact, not a float: 5 % of 300 must be 15.
        return max(Fraction(floor), Fraction(str(share)) * active)

    def is_waived(self, rules: Profile) -> bool:
        """Whether a setting of the district lets every act pass."""
        return self.waived_by is not None and bool(getattr(rules, self.waived_by))

    def meaning(self, role: str | None, counts: Mapping[str, Any]) -> str:
        """Describes one hold, with its limit if it has one. `counts` is `ops.holds.counts`."""
        text = self.sentence.format(role=role, **{"acts": 0, "active": 0, "collection": "", **counts})
        return f"{text} (limit {counts['limit']:,g})" if "limit" in counts else text


# Both can hold the same user, but `reconcile.soft_deletes` names only one of them.
_BY_ROLE = ("district_role", "school_role")


def _explains_district_role(person: PlannedPerson, hold: Mapping[str, Any]) -> bool:
    return person.deletion_held_by in _BY_ROLE and hold["role"] in {role for role, _ in person.roles}


def _explains_school_role(person: PlannedPerson, hold: Mapping[str, Any]) -> bool:
    is_role_held = person.rule == "held_role" and not person.is_admin_held
    is_there = (hold["role"], hold["school_id"]) in person.roles or hold["school_clever_id"] in person.listed_schools
    return (person.deletion_held_by in _BY_ROLE or is_role_held) and is_there


def _explains_classrooms(person: PlannedPerson, _hold: Mapping[str, Any]) -> bool:
    return any(kind == "classrooms" for kind, _ in person.held_enrollments)


def _explains_enrollments(person: PlannedPerson, hold: Mapping[str, Any]) -> bool:
    return ("enrollments", hold["role"]) in person.held_enrollments


def _explains_new_admins(person: PlannedPerson, hold: Mapping[str, Any]) -> bool:
    return person.is_admin_held and hold["role"] in person.listed_roles - {role for role, _ in person.roles}


EMPTY_COLLECTION = BrakeKind(
    name="empty_collection",
    columns=("collection",),
    limit=None,
    sentence="Clever shares no {collection}",
    trips="Clever shares no schools, no sections or nobody of a role any more, though some are active here. In a first sync: Clever shares "
    "no schools, sections, students or teachers, and existing data would be soft-deleted.",
    holds="Holds every soft delete in the district; in a first sync everything.",
    covers=("reconcile.held_users", "reconcile.soft_deletes", "reconcile.lost_roles", "reconcile.enrollment_differences"),
    holds_first_sync=True,
    asset="reconcile.soft_deletes",
    explains=lambda person, _: person.deletion_held_by == "empty_collection" or person.waits_for_first_sync,
)
DISTRICT_ROLE = BrakeKind(
    name="district_role",
    columns=("role",),
    limit="role",
    in_rollover={"role_share": 0.5},
    sentence="{acts:,} of {active:,} active {role} users would be soft-deleted",
    trips="More users of one role would be soft-deleted than the larger of `role_floor` and `role_share` of those active in the district.",
    holds="Holds those users.",
    covers=("reconcile.held_users",),
    asset="reconcile.soft_deletes",
    explains=_explains_district_role,
)
SCHOOL_ROLE = BrakeKind(
    name="school_role",
    columns=("school_id", "role"),
    limit="school",
    in_rollover={"school_share": 1},
    sentence="{acts:,} of {active:,} active {role} users of one school would be soft-deleted",
    trips="More users of one role at one school would be soft-deleted than the larger of `school_floor` and `school_share` of those active "
    "there.",
    holds="Holds those users, their school, their classrooms and every role at the school, and people who have no other school.",
    covers=("reconcile.held_users", "reconcile.soft_deletes", "reconcile.school_status"),
    asset="reconcile.soft_deletes",
    explains=_explains_school_role,
)
CLASSROOMS = BrakeKind(
    name="classrooms",
    columns=(),
    limit="classroom",
    in_rollover={"classroom_floor": HIGHEST_FLOOR},
    sentence="{acts:,} of {active:,} classrooms with members would be soft-deleted",
    trips="More rostered classrooms with active members, whose term has not ended, would be soft-deleted than the larger of "
    "`classroom_floor` and `classroom_share` of the active ones.",
    holds="Holds those classrooms, with their members.",
    covers=("reconcile.unchanged_classrooms",),
    asset="reconcile.soft_deletes",
    explains=_explains_classrooms,
)
ENROLLMENTS = BrakeKind(
    name="enrollments",
    columns=("role",),
    limit="enrollment",
    in_rollover={"enrollment_floor": HIGHEST_FLOOR},
    sentence="{acts:,} of {active:,} active {role} enrollments would end, though person and classroom stay",
    trips="More enrollments of one role would end, though person and classroom stay, than the larger of `enrollment_floor` and "
    "`enrollment_share` of the active ones of that role.",
    holds="Holds those enrollments.",
    covers=("reconcile.enrollment_differences",),
    asset="reconcile.held_enrollments",
    explains=_explains_enrollments,
)
IDENTITIES = BrakeKind(
    name="identities",
    columns=(),
    limit="identity",
    in_rollover={"identity_floor": HIGHEST_FLOOR},
    sentence="{acts:,} of {active:,} linked users would lose their username, a way to sign in, or both names",
    trips="More linked users who stay would get another username, lose a way to sign in, or get another first and last name than the "
    "larger of `identity_floor` and `identity_share` of the linked ones.",
    holds="Holds their names, usernames and ways to sign in.",
    covers=("reconcile.identities_after_brakes",),
    asset="reconcile.user_matches",
    # Also who was refused a name that somebody under the hold keeps.
    explains=lambda person, _: person.username_rule in ("held", "withheld"),
)
INITIAL = BrakeKind(
    name="initial",
    columns=(),
    limit=None,
    waived_by="auto_initial",
    sentence="the first sync would soft-delete {acts:,} existing rows",
    trips="The first sync would soft-delete existing data, and the district is not set to `auto_initial`.",
    holds="Holds the whole sync; read `roster readiness` before it is approved.",
    covers=("reconcile.user_matches",),
    holds_whole_sync=True,
    asset="reconcile.soft_deletes",
    explains=lambda person, _: person.waits_for_first_sync,
)
RELINKS = BrakeKind(
    name="relinks",
    columns=(),
    limit="relink",
    sentence="{acts:,} users and schools would move to new Clever ids",
    trips="More users and schools would move to new Clever ids than the larger of `relink_floor` and `relink_share` of the linked ones.",
    holds="Holds the relinks: the old users and schools stay as they are, and no new ones are created.",
    covers=("reconcile.identities_after_brakes", "reconcile.school_status"),
    asset="reconcile.user_matches",
    explains=lambda person, _: person.rule == "relinks",
)
NEW_ADMINS = BrakeKind(
    name="new_admins",
    columns=("role",),
    limit="admin",
    limits_of_roles={"school_admin": "school_admin"},
    sentence="{acts:,} people would get the role {role}, beside {active:,}",
    trips="More people would become district admins than the larger of `admin_floor` and `admin_share` of the active ones, or more people "
    "would become school admins than that of `school_admin_floor` and `school_admin_share`.",
    holds="Holds that role of theirs.",
    covers=("reconcile.held_admins",),
    asset="reconcile.user_matches",
    explains=_explains_new_admins,
)
LICENSES = BrakeKind(
    name="licenses",
    columns=(),
    limit=None,
    acts="reconcile.license_acts",
    sentence="{acts:,} students are beyond the licenses",
    trips="Students would be rostered beyond the licenses, and the district's policy is `hold`.",
    holds="Holds those students; more licenses release them too.",
    covers=("reconcile.decisions",),
    asset="reconcile.license_reconciliation",
    explains=lambda person, _: person.rule == "licenses",
)

KINDS: Mapping[str, BrakeKind] = {
    kind.name: kind
    for kind in (
        *(EMPTY_COLLECTION, DISTRICT_ROLE, SCHOOL_ROLE, CLASSROOMS, ENROLLMENTS, IDENTITIES),
        *(INITIAL, RELINKS, NEW_ADMINS, LICENSES),
    )
}


# The limits that a rollover window may loosen, with their values where it names no others (R14.4).
ROLLOVER: Mapping[str, float] = {setting: value for kind in KINDS.values() for setting, value in kind.in_rollover.items()}
MAY_LOOSEN = tuple(setting for kind in KINDS.values() if kind.in_rollover for setting in kind.settings)


def loosened(rules: Profile, defaults: Profile) -> list[str]:
    """The kinds whose limit is switched off (a share of 1 lets everybody pass), or more than FAR times the default."""

    def is_loose(setting: str) -> bool:
        value, default = getattr(rules.brakes, setting), getattr(defaults.brakes, setting)
        return bool(value > default and (value > FAR * default or (setting.endswith("_share") and value >= 1)))

    return [kind.name for kind in KINDS.values() if any(map(is_loose, kind.settings))]


def kinds_counted_by(model: str) -> tuple[str, ...]:
    """The names of the kinds whose acts a model lists."""
    return tuple(kind.name for kind in KINDS.values() if kind.acts == model)
