"""`roster district set`: one thing of an agreement is changed, and ops.audit says who changed what (SPEC 2, R13.2)."""

from collections.abc import Callable
from typing import Any

import pytest

from roster_pipeline.profiles import Brakes, Profile
from roster_pipeline_tests.commands.conftest import Roster

ID = "5f0000000000000000000001"
Query = Callable[..., list[Any]]


@pytest.fixture
def district(roster: Roster) -> str:
    """A paused district with an agreement."""
    given = ("--licenses", "10", "--grades", "1,2", "--school", "North=4", "--set", "brakes.role_floor=20", "--set", "approval_hours=24")
    assert roster("district", "add", ID, "--name", "Old", "--profile", "typing_agent", "--domain", "d.example", *given).status == 0
    assert roster("district", "pause", ID, "--by", "the office", "--reason", "summer").status == 0
    return ID


def acts(query: Query) -> list[Any]:
    return query("select act, given_name, reason, facts from ops.audit order by audit_id")


def test_only_what_is_named_changes(roster: Roster, district: str, query: Query) -> None:
    """SPEC 2: the status too stays. The audit has the values before and after."""
    changes = ("licenses=300", "name=New Name", "grades=Kindergarten, 1", "start_date=2026-08-15", "brakes.role_share=0.5")
    ended = roster("district", "set", district, *changes, "--by", "ticket 7", "--reason", "contract")
    assert (ended.status, "300" in ended.out) == (0, True)
    columns = "name, domain, status, start_date::text, licenses, over_license_policy, agreed_grades, settings"
    assert query(f"select {columns} from app.districts") == [
        (
            *("New Name", "d.example", "paused", "2026-08-15", 300, "warn", ["Kindergarten", "1"]),
            {"brakes": {"role_floor": 20, "role_share": 0.5}, "approval_hours": 24},
        )
    ]
    assert query("select name, licenses from app.agreed_schools") == [("North", 4)]
    assert acts(query)[-1] == (
        *("district_set", "ticket 7", "contract"),
        {
            "before": {"name": "Old", "licenses": 10, "agreed_grades": ["1", "2"], "start_date": None},
            "after": {
                **{"name": "New Name", "licenses": 300, "agreed_grades": ["Kindergarten", "1"], "start_date": "2026-08-15"},
                "brakes.role_share": 0.5,
            },
        },
    )


def test_a_value_can_be_taken_away(roster: Roster, district: str, query: Query) -> None:
    """SPEC 2: no cap, all grades, the profile's setting again."""
    assert roster("district", "set", district, "licenses=", "grades=", "brakes.role_floor=", "approval_hours=").status == 0
    assert query("select licenses, agreed_grades, settings from app.districts") == [(None, [], {})]
    assert acts(query)[-1][3]["before"] == {"licenses": 10, "agreed_grades": ["1", "2"], "brakes.role_floor": 20, "approval_hours": 24}


def test_the_same_value_again_is_no_act(roster: Roster, district: str, query: Query) -> None:
    before = acts(query)
    ended = roster("district", "set", district, "licenses=10", "--json")
    assert (ended.status, ended.document["changed"]) == (0, {})
    assert acts(query) == before


def test_every_change_of_a_district_is_an_act(roster: Roster, district: str, query: Query) -> None:
    """R13.2: add, pause and resume too. A district that has the status already is left unchanged."""
    assert roster("district", "resume", district, "--by", "the office").status == 0
    assert roster("district", "resume", district, "--by", "the office").status == 0
    assert [row[:3] for row in acts(query)] == [
        ("district_add", None, None),
        ("district_pause", "the office", "summer"),
        ("district_resume", "the office", None),
    ]
    assert acts(query)[1][3] == {"before": {"status": "active"}, "after": {"status": "paused"}}
    assert acts(query)[0][3]["before"] == {}
    assert acts(query)[0][3]["after"]["school North"] == 4


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("licenses=-1", "from 0 to 999,999,999"),
        ("licenses=many", "from 0 to 999,999,999"),
        ("licenses=9999999999", "from 0 to 999,999,999"),
        ("start_date=15.8.2026", "a day like 2026-08-15"),
        ("start_date=9999-12-31", "from 2000-01-01 to"),
        ("start_date=1999-12-31", "from 2000-01-01 to"),
        ("over_license_policy=ignore", "warn, wait, hold"),
        ("grades=1,Twelfth", "Kindergarten"),
        ("profile=other", "typing_agent"),
        ("name= ", "name must not be blank"),
        ("domain=", "example.org"),
        ("approval_hours=1000000000", "from 1 to 8,760"),
        ("approval_hours=0", "from 1 to 8,760"),
        ("requests_per_hour=0", "from 1 to 1,000"),
        ("brakes.role_share=2", "from 0 to 1"),
        ("brakes.role_floor=1000001", "from 0 to 1,000,000"),
        ("brakes=5", "brakes.role_floor=20"),
        ("no_such_setting=1", "no_such_setting"),
        ("licenses", "KEY=VALUE"),
        ("=1", "KEY=VALUE"),
    ],
)
def test_a_value_outside_its_range(roster: Roster, district: str, query: Query, assignment: str, says: str) -> None:
    """SPEC 2: exit status 2, the range in the message, and nothing is changed, not even what is right."""
    before = query("select *, xmin::text from app.districts"), acts(query)
    ended = roster("district", "set", district, "auto_initial=true", assignment, "--json")
    assert ended.status == 2
    assert says in f"{ended.document['error']} {ended.document['hint']}"
    assert (query("select *, xmin::text from app.districts"), acts(query)) == before


@pytest.mark.parametrize(("model", "prefix"), [(Profile, ""), (Brakes, "brakes.")])
def test_every_number_has_a_range(roster: Roster, district: str, model: type[Profile] | type[Brakes], prefix: str) -> None:
    """SPEC 2: so no number can be so large that something later fails."""
    numbers = [name for name, field in model.model_fields.items() if field.annotation in (int, float, int | None)]
    assert len(numbers) > 1
    for name in numbers:
        ended = roster("district", "set", district, f"{prefix}{name}=1000000000", "--json")
        assert (ended.status, "the range is from" in ended.document["error"]) == (2, True), name


def test_settings_that_cannot_be_used_are_corrected(roster: Roster, district: str, query: Query) -> None:
    """SPEC 2: somebody has written them by hand."""
    query("""update app.districts set settings = '{"approval_hours": 0}'""")
    assert roster("district", "show", district).status == 2
    assert roster("district", "set", district, "licenses=5").status == 2
    assert roster("district", "set", district, "approval_hours=48").status == 0
    assert roster("district", "show", district).status == 0


def test_a_district_without_an_agreement(roster: Roster, query: Query) -> None:
    """R11.7: one that a connection has made."""
    query("insert into app.districts (clever_id, name) values ('d9', 'Connected')")
    ended = roster("district", "set", "d9", "licenses=5")
    assert (ended.status, "district add" in ended.err) == (1, True)
    assert roster("district", "set", "d8", "licenses=5").status == 1


def test_a_start_date_at_the_end_of_the_calendar_ends_no_list(roster: Roster, district: str, query: Query) -> None:
    """R11.2: it is refused now, but a row can have it already."""
    query("update app.districts set start_date = '9999-12-31', status = 'active'")
    assert roster("status").status == 0
