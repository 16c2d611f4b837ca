"""The vendor profiles, as data (SPEC 1). No other module asks which profile a district has; it reads the fields.

Belongs here: the fields in which districts can differ, the defaults of each profile, and merging a district's own settings into them.
Does not belong here: reading or writing `app.districts`. A new profile is one more object in `PROFILES`; everything else follows from it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from roster_pipeline.errors import UsageError

LoginMethod = Literal["clever", "password", "google", "microsoft", "classlink"]
# The names of `brake_kinds.KINDS`; a test compares.
HoldKind = Literal[
    "empty_collection",
    "district_role",
    "school_role",
    "classrooms",
    "enrollments",
    "identities",
    "relinks",
    "new_admins",
    "licenses",
    "initial",
]
RequestRole = Literal["support", "account_owner"]

# The highest floor of a brake. With it, the brake is switched off.
HIGHEST_FLOOR = 1_000_000


class Brakes(BaseModel):
    """Limits of R7.3: a brake trips when the count is strictly above the larger of floor (acts) and share (fraction of n)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _within(cls, limit: Any) -> Any:
        """A number without a range of its own is not beyond what any district has."""
        if isinstance(limit, int) and limit > HIGHEST_FLOOR:
            raise ValueError(f"the range is from 0 to {HIGHEST_FLOOR:,}")
        return limit

    role_floor: int = Field(10, ge=0)
    role_share: float = Field(0.05, ge=0, le=1)
    school_floor: int = Field(5, ge=0)
    school_share: float = Field(0.20, ge=0, le=1)
    relink_floor: int = Field(25, ge=0)
    relink_share: float = Field(0.10, ge=0, le=1)
    admin_floor: int = Field(3, ge=0)
    admin_share: float = Field(0.50, ge=0, le=1)
    school_admin_floor: int = Field(10, ge=0)
    school_admin_share: float = Field(0.50, ge=0, le=1)
    classroom_floor: int = Field(20, ge=0)
    classroom_share: float = Field(0.30, ge=0, le=1)
    enrollment_floor: int = Field(100, ge=0)
    enrollment_share: float = Field(0.30, ge=0, le=1)
    identity_floor: int = Field(25, ge=0)
    identity_share: float = Field(0.10, ge=0, le=1)


