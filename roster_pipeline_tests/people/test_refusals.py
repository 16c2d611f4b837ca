"""What an import refuses, on a real database (R8.1, R8.2)."""

import json
import unicodedata

import pytest
from sqlalchemy import text

from roster_pipeline.database.lock import district_lock
from roster_pipeline.districts.agreement import UnknownDistrictError
from roster_pipeline.errors import PermanentError, SyncRunningError
from roster_pipeline.people.imports import EndedRole
from roster_pipeline.people.invisible import invisible
from roster_pipeline.people.reader import COLUMNS, RowError
from roster_pipeline_tests.people.world import ANN, DISTRICT, DORA, OTHER, SAM, SOUTH, SUE, World, counts, refused, run


def test_schools_that_are_unknown_or_ambiguous(world: World) -> None:
    """R8.2: a school that is not an active school of the district, and a name that several active schools have."""
    world.execute("insert into app.schools (district_id, name, deleted_at) values (:id, 'Closed', now()), (:id, 'south ', null)")
    world.execute("""
        insert into app.schools (district_id, name, clever_id) select district_id, 'Far', 'far' from app.districts where district_id <> :id
    """)
    unknown = "is neither Clever id nor name of an active school of the district"
    assert refused(world, *(f"u{each},F,L,teacher,{each}," for each in ("Closed", "Far", "far", "Nowhere", "South"))) == [
        *((line, "school", unknown) for line in (2, 3, 4, 5)),
        (6, "school", "is the name of several schools: give the Clever id"),
    ]
    assert run(world, f"ann,Ann,Lee,teacher,{SOUTH},").created == 1


def test_rows_with_wrong_values(world: World) -> None:
    """R8.2: every wrong column of every wrong row is reported, by line and column."""
    roles = "must be one of: student, teacher, school_admin, district_admin"
    assert refused(
        world,
        ",Ann,Lee,teacher,North,",
        "b,,Lee,teacher,North,",
        "c,Cy,\x07 ,teacher,North,",
        "d,Dee,Lee,,North,",
        "e,Eve,Lee,Teacher,North,",
        "f,Fay,Lee,account_owner,,",
        "g,Gus,Lee,teacher,,",
        "h,Hal,Lee,district_admin,North,",
        "i,Ian,Lee,teacher,North,ian(at)example.org",
        "j,Jan,Lee,teacher,North,j an@example.org",
        f"{'k' * 256},Kay,Lee,teacher,North,",
        ",,,,,x",
    ) == [
        (2, "username", "is missing"),
        (3, "first_name", "is missing"),
        (4, "last_name", "is missing"),
        (5, "role", "is missing"),
        (6, "role", roles),
        (7, "role", roles),
        (8, "school", "is missing"),
        (9, "school", "must be empty for a district_admin"),
        (10, "email", "is not an e-mail address"),
        (11, "email", "is not an e-mail address"),
        (12, "username", "is longer than 255 characters"),
        (13, "username", "is missing"),
        (13, "first_name", "is missing"),
        (13, "last_name", "is missing"),
        (13, "role", "is missing"),
        (13, "email", "is not an e-mail address"),
    ]  # fmt: skip


NUMBER = "is a number that a spreadsheet has shortened, like 1.2E+11: format the column as text, and enter the value again"
DECIMAL = "is a number to which a spreadsheet has added decimal places: format the column as text, and enter the value again"
DATE = "is a date that a spreadsheet has made of another value, like 1-Mar: format the column as text, and enter the value again"
FORMULA = "begins with =, like a formula of a spreadsheet: enter only the value"
ERROR = "is an error of a spreadsheet, like #N/A: enter the value again"
LOST = "contains a character that was lost when a spreadsheet saved the file: save it as CSV UTF-8"
REWRITTEN = {
    "1.23457E+11": NUMBER, '"1,2E+11"': NUMBER, "1E+05": NUMBER, "1.2e-7": NUMBER, "10234.0": DECIMAL,
    "1-Mar": DATE, "Mar-02": DATE, "01-Mar-2026": DATE, "3/4/2026": DATE, "2026-03-04": DATE, "2026-03-04 00:00:00": DATE,
    '"=""0012"""': FORMULA, "=A1": FORMULA, "#N/A": ERROR, "#NAME?": ERROR, "########": ERROR, "Ren\ufffd": LOST,
}  # fmt: skip


