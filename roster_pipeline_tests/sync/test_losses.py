"""R7.3, R7.4: the brakes of what is not a deactivation: classrooms, enrollments, names and ways to sign in, and school admins.

Belongs here: each of these brakes at its limit and above it, and what its hold covers. Does not belong here: deactivations
(`test_brakes.py`), approvals (`test_holds.py`), and what a held school keeps (`test_held_schools.py`).
"""

from collections.abc import Mapping

import pytest

from roster_pipeline_tests.reference.driver import NO_BRAKES, LiveDistrict
from roster_pipeline_tests.reference.rows import Record, Snapshot
from roster_pipeline_tests.sync.clever import clever, school, section, staff, student, teacher
from roster_pipeline_tests.sync.rows import active, approve_open, enrolled, roles, user, usernames


def limit(district: LiveDistrict, **limits: float) -> None:
    """Set these limits, and leave every other brake off."""
    district.agree(settings={"brakes": {**NO_BRAKES, **limits}})


def open_holds(district: LiveDistrict) -> list[tuple[str, str | None, int]]:
    """Kind, role and acts of every open hold."""
    rows = district.execute("select * from ops.holds where district_id = :district and status = 'open' order by kind, role")
    return [(row["kind"], row["role"], row["counts"]["acts"]) for row in rows]


def nothing_is_left_to_write(district: LiveDistrict, snapshot: Snapshot) -> None:
    """R7.2, R7.5: a second sync of the same data writes nothing, and opens no second hold."""
    before = open_holds(district)
    assert not list(district.changes(district.sync(snapshot).sync_id))
    assert open_holds(district) == before


def release(district: LiveDistrict, snapshot: Snapshot) -> None:
    """R7.5: an approval releases exactly the held acts, and is used."""
    approve_open(district)
    assert district.sync(snapshot).status == "successful"
    assert {hold.status for hold in district.holds().values()} == {"used"}


# Classrooms ---------------------------------------------------------------------------------------------------------------------

PUPILS = [student(f"p{each}") for each in range(10)]


def classes(*numbers: int) -> list[Record]:
    """A section with one student each; section c0 has none."""
    return [section(f"c{each}", [f"p{each}"] if each else []) for each in numbers]


@pytest.mark.parametrize(
    ("limits", "kept"), [({"classroom_floor": 2, "classroom_share": 0}, 4), ({"classroom_floor": 0, "classroom_share": 0.5}, 3)]
)
@pytest.mark.parametrize("above", [0, 1])
def test_classrooms_brake_at_and_above_its_limit(district: LiveDistrict, limits: Mapping[str, float], kept: int, above: int) -> None:
    """R7.3, R7.4: of six classrooms with members two may go by the floor, three by the share. A held one keeps its members."""
    district.sync(clever(*PUPILS, *classes(0, 1, 2, 3, 4, 5, 6)))
    limit(district, **limits)
    fewer = clever(*PUPILS, *classes(*range(1, kept + 1 - above)))
    assert district.sync(fewer).status == ("held" if above else "successful")
    missing = {f"c{each}" for each in range(kept + 1 - above, 7)}
    assert active(district, "classrooms") & missing == (missing if above else set())
    # A classroom without members takes nothing from anybody.
    assert "c0" not in active(district, "classrooms")
    if above:
        assert open_holds(district) == [("classrooms", None, len(missing))]
        assert enrolled(district, "c6") == {("p6", "student", False)}
        nothing_is_left_to_write(district, fewer)
        release(district, fewer)
        assert not active(district, "classrooms") & missing
        assert not enrolled(district, "c6")


