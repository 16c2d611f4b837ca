"""Schools of the agreement, and schools under new Clever ids: R6.4, R6.5."""

from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.reference.rows import Snapshot
from roster_pipeline_tests.sync.clever import clever, school, section, student, teacher
from roster_pipeline_tests.sync.rows import active, enrolled


def stored_ids(district: LiveDistrict) -> dict[str, str | None]:
    """The Clever id that is kept for each school of the agreement."""
    return {each.name: each.clever_id for each in district.rules().agreed_schools}


def test_a_school_gets_a_new_id(district: LiveDistrict) -> None:
    """R6.5: it stays the same school, with its people, roles, classrooms and imported admins. Deleted or not."""
    rest = [student("p9", "zoe"), teacher("p8")]
    old = [school("s2", "North"), student("p3", "cy", at="s2"), teacher("p4", "dot", at="s2"), section("c2", ["p3"], ["p4"], at="s2")]
    new = [school("s7", "NORTH "), student("p3", "cy", at="s7"), teacher("p4", "dot", at="s7"), section("c2", ["p3"], ["p4"], at="s7")]
    district.sync(clever(*rest, *old))
    before = district.state()
    (s2,) = (each for each, row in before.schools.items() if row.clever_id == "s2")
    district.execute(
        "with made as (insert into app.users (district_id, username, source, protected) values (:district, 'imp', 'csv', true)"
        " returning user_id) insert into app.user_roles (user_id, role, school_id, source) select user_id, 'school_admin', :school, 'csv'"
        " from made",
        school=s2,
    )
    district.sync(clever(*rest, *old))
    before = district.state()
    report = district.sync(clever(*rest, *new))
    assert report.counts["changes"] == {"schools": {"relink": 1}}
    after = district.state()
    assert after.schools[s2].clever_id == "s7"
    assert (after.roles, after.users, after.classrooms) == (before.roles, before.users, before.classrooms)
    district.sync(clever(*rest))
    report = district.sync(clever(*rest, *[{**each, "id": "s2"} if each["id"] == "s7" else each for each in new[:1]], *old[1:]))
    assert report.counts["changes"]["schools"] == {"relink": 1}
    assert district.state().schools[s2].clever_id == "s2"
    assert district.state().schools[s2].deleted_at is None


def test_ambiguous_schools_are_not_relinked(district: LiveDistrict) -> None:
    """R6.5: two new ones of one name, two old ones, a protected one, and a new one outside the agreement."""
    rest = [student("p1", "ann"), teacher("p2")]
    district.sync(clever(*rest, *(school(f"s{each}", name) for each, name in ((2, "A"), (3, "B"), (4, "B"), (5, "C"), (6, "D")))))
    district.execute("update app.schools set protected = true where district_id = :district and clever_id = 's5'")
    district.agree(schools=[("S1", None), ("A", None), ("B", None), ("C", None)])
    new = [school("s12", "A"), school("s13", "A"), school("s14", "B"), school("s15", "C"), school("s16", "D")]
    report = district.sync(clever(*rest, *new))
    assert report.counts["changes"]["schools"] == {"create": 4, "soft_delete": 4}


def test_school_relinks_count_with_those_of_people(district: LiveDistrict) -> None:
    """R6.5, R7.4: one sum; while it is held, the school and its people stay as they are."""
    rest = [student("p9", "zoe", at="s2"), teacher("p8", at="s2"), school("s2")]
    there = [student("p3", "cy", at="s1"), student("p4", "dot", at="s1"), section("c1", ["p3", "p4"])]
    district.sync(clever(school("s1", "North"), *there, *rest))
    district.agree(settings={"brakes": {"relink_floor": 1, "relink_share": 0}})
    moved = [student("p3", "cy", at="s7"), student("p40", "dot", at="s7"), section("c1", ["p3", "p40"], at="s7")]
    snapshot = Snapshot([school("s7", "North"), school("s2")], *(getattr(clever(*moved, *rest), each) for each in ("sections", "users")))
    before = district.state()
    report = district.sync(snapshot)
    assert [(hold.identity[0], hold.status) for hold in district.holds().values()] == [("relinks", "open")]
    assert report.counts["held"][0]["acts"] == 2
    assert district.state() == before
    assert report.counts["changes"] == {}
    district.approve(next(iter(district.holds())))
    district.sync(snapshot)
    after = district.state()
    assert {row.clever_id for row in after.schools.values() if row.deleted_at is None} == {"s7", "s2"}
    assert after.users.keys() == before.users.keys()
    assert enrolled(district, "c1") == {("p3", "student", False), ("p40", "student", False)}


