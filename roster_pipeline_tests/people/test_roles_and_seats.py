"""The file decides: which imported roles end, which students get a seat, and what is recorded of it (R8.2, R9.2)."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from roster_pipeline.people.imports import EndedRole, ImportReport
from roster_pipeline_tests.people.world import ANN, DORA, NORTH, SAM, SUE, World, counts, run

HISTORY = """
    select c.entity, c.action, u.username, split_part(c.entity_id, ':', 2) as role, c.before, c.after, c.sync_id, c.audit_id
    from ops.changes c join app.users u using (user_id) order by c.audit_id, c.entity desc, c.action, u.username, role
"""


def history(world: World, since: int = 0) -> list[tuple[Any, ...]]:
    """What imports after this act have written: table, action, username and role."""
    rows = [row for row in world.rows(HISTORY) if row["audit_id"] > since]
    assert all(row["sync_id"] is None for row in rows)
    return [(row["entity"], row["action"], row["username"], row["role"]) for row in rows]


def audits(world: World) -> Sequence[Mapping[str, Any]]:
    return world.rows("select * from ops.audit where act <> 'sync' order by audit_id")


def last_act(world: World) -> int:
    return int(audits(world)[-1]["audit_id"])


def test_what_the_file_no_longer_gives_ends(world: World) -> None:
    """R8.2: a principal moves to another school, and a district admin becomes a school admin. Both are reported; the old rights end."""
    run(world, SUE, DORA, ANN, kind="users")
    before = last_act(world)
    moved, fewer = "sue,Sue,Poe,school_admin,South,", "dora,Dora,Day,school_admin,North,"
    expected = (EndedRole(2, "school_admin", "North"), EndedRole(3, "district_admin", None))
    preview = run(world, moved, fewer, kind="admins", preview=True)
    assert (preview.ended, preview.roles_ended, last_act(world)) == (expected, 2, before)
    assert [(each.roles, each.ends) for each in preview.people] == [
        (["school_admin at South"], ["school_admin at North"]),
        (["school_admin at North"], ["district_admin"]),
    ]
    report = run(world, moved, fewer, kind="admins")
    assert (report.ended, report.roles_ended, counts(report)) == (expected, 2, (0, 0, 2, 0))
    assert world.user("sue")["roles"] == ["school_admin South csv"]
    assert world.user("dora")["roles"] == ["school_admin North csv"]
    assert world.user("ann")["roles"] == ["teacher North csv"]  # She is not in the file.
    assert history(world, before) == [
        ("user_roles", "role_gain", "dora", "school_admin"),
        ("user_roles", "role_gain", "sue", "school_admin"),
        ("user_roles", "role_loss", "dora", "district_admin"),
        ("user_roles", "role_loss", "sue", "school_admin"),
    ]
    again = run(world, moved, fewer, kind="admins")
    assert (again.roles_ended, counts(again)) == (0, (0, 0, 0, 2))
    assert run(world, SUE, kind="admins").ended == (EndedRole(2, "school_admin", "South"),)
    assert world.user("sue")["roles"] == ["school_admin North csv"]  # Given again, it is the same row.


def test_a_file_of_admins_decides_only_about_admins(world: World) -> None:
    """R8.2: it cannot give the role of a teacher, so it does not end one."""
    run(world, ANN, "ann,Ann,Lee,school_admin,North,ann@example.org")
    report = run(world, "ann,Ann,Lee,school_admin,South,ann@example.org", kind="admins")
    assert report.ended == (EndedRole(2, "school_admin", "North"),)
    assert world.user("ann")["roles"] == ["school_admin South csv", "teacher North csv"]


@pytest.mark.parametrize(
    "bad",
    [
        "sue,Sue,Poe,school_admin,Nowhere,",
        "sue,Susan,Poe,school_admin,North,",
        ",Sue,Poe,school_admin,North,",
        "1.2E+11,Sue,Poe,school_admin,North,",
        'sue,"Sue "P" Poe",x,school_admin,North,',
        "sue,Sue,Poe,school_admin,North,,more",
    ],
)
def test_a_row_that_is_refused_ends_no_role(world: World, bad: str) -> None:
    """R8.2: it could be the row that gives the role. A row without a readable username can be anybody's."""
    run(world, SUE)
    report = run(world, "sue,Sue,Poe,school_admin,South,", bad)
    assert (report.roles_ended, report.roles_left, report.ended, report.refused) == (0, 1, (), 1)
    assert world.user("sue")["roles"] == ["school_admin North csv", "school_admin South csv"]
    assert run(world, "sue,Sue,Poe,school_admin,South,", "tim,Tim,Poe,teacher,Nowhere,").roles_ended == 1  # Another person's row.


def test_a_student_who_becomes_a_teacher(world: World) -> None:
    """R8.2: no license and no primary school are left."""
    run(world, SAM)
    assert run(world, "sam,Sam,Roe,teacher,South,").ended == (EndedRole(2, "student", "South"),)
    sam = world.user("sam")
    assert (sam["roles"], sam["license_status"], sam["school"]) == (["teacher South csv"], None, None)


def test_every_written_row_has_one_row_of_history(world: World) -> None:
    """R8.2: with the values before and after, and the act in ops.audit instead of a sync."""
    run(world, ANN, SAM)
    assert history(world) == [
        ("users", "create", "ann", ""),
        ("users", "create", "sam", ""),
        ("user_roles", "role_gain", "ann", "teacher"),
        ("user_roles", "role_gain", "sam", "student"),
    ]
    before = last_act(world)
    run(world, "ann,Anna,Lee,teacher,North,ann@example.org")
    (change,) = [row for row in world.rows(HISTORY) if row["audit_id"] > before]
    assert (change["action"], change["before"], change["after"]) == ("update", {"first_name": "Ann"}, {"first_name": "Anna"})
    world.execute("update app.users set deleted_at = '2026-01-01Z', protected = false where username = 'ann'")
    run(world, "ann,Anna,Lee,teacher,North,ann@example.org")
    change = next(row for row in world.rows(HISTORY) if row["action"] == "restore")
    assert (change["before"]["protected"], change["after"]) == (False, {"protected": True, "deleted_at": None})
    assert change["before"]["deleted_at"].startswith("2026-01-01")