def test_classrooms_whose_term_has_ended_do_not_count(district: LiveDistrict) -> None:
    """R7.3: neither as acts nor in n. The clock is at 2025-12-31 in Los Angeles, though it is 2026 in UTC already: that day is not over."""
    district.sync(clever(*PUPILS, *classes(1, 2, 3, 4, 5, 6)))
    limit(district, classroom_floor=0, classroom_share=0.5)
    district.execute("update app.classrooms set ends_on = '2025-12-30' where district_id = :district and clever_id in ('c1', 'c2')")
    district.execute("update app.classrooms set ends_on = '2025-12-31' where district_id = :district and clever_id in ('c3', 'c4')")
    # Two of the four that count.
    assert district.sync(clever(*PUPILS, *classes(5, 6))).status == "successful"
    assert active(district, "classrooms") == {"c5", "c6"}
    assert district.sync(clever(*PUPILS, *classes(6))).status == "successful"


def test_a_classroom_whose_day_is_not_over_counts(district: LiveDistrict) -> None:
    """R7.3: a term ends with its last day in Los Angeles."""
    district.sync(clever(*PUPILS, *classes(1, 2, 3)))
    limit(district, classroom_floor=0, classroom_share=0)
    district.execute("update app.classrooms set ends_on = '2025-12-31' where district_id = :district")
    district.execute("update app.classrooms set ends_on = '2025-12-30' where district_id = :district and clever_id = 'c1'")
    assert district.sync(clever(*PUPILS, *classes(3))).status == "held"
    assert open_holds(district) == [("classrooms", None, 1)]
    assert active(district, "classrooms") == {"c2", "c3"}


def test_classrooms_of_a_school_that_sections_no_longer_name_are_held(district: LiveDistrict) -> None:
    """R7.3, R7.4: not only a missing section, also one whose school cannot be found."""
    district.sync(clever(*PUPILS, *classes(1, 2, 3)))
    limit(district, classroom_floor=2, classroom_share=0)
    lost = clever(*PUPILS, *(section(f"c{each}", [f"p{each}"], at="nowhere") for each in (1, 2, 3)))
    assert district.sync(lost).status == "held"
    assert active(district, "classrooms") == {"c1", "c2", "c3"}
    assert enrolled(district, "c1") == {("p1", "student", False)}


def test_an_approval_of_classrooms_is_not_used_while_their_school_is_held(district: LiveDistrict) -> None:
    """R7.5: the approval has released nothing yet, so it waits for the other hold."""
    places, there = [school("s1"), school("s2")], [student("p1", at="s2"), student("p2", at="s2")]
    district.sync(clever(*places, *there, student("p3"), section("c1", ["p1"], at="s2"), section("c2", ["p2"], at="s2")))
    limit(district, school_floor=0, school_share=0, classroom_floor=0, classroom_share=0)
    left = clever(school("s1"), student("p3"))
    district.agree(schools=[("S1", None)])
    assert district.sync(left).status == "held"
    assert {kind for kind, _, _ in open_holds(district)} >= {"classrooms", "school_role"}
    (hold,) = (each for each, row in district.holds().items() if row.identity[0] == "classrooms")
    district.approve(hold)
    district.sync(left)
    assert district.holds()[hold].status == "approved"
    assert active(district, "classrooms") == {"c1", "c2"}


# Enrollments --------------------------------------------------------------------------------------------------------------------

IDS = [f"p{each}" for each in range(10)]


