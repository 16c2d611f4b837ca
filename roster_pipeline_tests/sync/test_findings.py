"""`ops.findings`: the records behind the counts of the audits (R4.3).

Does not belong here: findings after an incremental plan (`test_incremental.py`), and after random histories (`reference/test_model.py`).
"""

from collections.abc import Mapping
from typing import Any

from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, school, section, student, teacher
from roster_pipeline_tests.sync.rows import new_user

SNAPSHOT = clever(
    section("c1", ["p1", "ghost"], ["p2"]),
    section("c2", ["ghost"], ["p2"]),
    section("c3", ["p1"], []),
    student("p1", "ann"),
    teacher("p2", "eva"),
    student("p3"),
)
FOUND = [
    ("enrollment_unknown_person", "enrollments", "ghost"),
    ("enrollment_unknown_person", "enrollments", "ghost"),
    ("section_without_teacher", "sections", "c3"),
    ("student_in_several_classrooms", "users", "p1"),
    ("username_missing", "users", "p3"),
]


def versions(district: LiveDistrict) -> dict[Any, Any]:
    """The version of each stored row."""
    rows = district.execute("select rule, clever_id, xmin::text as version from ops.finding_records where district_id = :district")
    return {(row["rule"], row["clever_id"]): row["version"] for row in rows}


def found_of(counts: Mapping[str, int]) -> dict[str, int]:
    return {rule: number for rule, number in counts.items() if number}


def test_each_count_is_a_list(district: LiveDistrict) -> None:
    """R4.3: as many rows as the count says, also of one person in two sections. What is no longer wrong is not listed."""
    report = district.sync(SNAPSHOT)
    assert district.findings() == FOUND
    assert found_of(report.counts["audits"]) == {
        "enrollment_unknown_person": 2,
        "section_without_teacher": 1,
        "student_in_several_classrooms": 1,
        "username_missing": 1,
    }
    after = clever(section("c1", ["p1", "ghost"], ["p2"]), student("p1", "ann"), teacher("p2", "eva"), student("p3", "cy"))
    assert found_of(district.sync(after).counts["audits"]) == {"enrollment_unknown_person": 1}
    assert district.findings() == [("enrollment_unknown_person", "enrollments", "ghost")]


def test_only_differences_are_written(district: LiveDistrict) -> None:
    """R4.3: the findings are those of the last applied sync, also if it repeats the result of the one before."""
    district.sync(SNAPSHOT)
    before = versions(district)
    district.forget()
    full, repeated = district.sync(SNAPSHOT), district.sync(SNAPSHOT)
    assert ("settled_since" in full.counts, "settled_since" in repeated.counts) == (False, True)
    assert versions(district) == before
    assert {row["sync_id"] for row in district.execute("select sync_id from ops.findings")} == {repeated.sync_id}
    district.sync(clever(*SNAPSHOT.schools, *SNAPSHOT.sections, *SNAPSHOT.users, student("p4")))
    assert versions(district).items() > before.items()
    assert versions(district).keys() - before.keys() == {("username_missing", "p4")}


def test_other_districts_and_dry_runs_change_nothing(district: LiveDistrict) -> None:
    """R4.3: a plan writes no findings, and each district has its own."""
    district.sync(SNAPSHOT)
    other = LiveDistrict.sign_up(district.database)
    other.sync(clever(student("p1")))
    twice = "clever_id_in_two_districts"
    assert other.findings() == [(twice, "schools", "s1"), (twice, "users", "p1"), ("username_missing", "users", "p1")]
    district.plan(clever(school("s1")))
    assert district.findings() == FOUND


def test_a_first_sync_that_waits_has_findings(district: LiveDistrict) -> None:
    """R7.6: nothing is accepted, but the person who decides can ask what the counts are about."""
    new_user(district, "by hand")
    district.agree(settings={"auto_initial": False})
    assert district.sync(SNAPSHOT).status == "held"
    assert district.findings() == FOUND