def test_an_agreed_school_may_be_renamed(district: LiveDistrict) -> None:
    """R6.4: the Clever id is kept from the first match by name on. Nobody is deactivated, and no row of the roster is written."""
    district.agree(schools=[("North", None), ("South", None)])
    people = [student("p1", "ann"), student("p3", "cy", at="s2"), teacher("p2")]
    report = district.sync(clever(school("s1", "North"), school("s2", "South"), *people))
    assert stored_ids(district) == {"North": "s1", "South": "s2"}
    assert not [each for each in district.changes(report.sync_id) if each["entity"] == "agreed_schools"]
    report = district.sync(clever(school("s1", "Riverside"), school("s2", "South"), *people))
    assert active(district, "users") == {"p1", "p2", "p3"}
    assert report.counts["changes"] == {"schools": {"update": 1}}


def test_the_agreement_takes_a_clever_id(district: LiveDistrict) -> None:
    """R6.4: in any case; the id is kept, and a school that has it as name is another one."""
    district.agree(schools=[("S2X", 1)])
    schools = [school("s1", "North"), school("s2x", "South"), school("s3", "s2x")]
    report = district.sync(clever(*schools, student("p1", "ann"), student("p3", "cy", at="s2x"), teacher("p2", at="s2x")))
    assert active(district, "schools") == {"s2x"}
    assert stored_ids(district) == {"S2X": "s2x"}
    assert report.counts["audits"]["agreed_school_missing"] == 0


def test_two_schools_of_one_agreed_name_are_both_inside(district: LiveDistrict) -> None:
    """R6.4: no id is kept while there are two. A stored id that is missing: the name counts again."""
    district.agree(schools=[("North", None)])
    people = [student("p1", "ann"), teacher("p2")]
    one, two = school("s1", "North"), school("s2", "north ")
    district.sync(clever(one, two, *people))
    assert active(district, "schools") == {"s1", "s2"}
    assert stored_ids(district) == {"North": None}
    district.sync(clever(one, *people))
    assert stored_ids(district) == {"North": "s1"}
    district.sync(clever(school("s1", "Other"), two, *people))
    assert (active(district, "schools"), stored_ids(district)) == ({"s1"}, {"North": "s1"})
    district.sync(Snapshot([two], [], clever(*people).users))
    assert (active(district, "schools"), stored_ids(district)) == ({"s2"}, {"North": "s2"})


def test_a_quarantined_school_is_not_missing(district: LiveDistrict) -> None:
    """R4.6, R6.4: while the record of an agreed school is broken, its name means no other school."""
    district.agree(schools=[("North", None)])
    people = [student("p1", "ann"), teacher("p2")]
    district.sync(clever(school("s1", "North"), *people))
    report = district.sync(clever(school("s1", " "), school("s2", "North"), *people))
    assert (active(district, "schools"), stored_ids(district)) == ({"s1"}, {"North": "s1"})
    assert report.counts["audits"]["agreed_school_missing"] == 0


def test_what_matches_nothing_is_reported_at_every_sync(district: LiveDistrict) -> None:
    """R6.4: an agreed school and an agreed grade, in every message, also if nothing has changed."""
    district.agree(schools=[("S1", None), ("Nowhere", None), ("Vanished", None)], grades=["3", "4"])
    for _ in range(4):
        report = district.sync(clever(student("p1", "ann"), teacher("p2")))
        assert report.counts["audits"]["agreed_school_missing"] == 2
        assert "2 schools of the agreement match no shared school" in report.message
        assert "1 grade of the agreement matches no student" in report.message
    assert "settled_since" in report.counts
    district.agree(schools=[("S1", None)], grades=["3"])
    assert "match" not in district.sync(clever(student("p1", "ann"), teacher("p2"))).message