@pytest.mark.parametrize("column", COLUMNS)
def test_values_that_a_spreadsheet_has_rewritten(world: World, column: str) -> None:
    """R8.2: in every column, in words that name the spreadsheet."""
    good = dict(zip(COLUMNS, ("ann", "Ann", "Lee", "teacher", "North", "ann@example.org"), strict=True))
    rows = [",".join((good | {column: value}).values()) for value in REWRITTEN]
    expected = [(line, column, reason) for line, reason in enumerate(REWRITTEN.values(), 2)]
    assert [each for each in refused(world, *rows) if each[1] == column] == expected


def test_values_that_only_look_like_those_of_a_spreadsheet(world: World) -> None:
    """R8.2: usernames that a person could have; a school that has a name like a date."""
    world.execute("insert into app.schools (district_id, name) values (:id, '9/11/2001')")
    good = ["1234567", "3e45", "m-4", "mar-2", "e+1", "1.5", "100.01", "a=b", "no#1", "12/3", "j.e+2"]
    assert run(world, *(f"{name},F,L,teacher,North," for name in good), "last,May,Jan,teacher,9/11/2001,").errors == ()


@pytest.mark.parametrize("column", ["username", "role", "school", "email"])
def test_characters_that_nobody_can_type(world: World, column: str) -> None:
    """R8.2: wherever they are in the value; but names can have them (R4.5)."""
    good = dict(zip(COLUMNS, ("annlee", "A\u200dn", "L\u200be", "teacher", "North", "ann@example.org"), strict=True))
    codes = [0x200B, 0x200D, 0xFEFF, 0x202E, 0xAD, 0xA0, 0x2003, 0x2800, 0x3164, 0xFE0F, 0xE0041, 0xE000, 0x2060]
    rows = [",".join((good | {column: f"{good[column][:3]}{chr(code)}{good[column][3:]}"}).values()) for code in codes]
    errors = refused(world, *rows)
    assert [(line, name) for line, name, reason in errors if "nobody can see or type" in reason] == [
        (line, column) for line, _ in enumerate(codes, 2)
    ]
    assert run(world, ",".join(good.values())).errors == ()


