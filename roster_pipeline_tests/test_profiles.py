"""Profiles are data, every field of them overridable (SPEC 1, 2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roster_pipeline.errors import UsageError
from roster_pipeline.profiles import PROFILES, effective_profile


def test_what_the_two_profiles_differ_in() -> None:
    """SPEC 1."""
    typing, twig = PROFILES["typing_agent"], PROFILES["twig_science"]
    assert (typing.nightly_at, twig.nightly_at) == ("21:00", "00:00")
    assert (typing.student_email, twig.student_email) == (False, True)
    assert (typing.student_multi_school, twig.student_multi_school) == (False, True)
    assert (typing.users_csv, twig.users_csv) == (False, True)
    assert twig.login_methods == (*typing.login_methods, "google")
    assert typing.approval_hours == twig.approval_hours == 72


def test_the_brakes_of_the_spec_are_the_defaults() -> None:
    """R7.3."""
    brakes = PROFILES["typing_agent"].brakes
    assert (brakes.role_floor, brakes.role_share) == (10, 0.05)
    assert (brakes.school_floor, brakes.school_share) == (5, 0.20)
    assert (brakes.relink_floor, brakes.relink_share) == (25, 0.10)
    assert (brakes.admin_floor, brakes.admin_share) == (3, 0.50)


@given(st.sampled_from(sorted(PROFILES)), st.integers(0, 10_000), st.booleans())
def test_an_override_changes_its_field_and_nothing_else(name: str, floor: int, flag: bool) -> None:
    """SPEC 2: any profile field, and each brake by itself."""
    changed = effective_profile(name, {"brakes": {"school_floor": floor}, "student_email": flag})
    assert changed.brakes.school_floor == floor
    assert changed.student_email is flag
    restored = changed.model_copy(
        update={"student_email": PROFILES[name].student_email, "brakes": changed.brakes.model_copy(update={"school_floor": 5})}
    )
    assert restored == PROFILES[name]


@pytest.mark.parametrize(
    "settings",
    [
        {"no_such": 1},
        {"brakes": {"role_share": 1.5}},
        {"brakes": {"role_flor": 1}},
        {"brakes": 3},
        {"approval_hours": 0},
        {"login_methods": ["fax"]},
    ],
)
def test_settings_that_are_not_valid_are_refused_without_their_values(settings: dict[str, object]) -> None:
    """SPEC 2: settings are validated on entry; a value could be anything, so it is not repeated."""
    with pytest.raises(UsageError) as refusal:
        effective_profile("typing_agent", settings)
    assert "fax" not in str(refusal.value)
    assert "roster district show" in refusal.value.hint


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    """SPEC 1."""
    with pytest.raises(UsageError, match="twig_science"):
        effective_profile("other", {})
