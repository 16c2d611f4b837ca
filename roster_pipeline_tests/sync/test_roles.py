"""People with several roles: R5.8."""

from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, district_admin, school, staff, student, teacher
from roster_pipeline_tests.sync.rows import actions, active, enrolled, new_school, roles, user


def test_several_roles_are_one_user(district: LiveDistrict) -> None:
    """R5.8, R3.8: Clever sends such a person once per role."""
    district.sync(clever(school("s2"), teacher("p1", schools=["s2"], staff=["s1", "s2"], district_admin=True)))
    everywhere = {(role, place) for role in ("teacher", "school_admin") for place in ("s1", "s2")}
    assert roles(district, "p1") == everywhere | {("district_admin", None)}
    assert active(district, "users") == {"p1"}


def test_roles_are_gained_and_lost(district: LiveDistrict) -> None:
    """R5.8: the person stays."""
    district.sync(clever(school("s2"), teacher("p1", staff=["s1"]), staff("p2")))
    report = district.sync(clever(school("s2"), teacher("p1", at="s2"), staff("p2")))
    assert roles(district, "p1") == {("teacher", "s2")}
    assert actions(district, report.sync_id, "user_roles") == ["role_gain", "role_loss", "role_loss"]


def test_roles_of_another_source_are_never_removed(district: LiveDistrict) -> None:
    """R5.8: also if Clever lists the same role for some time."""
    district.sync(clever(school("s2"), teacher("p1")))
    person = user(district, "p1")["user_id"]
    (place,) = district.execute("select school_id from app.schools where district_id = :district and clever_id = 's2'")
    district.execute(
        "insert into app.user_roles (user_id, role, school_id) values (:user, 'teacher', :school)", user=person, school=place["school_id"]
    )
    district.sync(clever(school("s2"), teacher("p1", schools=["s2"])))
    district.sync(clever(school("s2"), teacher("p1")))
    assert roles(district, "p1") == {("teacher", "s1"), ("teacher", "s2")}


def test_people_without_a_role_are_soft_deleted(district: LiveDistrict) -> None:
    """R5.8: no school listed, or none shared."""
    district.sync(clever(staff("p1"), teacher("p2"), student("p3", "ann")))
    district.sync(clever(staff("p1", []), teacher("p2", at="elsewhere"), student("p3", "ann"), staff("p4", [])))
    assert active(district, "users") == {"p3"}


def test_a_role_made_by_hand_does_not_keep_a_user_active(district: LiveDistrict) -> None:
    """R5.8: a user without a role at Clever is soft-deleted. The role made by hand stays."""
    district.sync(clever(teacher("p1"), teacher("p2")))
    person = user(district, "p1")["user_id"]
    district.execute(
        "insert into app.user_roles (user_id, role, school_id) values (:user, 'teacher', :school)", user=person, school=new_school(district)
    )
    district.sync(clever(teacher("p1", at="elsewhere"), teacher("p2")))
    assert active(district, "users") == {"p2"}
    assert roles(district, "p1") == {("teacher", None)}


def test_a_student_has_the_primary_school_only(district: LiveDistrict) -> None:
    """R5.8, SPEC 1: `typing_agent`."""
    district.sync(clever(school("s2"), student("p1", "ann", at="s2", schools=["s1"])))
    assert roles(district, "p1") == {("student", "s2")}


def test_a_student_has_every_shared_school(twig: LiveDistrict) -> None:
    """R5.8, SPEC 1: `twig_science`."""
    twig.sync(clever(school("s2"), student("p1", "ann", at="s2", schools=["s1", "elsewhere"])))
    assert roles(twig, "p1") == {("student", "s1"), ("student", "s2")}


def test_people_change_what_they_are(district: LiveDistrict) -> None:
    """R5.8: a school admin who becomes a district admin is the same user."""
    district.sync(clever(staff("p1"), district_admin("p2")))
    before = user(district, "p1")["user_id"]
    district.sync(clever(district_admin("p1"), district_admin("p2"), staff("p3")))
    assert (user(district, "p1")["user_id"], roles(district, "p1")) == (before, {("district_admin", None)})


def test_emails_are_stored_if_the_profile_says_so(district: LiveDistrict, twig: LiveDistrict) -> None:
    """SPEC 1: `typing_agent` never stores a student's e-mail; a teacher's is stored."""
    for each in (district, twig):
        each.sync(clever(student("p1", "ann", email="p1@x.example"), teacher("p2", email="p2@x.example")))
    assert [user(each, "p1")["email"] for each in (district, twig)] == [None, "p1@x.example"]
    assert [user(each, "p2")["email"] for each in (district, twig)] == ["p2@x.example", "p2@x.example"]
    assert enrolled(district, "c1") == set()


def test_a_student_of_one_school_who_teaches_at_another_has_each_role_at_its_school(district: LiveDistrict) -> None:
    """R5.8: the primary school of one role is not a school of the other."""
    both = student("p1", "ann", at="s1")
    both["roles"]["teacher"] = teacher("p1", at="s2")["roles"]["teacher"]
    district.sync(clever(school("s2"), both))
    assert roles(district, "p1") == {("student", "s1"), ("teacher", "s2")}