@pytest.mark.parametrize(
    ("limits", "stay"), [({"enrollment_floor": 3, "enrollment_share": 0}, 7), ({"enrollment_floor": 0, "enrollment_share": 0.5}, 5)]
)
@pytest.mark.parametrize("above", [0, 1])
def test_enrollments_brake_at_and_above_its_limit(district: LiveDistrict, limits: Mapping[str, float], stay: int, above: int) -> None:
    """R7.3, R7.4: of ten students three may leave the class by the floor, five by the share. The teacher's place is another brake's."""
    people = [*PUPILS, teacher("t1"), teacher("t2")]
    district.sync(clever(*people, section("c1", IDS, ["t1"])))
    limit(district, **limits)
    fewer = clever(*people, section("c1", IDS[: stay - above], ["t2", "t1"]))
    assert district.sync(fewer).status == ("held" if above else "successful")
    students = {each for each, role, _ in enrolled(district, "c1") if role == "student"}
    assert students == set(IDS if above else IDS[:stay])
    # Everything else is applied: the teacher changes.
    assert ("t2", "teacher", True) in enrolled(district, "c1")
    if above:
        assert open_holds(district) == [("enrollments", "student", 10 - stay + 1)]
        held = district.execute("select user_id, held_by from reconcile.held_enrollments where district_id = :district")
        assert [row["held_by"] for row in held] == ["enrollments"] * (10 - stay + 1)
        nothing_is_left_to_write(district, fewer)
        release(district, fewer)
        assert {each for each, role, _ in enrolled(district, "c1") if role == "student"} == set(IDS[: stay - 1])
        assert not district.execute("select from reconcile.held_enrollments where district_id = :district")


def test_enrollments_have_one_hold_for_each_role(district: LiveDistrict) -> None:
    """R7.3: students and teachers are counted apart, each out of its own n."""
    people = [*PUPILS, teacher("t1"), teacher("t2")]
    district.sync(clever(*people, section("c1", IDS, ["t1", "t2"])))
    limit(district, enrollment_floor=0, enrollment_share=0.5)
    assert district.sync(clever(*people, section("c1", IDS[:5]))).status == "held"
    assert open_holds(district) == [("enrollments", "teacher", 2)]
    assert enrolled(district, "c1") == {("t1", "teacher", True), ("t2", "teacher", False), *((each, "student", False) for each in IDS[:5])}


def test_enrollments_of_who_leaves_and_of_classrooms_that_end_are_no_loss_of_this_kind(district: LiveDistrict) -> None:
    """R7.3: person and classroom stay. Those of a student who changes school count."""
    places = [school("s1"), school("s2")]
    people = [student(f"p{each}") for each in range(4)]
    district.sync(clever(*places, *people, section("c1", IDS[:3]), section("c2", ["p3"])))
    limit(district, enrollment_floor=0, enrollment_share=0)
    # p0 leaves the district, and c2 ends.
    assert district.sync(clever(*places, *people[1:], section("c1", ["p1", "p2"]))).status == "successful"
    moved = clever(*places, student("p1", at="s2"), *people[2:], section("c1", ["p1", "p2"]))
    assert district.sync(moved).status == "held"
    assert open_holds(district) == [("enrollments", "student", 1)]
    assert roles(district, "p1") == {("student", "s2")}
    assert enrolled(district, "c1") == {("p1", "student", False), ("p2", "student", False)}


# Names and ways to sign in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "passes"), [({"identity_floor": 2, "identity_share": 0}, 2), ({"identity_floor": 0, "identity_share": 0.3}, 3)]
)
@pytest.mark.parametrize("above", [0, 1])
def test_identities_brake_at_and_above_its_limit(district: LiveDistrict, limits: Mapping[str, float], passes: int, above: int) -> None:
    """R7.3, R7.4: of ten linked users two may lose the username by the floor, three by the share. The rest of a held row follows Clever."""
    people = [student(f"p{each}", f"name{each}", grade="3") for each in range(10)]
    district.sync(clever(*people))
    limit(district, **limits)
    number = passes + above
    withheld = clever(*(student(f"p{each}", None if each < number else f"name{each}", grade="4") for each in range(10)))
    assert district.sync(withheld).status == ("held" if above else "successful")
    held = {f"p{each}" for each in range(number)}
    assert {each: usernames(district)[each] for each in held} == {each: f"name{each[1:]}" if above else each for each in held}
    assert {user(district, each)["grade"] for each in held} == {"4"}
    if above:
        assert open_holds(district) == [("identities", None, number)]
        assert user(district, "p0")["login_methods"] == ["clever", "password"]
        assert district.reasons()["p0"].username_rule == "held"
        nothing_is_left_to_write(district, withheld)
        release(district, withheld)
        assert usernames(district)["p0"] == "p0"
        assert user(district, "p0")["login_methods"] == ["clever"]


