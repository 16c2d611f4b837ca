"""`roster district`: what it records, what it refuses, and where each effective setting comes from."""

from collections.abc import Callable
from typing import Any

import pytest

from roster_pipeline.profiles import PROFILES
from roster_pipeline_tests.ended import Ended

from .conftest import Roster

ID = "5f0000000000000000000001"
BASE = ("district", "add", ID, "--name", "Lincoln County", "--profile", "typing_agent", "--domain", "lincoln.example.org")


@pytest.fixture
def add(roster: Roster) -> Callable[..., Ended]:
    return lambda *options: roster(*BASE, *options, "--json")


def test_everything_is_recorded(add: Callable[..., Ended], query: Callable[..., list[Any]]) -> None:
    """SPEC 2: every option of `district add`."""
    ended = add(
        *("--start-date", "2026-08-15", "--licenses", "1200", "--over-license-policy", "wait", "--grades", "Kindergarten, 1,2"),
        *("--school", "Lincoln Elementary=400", "--school", "Roosevelt High", "--auto-initial"),
        *(
            "--set",
            "brakes.role_floor=20",
            "--set",
            "brakes.role_share=0.5",
            "--set",
            "login_methods=clever,password",
            "--set",
            "nightly_at=00:00",
        ),
    )
    assert ended.status == 0
    row = query(
        "select name, profile, domain, status, start_date::text, licenses, over_license_policy, agreed_grades, settings from app.districts"
    )
    assert row == [
        (
            *("Lincoln County", "typing_agent", "lincoln.example.org", "active", "2026-08-15", 1200, "wait", ["Kindergarten", "1", "2"]),
            {
                "auto_initial": True,
                "brakes": {"role_floor": 20, "role_share": 0.5},
                "login_methods": ["clever", "password"],
                "nightly_at": "00:00",
            },
        )
    ]
    assert query("select name, licenses from app.agreed_schools order by 1") == [("Lincoln Elementary", 400), ("Roosevelt High", None)]
    assert ended.document["start_date"] == "2026-08-15"


def test_repeating_changes_nothing_and_updates_the_given_options(add: Callable[..., Ended], query: Callable[..., list[Any]]) -> None:
    """SPEC 2: the second `add` updates; an option that is left out keeps its value."""
    everything = ("--licenses", "10", "--school", "A=1", "--school", "B", "--set", "brakes.role_floor=20")
    first = add(*everything).document
    second = add(*everything).document
    assert {**first, "updated_at": None} == {**second, "updated_at": None}
    add("--set", "brakes.school_floor=7", "--school", "B=3")
    assert query("select licenses, settings from app.districts") == [(10, {"brakes": {"role_floor": 20, "school_floor": 7}})]
    assert query("select name, licenses from app.agreed_schools") == [("B", 3)]
    add("--school", "", "--grades", "")
    assert query("select count(*) from app.agreed_schools") == [(0,)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--grades", "Kindergarten,Twelfth"), "Twelfth"),
        (("--licenses", "-1"), "--licenses"),
        (("--licenses", "99999999999"), "--licenses"),
        (("--over-license-policy", "ignore"), "--over-license-policy"),
        (("--start-date", "15.8.2026"), "--start-date"),
        (("--school", "Lincoln=many"), "number of licenses"),
        (("--school", "Lincoln", "--school", " lincoln"), "--school"),
        (("--set", "approval_hours"), "KEY=VALUE"),
        (("--set", "approval_hours=soon"), "approval_hours"),
        (("--set", "approval_hours=0"), "approval_hours"),
        (("--set", "no_such_setting=1"), "no_such_setting"),
        (("--set", "brakes.no_such_brake=1"), "brakes.no_such_brake"),
        (("--set", "brakes=5"), "brakes.role_floor=20"),
        (("--set", "brakes.role_share=NaN"), "brakes.role_share"),
        (("--set", "login_methods=clever,telepathy"), "login_methods"),
        (("--profile", "no_such_profile"), "--profile"),
        *((("--domain", each), "--domain") for each in (" ", "@", "someone@example.org", "example .org", "example..org", "example.org/a")),
        (("--name", ""), "--name"),
    ],
)
def test_refused(options: tuple[str, ...], says: str, add: Callable[..., Ended], query: Callable[..., list[Any]]) -> None:
    """Wrong usage: exit status 2, a message that names the error, nothing recorded."""
    ended = add(*options)
    assert ended.status == 2
    assert says in ended.document["error"] + ended.document["hint"]
    assert query("select count(*) from app.districts") == [(0,)]


@pytest.mark.parametrize("pasted", ["@example.org", "https://example.org/", "example.org.", " Example.ORG", "http://example.org"])
def test_a_pasted_domain_is_cleaned(pasted: str, add: Callable[..., Ended], query: Callable[..., list[Any]]) -> None:
    """R6.6: where the meaning is plain."""
    assert add("--domain", pasted).document["domain"] == "example.org"
    assert query("select domain from app.districts") == [("example.org",)]


def test_a_domain_of_another_district_is_refused(roster: Roster, add: Callable[..., Ended], query: Callable[..., list[Any]]) -> None:
    """R6.6: compared as at sign-in, also with one that was recorded before it was cleaned; unless it is said that they share it."""
    add()
    query("update app.districts set domain = '@Lincoln.example.org.'")
    other = (
        "district",
        "add",
        "5f0000000000000000000002",
        "--name",
        "Other",
        "--profile",
        "twig_science",
        "--domain",
        "LINCOLN.example.org",
    )
    ended = roster(*other, "--json")
    assert ended.status == 1
    assert ID in ended.document["error"]
    assert "--shared-domain" in ended.document["hint"]
    assert query("select count(*) from app.districts") == [(1,)]
    assert roster(*other, "--shared-domain").status == 0
    assert roster(*other[:-1], "other.example.org").status == 0
    assert add().status == 0  # the same district again