class Profile(BaseModel):
    """The effective rules of one district: the defaults of its vendor profile, overridden by its own settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nightly_at: str = Field(
        # A night ends at 06:00. Twice a year, when the clock changes, a time from 01:00 to 02:59 is skipped or occurs twice.
        pattern=r"^(1[2-9]|2[0-3]|00|0[3-5]):[0-5][0-9]$",
        description="Nightly sync, America/Los_Angeles: from 12:00 to 05:59, but not from 01:00 to 02:59.",
    )
    student_email: bool = Field(description="Store a student's e-mail when Clever shares it.")
    student_name: Literal["legal", "preferred"] = Field(
        "legal", description="The name that is stored of a student: legal, or the one that the student goes by (CLEVER_API_VERSION=v3.1)."
    )
    student_multi_school: bool = Field(description="Roster a student at every shared school instead of the primary one only (R6.3).")
    login_methods: tuple[LoginMethod, ...] = Field(
        description="What the district has enabled besides Clever for users with a username (R5.9)."
    )
    keep_classroom_names: bool = Field(False, description="A classroom keeps the name that the application gave it (R6.1).")
    users_csv: bool = Field(description="`roster users import` is allowed; otherwise admins only (R8.2).")
    auto_initial: bool = Field(False, description="The first sync may soft-delete existing data without approval (R7.6).")
    request_roles: tuple[RequestRole, ...] = Field(description="Roles for which a sync may be requested (R11.3).")
    requests_per_hour: int | None = Field(None, ge=1, le=1_000, description="Syncs that may be requested within an hour; none: no limit.")
    approval_hours: int = Field(72, ge=1, le=8_760, description="Hours until an approval of a hold expires (R7.5).")
    freshness: Literal["night", "day"] = Field(
        "night", description="When newer data at Clever is looked for: in the night of a sync, or by day too (R17.1)."
    )
    freshness_minutes: int = Field(10, ge=5, le=1_440, description="Minutes between two questions to Clever by day (R17.1).")
    district_may_approve: tuple[HoldKind, ...] = Field(
        ("school_role", "licenses"), description="Kinds of holds that the district's own account owner may decide about (R13.6)."
    )
    brakes: Brakes = Brakes()


PROFILES: dict[str, Profile] = {
    "typing_agent": Profile(
        nightly_at="21:00",
        student_email=False,
        student_multi_school=False,
        login_methods=("clever", "password"),
        users_csv=False,
        request_roles=("support",),
    ),
    "twig_science": Profile(
        nightly_at="00:00",
        student_email=True,
        student_multi_school=True,
        login_methods=("clever", "password", "google"),
        users_csv=True,
        request_roles=("account_owner", "support"),
    ),
}


def nightly_times() -> tuple[str, ...]:
    """The nightly times of all profiles, without repetition, in the order of the profiles."""
    return tuple(dict.fromkeys(profile.nightly_at for profile in PROFILES.values()))


def require_profile(name: str) -> Profile:
    """The profile of this name, with its defaults.

    Raises:
        UsageError: there is none.
    """
    if name not in PROFILES:
        raise UsageError(f"There is no profile {name!r}.", hint=f"Use one of: {', '.join(PROFILES)}.")
    return PROFILES[name]


def effective_profile(name: str, settings: dict[str, object]) -> Profile:
    """The profile `name`, overridden by a district's `settings` (jsonb of app.districts, public names of SPEC 2).

    Raises:
        UsageError: no such profile, an unknown key, or a value outside its range; the message names the key, never the value.
    """
    merged = require_profile(name).model_dump()
    brakes = settings.get("brakes", {})
    merged |= {key: value for key, value in settings.items() if key != "brakes"}
    try:
        merged["brakes"] = {**merged["brakes"], **(brakes if isinstance(brakes, dict) else {"": brakes})}
        profile = Profile.model_validate(merged)
    except ValidationError as error:
        raise _not_valid(
            f"{'.'.join(map(str, item['loc']))} ({item['msg']}{_range(item['loc'])})" for item in error.errors(include_input=False)
        ) from None
    if profile.nightly_at not in nightly_times():
        raise _not_valid([f"nightly_at (Input should be a time of a profile: {', '.join(nightly_times())})"])
    return profile


def brakes_with(brakes: Brakes, limits: Mapping[str, object]) -> Brakes:
    """These brakes with other limits.

    Raises:
        UsageError: a value is outside its range; the message names the key, never the value.
    """
    try:
        return Brakes.model_validate({**brakes.model_dump(), **limits})
    except ValidationError as error:
        wrong = (f"{item['loc'][0]} ({item['msg']}{_range(('brakes', *item['loc']))})" for item in error.errors(include_input=False))
        raise UsageError(
            f"The limits are not valid: {', '.join(wrong)}.", hint="A floor is a number of acts, a share is from 0 to 1."
        ) from None


def _range(path: tuple[int | str, ...]) -> str:
    """The range of a setting that has one, for the message about a value outside it."""
    fields = Brakes.model_fields if path[:1] == ("brakes",) else Profile.model_fields
    field = fields.get(str(path[-1])) if path else None
    bounds = {name: getattr(each, name) for each in (field.metadata if field else ()) for name in ("ge", "le") if hasattr(each, name)}
    return f"; the range is from {bounds['ge']:,} to {bounds['le']:,}" if len(bounds) == 2 else ""


def _not_valid(keys: Iterable[str]) -> UsageError:
    return UsageError(
        f"The district's settings are not valid: {', '.join(keys)}.", hint="`roster district show` lists every setting and its default."
    )