@pytest.mark.parametrize(
    ("name", "counts"),
    [("Student Redacted", True), ("Student Li", False), ("Ana Redacted", False), ("ANA LI", False), ("Ana Middle Li", False)],
)
def test_both_names_have_to_change(district: LiveDistrict, name: str, counts: bool) -> None:
    """R7.3: a marriage is none, and a change of case is none: names compare like usernames."""
    district.sync(clever(student("p1", "ann", name="Ana Li")))
    limit(district, identity_floor=0, identity_share=0)
    first, _, last = name.rpartition(" ")
    changed = {**student("p1", "ANN"), "name": {"first": first if counts or first != "Ana Middle" else "Ana", "middle": "M", "last": last}}
    assert district.sync(clever(changed)).status == ("held" if counts else "successful")
    stored = user(district, "p1")
    assert (stored["last_name"], stored["middle_name"]) == (("Li", None) if counts else (last, "M"))


def test_a_setting_that_takes_a_way_to_sign_in_from_everybody_is_held(twig: LiveDistrict) -> None:
    """R7.3: whatever the cause, a setting included."""
    people = clever(student("p1", "ann"), student("p2", "bob"))
    twig.sync(people)
    limit(twig, identity_floor=1, identity_share=0)
    twig.agree(settings={"login_methods": ["clever", "google"]})
    assert twig.sync(people).status == "held"
    assert open_holds(twig) == [("identities", None, 2)]
    assert "password" in user(twig, "p1")["login_methods"]


def test_an_approval_of_lost_usernames_does_not_release_lost_names(district: LiveDistrict) -> None:
    """R7.5: the act says what somebody loses, so that an approval is for what was seen."""
    district.sync(clever(student("p1", "ann"), student("p2", "bob")))
    limit(district, identity_floor=1, identity_share=0)
    assert district.sync(clever(student("p1"), student("p2"))).status == "held"
    approve_open(district)
    assert district.sync(clever(student("p1", "ann", name="X Y"), student("p2", "bob", name="X Y"))).status == "held"
    assert {hold.status for hold in district.holds().values()} == {"superseded", "open"}


def test_a_held_username_is_taken_and_who_was_refused_it_gets_it_when_the_hold_ends(district: LiveDistrict) -> None:
    """R5.5, R7.3, R7.4: the newcomer waits for the name; while it waits and when the hold ends, that is not counted."""
    old = [student("p1", "ann"), student("p2", "bob"), student("p3", "cy")]
    district.sync(clever(*old))
    limit(district, identity_floor=1, identity_share=0)
    renamed = clever(student("p1", "ann2"), student("p2", "bob2"), old[2], student("p4", "ann"), student("p5", "bob"))
    assert district.sync(renamed).status == "held"
    assert usernames(district) == {"p1": "ann", "p2": "bob", "p3": "cy", "p4": "p4", "p5": "p5"}
    assert {district.reasons()[each].username_rule for each in ("p4", "p5")} == {"withheld"}
    assert open_holds(district) == [("identities", None, 2)]
    nothing_is_left_to_write(district, renamed)
    release(district, renamed)
    assert usernames(district) == {"p1": "ann2", "p2": "bob2", "p3": "cy", "p4": "ann", "p5": "bob"}
    assert district.reasons()["p4"].username_rule == "given"


def test_who_waits_for_a_name_of_a_held_person_does_not_trip_the_brake_afterwards(district: LiveDistrict) -> None:
    """R7.4: also where another kind of hold keeps the name."""
    district.sync(clever(student("p1", "ann"), student("p2", "bob"), student("p3", "cy")))
    limit(district, role_floor=1, role_share=0, identity_floor=0, identity_share=0)
    left = clever(student("p3", "cy"), student("p4", "ann", name="X Y"), student("p5", "bob", name="X Y"))
    assert district.sync(left).status == "held"
    assert open_holds(district) == [("district_role", "student", 2)]
    release(district, left)
    assert usernames(district) == {"p3": "cy", "p4": "ann", "p5": "bob"}