def test_every_import_is_in_the_audit(world: World) -> None:
    """R8.2, R13.2: who, which file and what became of it, without a value of the file. Not a preview, and not a refused strict import."""
    content = "\n".join(("username,first_name,last_name,role,school,email", ANN, "bad,B,L,teacher,Nowhere,")).encode()
    run(world, ANN, "bad,B,L,teacher,Nowhere,", by=" the office ", file_name="people.csv")
    run(world, ANN, "bad,B,L,teacher,Nowhere,", strict=True)
    run(world, ANN, preview=True)
    (act,) = audits(world)
    assert (act["act"], act["given_name"], act["subject"], act["principal"][:3]) == ("import", " the office ", "file people.csv", "os:")
    assert act["facts"] == {
        "kind": "users",
        "sha256": hashlib.sha256(content).hexdigest(),
        "strict": False,
        **dict.fromkeys(("restored", "updated", "unchanged", "roles_ended", "roles_left", "beyond_licenses"), 0),
        "created": 1,
        "refused": 1,
    }
    run(world, ANN)
    assert [each["facts"]["unchanged"] for each in audits(world)] == [0, 1]


def students(*names: str, school: str = "North") -> list[str]:
    return [f"{name},F,L,student,{school}," for name in names]


def seats(world: World) -> dict[str, str | None]:
    return {row["username"]: row["license_status"] for row in world.rows("select username, license_status from app.users order by 1")}


def licenses(world: World, number: int, policy: str) -> None:
    world.execute("update app.districts set licenses = :n, over_license_policy = :policy where district_id = :id", n=number, policy=policy)


def seat_errors(report: ImportReport) -> list[int]:
    assert {(each.column, "beyond the licenses" in each.reason) for each in report.errors} <= {("role", True)}
    return [each.line for each in report.errors]


def test_students_beyond_the_licenses_are_imported_under_warn(world: World) -> None:
    """R9.2: and the report says how many."""
    licenses(world, 1, "warn")
    report = run(world, *students("a", "b", "c"), ANN)
    assert (report.created, report.beyond_licenses, report.errors) == (4, 2, ())
    assert seats(world) == {"a": "licensed", "b": "licensed", "c": "licensed", "ann": None}


def test_students_beyond_the_licenses_wait_under_wait(world: World) -> None:
    """R9.2: in the order of the file. Nobody loses a seat; a later import gives out what is free, to those who wait first."""
    licenses(world, 2, "wait")
    assert run(world, *students("a", "b", "c", "d")).beyond_licenses == 2
    assert seats(world) == {"a": "licensed", "b": "licensed", "c": "waiting", "d": "waiting"}
    before = world.everything()
    assert counts(run(world, *students("new"), *students("d", "c", "b", "a"), preview=True)) == (1, 0, 0, 4)
    assert counts(run(world, *students("d", "c", "b", "a"))) == (0, 0, 0, 4)
    assert world.everything() == before
    licenses(world, 3, "wait")
    run(world, *students("new", "d", "c"))
    assert seats(world) == {"a": "licensed", "b": "licensed", "c": "waiting", "d": "licensed", "new": "waiting"}


def test_students_beyond_the_licenses_are_refused_under_hold(world: World) -> None:
    """R9.2: each row of them, with the reason; everybody else is imported. Those who are students already stay."""
    run(world, *students("old"))
    licenses(world, 2, "hold")
    report = run(world, *students("a", "b", "old", "c"), "b,F,L,teacher,North,", ANN)
    assert (seat_errors(report), report.created, report.refused, report.beyond_licenses) == ([3, 5], 3, 2, 2)
    assert seats(world) == {"old": "licensed", "a": "licensed", "b": None, "ann": None}
    assert not run(world, *students("c"), strict=True).is_written
    licenses(world, 9, "hold")
    assert run(world, *students("c")).errors == ()


def test_a_seat_that_the_file_frees_is_given_out(world: World) -> None:
    """R9.2: in the same import, so that the same file twice changes nothing."""
    run(world, *students("a"))
    licenses(world, 1, "hold")
    rows = ("a,F,L,teacher,North,", *students("b"))
    assert run(world, *rows).errors == ()
    assert seats(world) == {"a": None, "b": "licensed"}
    assert counts(run(world, *rows)) == (0, 0, 0, 2)


def test_a_school_has_licenses_too(world: World) -> None:
    """R9.2: a student needs a seat in the district and one in the primary school. Rostered students have theirs already."""
    world.execute("insert into app.agreed_schools (district_id, name, clever_id, licenses) values (:id, 'N', :north, 2)", north=NORTH)
    world.execute("insert into app.agreed_schools (district_id, name, licenses) values (:id, ' SOUTH', null)")
    world.execute("""
        with shared as (
            insert into app.users (district_id, username, school_id, source, license_status)
            select district_id, 'shared', school_id, 'clever', 'licensed' from app.schools where name = 'North' returning *
        )
        insert into app.user_roles (user_id, role, school_id, source) select user_id, 'student', school_id, 'clever' from shared
    """)
    licenses(world, 4, "hold")
    report = run(world, *students("a", "b"), *students("c", "d", "e", school="South"))
    assert seat_errors(report) == [3, 6]
    assert sorted(seats(world)) == ["a", "c", "d", "shared"]