def test_a_school_can_have_an_equals_sign_in_its_name(add: Callable[..., Ended], query: Callable[..., list[Any]]) -> None:
    """R6.4, SPEC 2."""
    add("--school", "A=B=", "--school", "C=D=20", "--school", "5f00000000000000000000aa=3")
    found = query("select name, licenses from app.agreed_schools order by 1")
    assert found == [("5f00000000000000000000aa", 3), ("A=B", None), ("C=D", 20)]
    assert "'A=B='" in add("--school", "A=B").document["hint"]


def test_refused_update_leaves_the_agreement(add: Callable[..., Ended], query: Callable[..., list[Any]]) -> None:
    add("--licenses", "10")
    assert add("--licenses", "20", "--set", "approval_hours=0").status == 2
    assert query("select licenses, settings from app.districts") == [(10, {})]


def test_show_says_where_a_setting_comes_from(add: Callable[..., Ended], roster: Roster) -> None:
    add("--set", "brakes.role_floor=20", "--set", "approval_hours=72")
    settings = roster("district", "show", ID, "--json").document["settings"]
    assert settings["brakes.role_floor"] == {"value": 20, "from": "district"}
    assert settings["brakes.role_share"] == {"value": PROFILES["typing_agent"].brakes.role_share, "from": "profile"}
    assert settings["approval_hours"] == {"value": 72, "from": "district"}  # the profile's value, but recorded for this district
    assert settings["student_email"] == {"value": False, "from": "profile"}
    shown = roster("district", "show", "1")
    assert shown.status == 0
    line = next(line for line in shown.out.splitlines() if "brakes.role_floor" in line)
    assert line.split() == ["brakes.role_floor", "district", "20"]


def test_tables_fit_a_terminal_and_have_no_colour(add: Callable[..., Ended], roster: Roster) -> None:
    add("--school", "A school with a long name that goes on [bold]and on[/bold] until the line is full :smile:=12")
    for command in (("show", ID), ("list",)):
        out = roster("district", *command).out
        assert max(len(line) for line in out.splitlines()) <= 80
        assert "\x1b" not in out
    shown = " ".join(roster("district", "show", ID).out.split())
    assert "[bold]and" in shown  # text, not markup
    assert ":smile:" in shown


def test_pause_and_resume(add: Callable[..., Ended], roster: Roster, query: Callable[..., list[Any]]) -> None:
    """Both can be repeated. A district that is not active or paused can be neither."""
    add()
    for command, status in (("pause", "paused"), ("pause", "paused"), ("resume", "active"), ("resume", "active")):
        assert roster("district", command, ID, "--json").document["status"] == status
        assert query("select status from app.districts") == [(status,)]
    for status in ("requested", "disconnected"):
        query("update app.districts set status = :status", status=status)
        for command in ("pause", "resume"):
            ended = roster("district", command, ID)
            assert ended.status == 1
            assert status in ended.err
        assert query("select status from app.districts") == [(status,)]


def test_adding_makes_a_requested_district_active(add: Callable[..., Ended], roster: Roster, query: Callable[..., list[Any]]) -> None:
    """R11.7: a connection makes a district `requested`, the agreement makes it active. Even before, it can be listed and shown."""
    query("insert into app.districts (clever_id, name) values (:id, 'Connected')", id=ID)
    assert roster("district", "list", "--json").document["districts"][0]["profile"] is None
    assert roster("district", "show", ID, "--json").document["settings"] == {}
    assert roster("district", "show", ID).status == 0
    assert add().document["status"] == "active"


def test_a_new_domain_is_checked_too(roster: Roster, add: Callable[..., Ended], query: Callable[..., list[Any]]) -> None:
    """R6.6: `district set` cleans a domain, and refuses another district's, as `district add` does."""
    add()
    other = "5f0000000000000000000002"
    assert roster("district", "add", other, "--name", "Other", "--profile", "twig_science", "--domain", "other.example.org").status == 0
    assert roster("district", "set", other, "domain=LINCOLN.example.org").status == 1
    assert roster("district", "set", other, "domain=a b").status == 2
    assert roster("district", "set", other, "domain=@New.example.org").status == 0
    assert query("select domain from app.districts order by 1") == [("lincoln.example.org",), ("new.example.org",)]


def test_a_recreated_district_gets_its_new_id(roster: Roster, add: Callable[..., Ended], query: Callable[..., list[Any]]) -> None:
    """R6.5, R13.1: `district rekey`, which needs to know who says so."""
    add()
    new = "5f0000000000000000000009"
    assert roster("district", "rekey", ID, new).status == 2
    assert roster("district", "rekey", ID, new, "--by", " ").status == 2
    ended = roster("district", "rekey", ID, new, "--by", "ticket 7", "--json")
    assert ended.status == 0
    assert (ended.document["before"], ended.document["district"]) == (ID, new)
    assert query("select clever_id, rekeyed_from, status from app.districts") == [(new, ID, "active")]
    assert query("select given_name from ops.audit where act = 'rekey'") == [("ticket 7",)]
    assert roster("district", "rekey", new, new, "--by", "ticket 7").status == 1