def test_a_held_name_that_is_somebodys_clever_id_stays(district: LiveDistrict) -> None:
    """R5.5, R7.4: the newcomer with this Clever id waits, and the sync does not fail."""
    district.sync(clever(student("p1", "p9"), student("p2", "bob")))
    limit(district, identity_floor=0, identity_share=0)
    renamed = clever(student("p1", "ann"), student("p2", "bob"), student("p9", "new"))
    assert district.sync(renamed).status == "held"
    assert usernames(district) == {"p1": "p9", "p2": "bob"}
    release(district, renamed)
    assert usernames(district) == {"p1": "ann", "p2": "bob", "p9": "new"}


# School admins ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "passes"),
    [({"school_admin_floor": 3, "school_admin_share": 0}, 3), ({"school_admin_floor": 0, "school_admin_share": 0.5}, 2)],
)
@pytest.mark.parametrize("above", [0, 1])
def test_school_admins_have_a_limit_of_their_own(district: LiveDistrict, limits: Mapping[str, float], passes: int, above: int) -> None:
    """R7.3, R7.4: beside four school admins. An admin of another school is not new. A held teacher keeps username and roles."""
    places = [school("s1"), school("s2")]
    old = [staff(f"a{each}") for each in range(4)]
    teachers = [f"t{each}" for each in range(passes + above - 1)]
    district.sync(clever(*places, *old, *(teacher(each, f"x{each}") for each in teachers)))
    limit(district, admin_floor=0, admin_share=0, **limits)
    promoted = [teacher(each, f"x{each}", staff=["s1"]) for each in teachers]
    more = clever(*places, staff("a0", ["s1", "s2"]), *old[1:], *promoted, staff("new"))
    assert district.sync(more).status == ("held" if above else "successful")
    assert roles(district, "a0") == {("school_admin", "s1"), ("school_admin", "s2")}
    for each in teachers:
        assert usernames(district)[each] == (f"x{each}" if above else each)
        assert (("school_admin", "s1") in roles(district, each)) is not bool(above)
    # Without another role the person is not created.
    assert ("new" in active(district, "users")) is not bool(above)
    if above:
        assert open_holds(district) == [("new_admins", "school_admin", passes + 1)]
        nothing_is_left_to_write(district, more)
        release(district, more)
        assert roles(district, "new") == {("school_admin", "s1")}


def test_new_admins_of_both_roles_are_two_holds(district: LiveDistrict) -> None:
    """R7.4: a newcomer without any admin role gets the username that Clever gives."""
    district.sync(clever(teacher("t0")))
    limit(district, admin_floor=0, admin_share=0, school_admin_floor=0, school_admin_share=0)
    both = clever(teacher("t0"), teacher("t1", "eva", staff=["s1"], district_admin=True))
    assert district.sync(both).status == "held"
    assert open_holds(district) == [("new_admins", "district_admin", 1), ("new_admins", "school_admin", 1)]
    assert roles(district, "t1") == {("teacher", "s1")}
    assert usernames(district)["t1"] == "eva"


def test_a_newcomer_gets_the_admin_role_that_is_not_held(district: LiveDistrict) -> None:
    """R7.4: and with it the Clever id as username."""
    district.sync(clever(teacher("t0")))
    limit(district, school_admin_floor=0, school_admin_share=0)
    assert district.sync(clever(teacher("t0"), teacher("t1", "eva", staff=["s1"], district_admin=True))).status == "held"
    assert roles(district, "t1") == {("teacher", "s1"), ("district_admin", None)}
    assert usernames(district)["t1"] == "t1"
