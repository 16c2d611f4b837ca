"""Profiles are data. Every field can be overridden (SPEC 1, 2), and a third profile needs only its object."""

import json
import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import roster_pipeline
from roster_pipeline.brake_kinds import KINDS
from roster_pipeline.database.engine import Database
from roster_pipeline.database.models import SQL
from roster_pipeline.districts.agreement import all_districts
from roster_pipeline.districts.nights import PACIFIC, due_districts, night_ends_at, scheduled_at
from roster_pipeline.errors import UsageError
from roster_pipeline.profiles import PROFILES, Profile, effective_profile, nightly_times
from roster_pipeline.sandbox import Sandbox, SandboxServer, generate_district
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, student

# A time at night that no profile has.
FREE_TIME = next(at for at in (f"23:{minute:02}" for minute in range(60)) if at not in nightly_times())


def test_the_differences_of_the_two_profiles() -> None:
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
    limits = {"role": (10, 0.05), "school": (5, 0.20), "relink": (25, 0.10), "admin": (3, 0.50), "school_admin": (10, 0.50)}
    limits |= {"classroom": (20, 0.30), "enrollment": (100, 0.30), "identity": (25, 0.10)}
    expected = {f"{name}_{part}": value for name, pair in limits.items() for part, value in zip(("floor", "share"), pair, strict=True)}
    for profile in PROFILES.values():
        assert profile.brakes.model_dump() == expected


@given(st.sampled_from(sorted(PROFILES)), st.integers(0, 10_000), st.booleans())
def test_an_override_changes_only_its_field(name: str, floor: int, flag: bool) -> None:
    """SPEC 2: any field of a profile can be overridden, and each limit of a brake separately."""
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
        {"nightly_at": "9 pm"},
        {"nightly_at": FREE_TIME},  # No profile has this time, so no schedule would start these syncs.
    ],
)
def test_settings_that_are_not_valid_are_refused_without_their_values(settings: dict[str, object]) -> None:
    """SPEC 2: settings are validated when they are recorded. The message does not repeat a value, because it could be anything."""
    with pytest.raises(UsageError) as refusal:
        effective_profile("typing_agent", settings)
    assert not any(value in str(refusal.value) for value in ("fax", "9 pm", FREE_TIME))
    assert "roster district show" in refusal.value.hint


def test_no_code_asks_which_profile_a_district_has() -> None:
    """SPEC 1: it asks for the field that matters. Only the demo names a profile, for the district that it makes up."""
    package = Path(roster_pipeline.__file__).parent
    for file in [*package.rglob("*.py"), *SQL.rglob("*.sql")]:
        if file.name not in ("profiles.py", "demo.py") and "migrations" not in file.parts:
            text = file.read_text(encoding="utf-8")
            assert not re.search("|".join(rf"['\"]{name}['\"]" for name in PROFILES), text), file.name
            assert not (file.suffix == ".sql" and re.search(r"\bprofile\b", re.sub(r"--.*", "", text))), file.name


def test_every_field_of_a_profile_is_read() -> None:
    """A field that nothing reads would be a setting without effect."""
    package = Path(roster_pipeline.__file__).parent
    code = " ".join(file.read_text(encoding="utf-8") for file in package.rglob("*.py") if file.name != "profiles.py")
    waivers = {kind.waived_by for kind in KINDS.values()}
    assert [name for name in Profile.model_fields if name not in waivers and not re.search(rf"\.{name}\b", code)] == []


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    """SPEC 1."""
    with pytest.raises(UsageError, match="twig_science"):
        effective_profile("other", {})


@pytest.mark.parametrize("nightly_at", ["", "9pm", "21", "24:00", "21:60", "06:00", "11:59", "01:00", "02:59"])
def test_a_nightly_time_that_is_not_at_night_or_that_a_clock_change_skips_is_refused(nightly_at: str) -> None:
    """R11.1: a time must occur once in every local day, also on the two days on which the clock changes."""
    with pytest.raises(ValidationError, match="nightly_at"):
        Profile.model_validate({**PROFILES["typing_agent"].model_dump(), "nightly_at": nightly_at})


@pytest.mark.parametrize("nightly_at", ["12:00", "22:30", "00:59", "03:00", "05:59"])
@pytest.mark.parametrize("day", [date(2026, 11, 1), date(2027, 3, 14), date(2027, 1, 1)])
def test_a_nightly_time_is_within_its_night(nightly_at: str, day: date) -> None:
    """R3.7: the night must not end at this time, because newer data are synced later in the same night."""
    profile = Profile.model_validate({**PROFILES["typing_agent"].model_dump(), "nightly_at": nightly_at})
    moment = scheduled_at(profile.nightly_at, day)
    assert f"{moment.astimezone(PACIFIC):%H:%M}" == nightly_at
    assert moment < night_ends_at(moment)


def test_a_third_profile_is_one_object(database: Database, tmp_path: Path) -> None:
    """SPEC 1: a new profile needs no migration and no second list. `third_profile.py` adds one with its own nightly time to `PROFILES`. Its
    district can be recorded, is due only at that time, has two schedules, one of which starts its run, and syncs.
    """
    district = generate_district(7, 20)
    sandbox = Sandbox(district)
    with SandboxServer(sandbox) as server:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "ROSTER_HOME": str(tmp_path),
            "ROSTER_DATABASE_URL": database.url.render_as_string(hide_password=False),
            "CLEVER_API_URL": server.url,
            "CLEVER_AUTH_URL": server.url,
            "CLEVER_CLIENT_ID": sandbox.client_id,
            "CLEVER_CLIENT_SECRET": sandbox.client_secret,
        }
        command = [sys.executable, "-P", "-m", "roster_pipeline_tests.third_profile", district.id]
        ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == {
        "added": 0,
        "due": {**{at: [] for at in nightly_times()}, "22:57": [district.id]},
        "schedules": {"nightly_10_57pm_pt": "57 22 * * *", "nightly_10_57pm_pt_shards": "57 22 * * *"},
        "tick": [district.id],
        "synced": 0,
    }
    with database.engine.connect() as connection:
        query = "select profile, (select count(*) > 20 from app.users where clever_id is not null) from app.districts"
        assert connection.exec_driver_sql(query).all() == [("third_vendor", True)]


def test_an_unknown_profile_affects_only_its_district(database: Database) -> None:
    """SPEC 1, R11.2: a name written by hand, or of a removed profile. The district's sync fails and says so. Others are due as before."""
    lost, other = LiveDistrict.sign_up(database), LiveDistrict.sign_up(database)
    lost.execute("update app.districts set profile = 'no_such' where district_id = :district")
    with database.engine.connect() as connection:
        due = [each.clever_id for each in due_districts(connection, scheduled_at(nightly_times()[0], date(2026, 11, 1)))]
        assert [each.rules is None for each in all_districts(connection)] == [True, False]
    assert due == [lost.clever_id, other.clever_id]
    with pytest.raises(UsageError, match="There is no profile 'no_such'") as refusal:
        lost.sync(clever(student("p1", "ann")))
    assert "typing_agent" in refusal.value.hint
    with database.engine.connect() as connection:
        (row,) = connection.exec_driver_sql("select status, message from ops.syncs").all()
    assert row.status == "failed"
    assert "There is no profile 'no_such'" in row.message
    assert other.sync(clever(student("p1", "ann"))).status == "successful"