def test_every_invisible_character_is_known(world: World) -> None:
    """R8.2: the list is complete by category, and has no character that people type in names of any script."""
    assigned = [chr(code) for code in range(1, 0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Cc")]
    with world.database.engine.connect() as connection:
        query = text("select each from unnest(cast(:characters as text[])) as each where each ~ :invisible")
        found = set(connection.execute(query, {"characters": assigned, "invisible": invisible()}).scalars())
    assert found >= {each for each in assigned if unicodedata.category(each) in ("Cf", "Co", "Zl", "Zp")}
    assert not [each for each in found if unicodedata.category(each) in ("Lu", "Ll", "Nd", "Pd", "Pc", "Po", "Sc", "Sm")]


def test_a_row_that_is_empty_after_cleaning_is_no_person(world: World) -> None:
    """R8.2, R4.5: the end-of-file mark of DOS, and other characters that cleaning removes."""
    assert counts(run(world, ANN, "\x00,\x07 ,,\x7f,,", "\x1a", strict=True)) == (1, 0, 0, 0)
    assert run(world, SAM + "\x1a").errors == ()


def test_a_username_of_255_characters_is_not_too_long(world: World) -> None:
    """R8.2: not even if each character takes four bytes."""
    assert run(world, f"{'𝒜' * 255},Ann,Lee,teacher,North,").created == 1


def test_rows_of_one_username_that_name_two_people(world: World) -> None:
    """R8.2: the first good row decides. Later rows that differ from it are refused, with an error for each column."""
    report = run(
        world,
        "ann,,Lee,teacher,North,",
        ANN,
        "ANN,Anna,Leigh,teacher,South,ann@example.org",
        "ann,Ann,Lee,teacher,South,",
        "ann,Ann,Lee,school_admin,South,ann@example.org",
    )
    differs = "differs from line 3, which has the same username"
    assert report.errors == (
        RowError(2, "first_name", "is missing"),
        RowError(4, "first_name", differs),
        RowError(4, "last_name", differs),
        RowError(5, "email", differs),
    )
    assert (report.created, report.refused) == (1, 3)
    assert world.user("ann")["roles"] == ["school_admin South csv", "teacher North csv"]


def test_good_rows_are_imported_beside_bad_ones(world: World) -> None:
    """R8.2: rows that cannot be read are reported together with the refused ones."""
    report = run(world, "bad,B,Lee,teacher,Nowhere,", ANN, 'bad,B "x,Lee,"tea"cher,North,', SAM, "bad,B,Lee,teacher,North,,,more")
    assert [(error.line, error.column) for error in report.errors] == [(2, "school"), (4, None), (6, None)]
    assert (report.created, report.refused) == (2, 3)
    assert world.usernames() == ["ann", "sam"]


def test_strict_imports_none_when_one_is_refused(world: World) -> None:
    """R8.2."""
    before = world.everything()
    report = run(world, ANN, "bad,B,Lee,teacher,Nowhere,", strict=True)
    assert (report.is_written, report.refused, counts(report)) == (False, 1, (0, 0, 0, 0))
    assert world.everything() == before
    assert run(world, ANN, strict=True).is_written
    assert world.usernames() == ["ann"]


def test_an_unreadable_row_counts_for_strict_too(world: World) -> None:
    """R8.2."""
    assert not run(world, ANN, 'bad,"B "x,Lee,teacher,North,', strict=True).is_written
    assert world.usernames() == []


@pytest.mark.parametrize(
    "name",
    ["Clara", "ＣＬＡＲＡ", "5F00000000000000000000C1", "5f00000000000000000000c2", "dana", "5f00000000000000000000c3", "stan", "q1"],
)
def test_a_username_of_the_last_snapshot_is_refused(world: World, name: str) -> None:
    """R8.2: usernames and Clever ids of everybody that Clever shares, before they have a user. Admins and quarantined people count too."""
    world.share("5f00000000000000000000c1", "clara")
    world.share("5f00000000000000000000c2", "stan", staff=True)
    world.share("5f00000000000000000000c3", "Dana", district_admin=True)
    world.execute("insert into staging.quarantined (district_id, resource, clever_id) values (:id, 'users', 'Q1'), (:id, 'schools', 'q2')")
    reason = "is the username or Clever id of a person that Clever shares"
    assert refused(world, f"{name},F,L,teacher,North,") == [(2, "username", reason)]


def test_another_districts_snapshot_users_and_schools_do_not_count(world: World) -> None:
    """R8.2: usernames are unique within a district."""
    world.share("c1", "clara")
    world.execute("insert into staging.quarantined (district_id, resource, clever_id) values (:id, 'users', 'c2'), (:id, 'schools', 's2')")
    world.execute("insert into app.users (district_id, username) values (:id, 'ann')")
    rows = [f"{name},F,L,district_admin,," for name in ("clara", "c1", "c2", "ann")]
    assert counts(run(world, *rows, district=OTHER, kind="admins")) == (4, 0, 0, 0)
    assert run(world, "s2,F,L,district_admin,,").errors == ()


@pytest.mark.parametrize("source", ["app", "clever"])
def test_a_username_of_a_user_who_was_not_imported(world: World, source: str) -> None:
    """R8.2: it is refused while that user is active, and free after the user is deleted."""
    world.execute("insert into app.users (district_id, username, source) values (:id, 'Ann ', :source)", source=source)
    assert refused(world, ANN) == [(2, "username", "belongs to a user who was not imported")]
    world.execute("update app.users set deleted_at = now()")
    assert counts(run(world, ANN)) == (1, 0, 0, 0)
    assert world.usernames() == ["Ann ", "ann"]


def test_a_user_that_was_deactivated_on_purpose_is_not_restored(world: World) -> None:
    """R8.3, R8.2."""
    run(world, ANN)
    world.execute("update app.users set deleted_at = now(), do_not_restore = true")
    assert refused(world, ANN) == [(2, "username", "belongs to a user that support has deactivated on purpose")]


def test_an_import_of_admins_refuses_other_roles(world: World) -> None:
    """R8.2: `roster admins import` accepts two roles."""
    roles = "must be one of: school_admin, district_admin"
    report = run(world, SUE, DORA, ANN, SAM, kind="admins")
    assert report.errors == (RowError(4, "role", roles), RowError(5, "role", roles))
    assert world.usernames() == ["dora", "sue"]


def test_users_only_if_the_profile_has_them(world: World) -> None:
    """SPEC 1, R8.2: a field of the profile decides, and a district can override it."""
    world.agree(profile="typing_agent")
    with pytest.raises(PermanentError, match="typing_agent has no users from CSV"):
        run(world, SUE)
    assert run(world, SUE, kind="admins").created == 1
    assert world.user("sue")["login_methods"] == ["password"]
    world.agree(profile="typing_agent", users_csv=True)
    assert run(world, ANN).created == 1


def test_a_district_whose_students_have_one_school_and_no_email(world: World) -> None:
    """R5.8, R3.4: an import refuses what a sync of the district would not write."""
    world.agree(profile="typing_agent", users_csv=True)
    report = run(
        world,
        SAM,
        "sam,Sam,Roe,student,North,",
        "sam,Sam,Roe,teacher,North,",
        "tom,Tom,Roe,student,North,t@x.org",
        "uma,Uma,Roe,teacher,North,u@x.org",
    )
    one = "is not the only one of this student: students of this district have one"
    assert report.errors == (
        RowError(3, "school", one),
        RowError(5, "email", "must be empty: the e-mail of students is not stored in this district"),
    )
    assert counts(run(world, SAM)) == (0, 0, 1, 0)  # The file no longer makes him a teacher.
    moved = run(world, "sam,Sam,Roe,student,North,")
    assert (moved.errors, moved.ended) == ((), (EndedRole(2, "student", "South"),))
    world.execute("update app.user_roles set source = 'app' where deleted_at is null")
    assert refused(world, SAM) == [(2, "school", one)]


def test_a_district_without_agreement_or_unknown(world: World) -> None:
    """R8.2: without a profile, the import does not know how its people sign in."""
    world.execute("insert into app.districts (clever_id, name) values ('d3', 'Requested')")
    with pytest.raises(PermanentError, match="no profile"):
        run(world, SUE, district="d3", kind="admins")
    with pytest.raises(UnknownDistrictError):
        run(world, SUE, district="d4")


def test_no_import_while_the_district_is_locked(world: World) -> None:
    """R11.2: it is refused with exit status 4. Another district's lock does not matter, and a preview takes no lock."""
    with world.database.engine.connect() as connection:
        locking = connection.execution_options(isolation_level="AUTOCOMMIT")
        ids = {row["clever_id"]: row["district_id"] for row in world.rows("select clever_id, district_id from app.districts")}
        with district_lock(locking, ids[DISTRICT], DISTRICT):
            with pytest.raises(SyncRunningError) as raised:
                run(world, ANN)
            assert raised.value.exit_status == 4
            assert run(world, ANN, preview=True).created == 1
            assert run(world, DORA, district=OTHER).created == 1
        assert run(world, ANN).created == 1
        with district_lock(locking, ids[DISTRICT], DISTRICT):
            pass  # the import has released the lock


def test_all_or_nothing_when_the_database_refuses(world: World) -> None:
    """R8.2: people are never written without their roles, and the error contains no value."""
    world.execute("alter table app.user_roles add constraint no_teachers check (role <> 'teacher')")
    before = world.everything()
    with pytest.raises(PermanentError) as raised:
        run(world, SAM, "zmarker,Zmarker,Lee,teacher,North,")
    assert "no_teachers" in str(raised.value)
    assert "marker" not in str(raised.value).lower()
    assert world.everything() == before


def test_nothing_personal_in_logs_and_errors(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """SPEC 12: they have ids, lines and counts only."""
    caplog.set_level("DEBUG")
    world.share("c1", "zmarker1")
    report = run(
        world,
        "zmarker1,Zmarker,Zmarker,teacher,North,z@zmarker.org",
        "zmarker2,Zmarker,Zmarker,zmarker,Zmarker,zmarker",
        'zmarker3,Zmar"ker,"Zmarker"x,teacher,North,',
        "zmarker4,Zmarker,Zmarker,teacher,Zmarker,zmarker",
        "zmarker5,Zmarker,Zmarker,teacher,North,,Zmarker",
        "zmarker6,Zmarker,Zmarker,teacher,North,",
        "zmarker6,Zmarker,Other,teacher,North,",
    )
    assert (report.created, report.refused) == (1, 6)
    assert "marker" not in json.dumps(report.errors).lower()
    assert "import of users" in caplog.text
    assert "marker" not in caplog.text.lower()
