"""What an import refuses and what it writes, on a real database (R8.1, R8.2)."""

import io
import json
import tracemalloc
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from sqlalchemy import text

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.districts.agreement import Agreement, UnknownDistrictError, record_agreement
from roster_pipeline.errors import PermanentError, SyncRunningError
from roster_pipeline.people.imports import PREVIEW_PEOPLE, ImportReport, Kind, PlannedPerson, import_people
from roster_pipeline.people.reader import RowError
from roster_pipeline.settings import Settings

SETTINGS = Settings(_env_file=None)
DISTRICT = "5f00000000000000000000d1"
OTHER = "5f00000000000000000000d2"
NORTH = "5f0000000000000000000051"
SOUTH = "5f0000000000000000000052"
TABLES = ("districts", "schools", "users", "user_roles", "classrooms", "enrollments")
READABLE = """
    select
        username, first_name, last_name, email, s.name as school, u.source, u.protected, license_status, login_methods,
        u.deleted_at is null as is_active,
        array(
            select concat_ws(' ', r.role, rs.name, r.source) from app.user_roles r left join app.schools rs using (school_id)
            where r.user_id = u.user_id and r.deleted_at is null order by 1
        ) as roles
    from app.users u left join app.schools s using (school_id) order by u.user_id
"""


class World:
    """Two districts, the first with the schools North and South."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.agree()
        self.agree(OTHER)
        for clever_id, name in ((NORTH, "North"), (SOUTH, "South")):
            self.execute(
                "insert into app.schools (district_id, clever_id, name, source) values (:id, :clever_id, :name, 'clever')",
                clever_id=clever_id,
                name=name,
            )

    def agree(self, district: str = DISTRICT, profile: str = "twig_science", **settings: object) -> None:
        with self.database.engine.begin() as connection:
            record_agreement(connection, Agreement(district, "District", profile, "d.example", settings=settings))

    def execute(self, statement: str, **parameters: Any) -> None:
        """Write by hand; `:id` is the first district."""
        with self.database.engine.begin() as connection:
            own = connection.execute(text("select district_id from app.districts where clever_id = :d"), {"d": DISTRICT}).scalar_one()
            connection.execute(text(statement), {"id": own} | parameters)

    def rows(self, query: str) -> list[Mapping[str, Any]]:
        with self.database.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(query)).mappings()]

    def user(self, username: str) -> Mapping[str, Any]:
        (user,) = [row for row in self.rows(READABLE) if row["username"] == username]
        return user

    def usernames(self) -> list[str]:
        return [row["username"] for row in self.rows('select username from app.users order by username collate "C"')]

    def everything(self) -> dict[str, list[Mapping[str, Any]]]:
        """Every row of `app` with its version, and the story of syncs."""
        tables = [f"app.{table}" for table in TABLES] + ["ops.changes", "ops.syncs"]
        return {table: self.rows(f"select *, xmin::text, ctid::text from {table} order by ctid") for table in tables}

    def share(self, clever_id: str, username: str | None = None, *, staff: bool = False, district_admin: bool = False) -> None:
        """Put a person into the last accepted snapshot."""
        self.execute(
            "insert into staging.users (district_id, clever_id, first_name, last_name, username, staff_schools, is_district_admin)"
            " values (:id, :clever_id, 'F', 'L', :username, :staff, :admin)",
            clever_id=clever_id,
            username=username,
            staff=[NORTH] if staff else None,
            admin=district_admin,
        )


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


def run(world: World, *rows: str, kind: Kind = "users", district: str = DISTRICT, **how: bool) -> ImportReport:
    lines = ("username,first_name,last_name,role,school,email", *rows)
    return import_people(world.database, SETTINGS, district, io.BytesIO("\n".join(lines).encode()), kind, **how)


def people(report: ImportReport) -> tuple[int, int, int, int]:
    return report.created, report.restored, report.updated, report.unchanged


def refused(world: World, *rows: str, **how: Any) -> list[tuple[int, str | None, str]]:
    """The errors of rows that are all refused."""
    before = world.everything()
    report = run(world, *rows, **how)
    assert people(report) == (0, 0, 0, 0)
    assert world.everything() == before
    return [(error.line, error.column, error.reason) for error in report.errors]


ANN = "ann,Ann,Lee,teacher,North,ann@example.org"
SAM = "sam,Sam,Roe,student,South,"
DORA = "dora,Dora,Day,district_admin,,"
SUE = "sue,Sue,Poe,school_admin,North,"


def test_people_of_every_role(world: World) -> None:
    """R8.1, R8.2, R5.9: source, protection, sign-in, licence and schools of imported people."""
    report = run(world, ANN, SAM, DORA, SUE)
    assert people(report) == (4, 0, 0, 0)
    assert (report.is_written, report.refused, report.errors) == (True, 0, ())
    common = {"source": "csv", "protected": True, "is_active": True}
    assert [dict(row) for row in world.rows(READABLE)] == [
        common | row
        for row in (
            {
                "username": "ann", "first_name": "Ann", "last_name": "Lee", "email": "ann@example.org", "school": None,
                "license_status": None, "login_methods": ["password", "google"], "roles": ["teacher North csv"],
            },
            {
                "username": "sam", "first_name": "Sam", "last_name": "Roe", "email": None, "school": "South",
                "license_status": "licensed", "login_methods": ["password"], "roles": ["student South csv"],
            },
            {
                "username": "dora", "first_name": "Dora", "last_name": "Day", "email": None, "school": None,
                "license_status": None, "login_methods": ["password"], "roles": ["district_admin csv"],
            },
            {
                "username": "sue", "first_name": "Sue", "last_name": "Poe", "email": None, "school": None,
                "license_status": None, "login_methods": ["password"], "roles": ["school_admin North csv"],
            },
        )
    ]  # fmt: skip


def test_the_same_file_twice_changes_nothing(world: World) -> None:
    """R8.2."""
    rows = (ANN, SAM, DORA, SUE, "ann,Ann,Lee,school_admin,South,ann@example.org")
    run(world, *rows)
    before = world.everything()
    assert people(run(world, *rows)) == (0, 0, 0, 4)
    assert world.everything() == before
    assert before["ops.changes"] == before["ops.syncs"] == []


def test_the_file_decides_about_whom_it_names_and_nobody_else(world: World) -> None:
    """R8.2: differences are written, in the columns and rows concerned; whoever is not named stays."""
    run(world, ANN, SAM, SUE)
    before = {row["username"]: row for row in world.everything()["app.users"]}
    report = run(world, "ANN,Anna,Lee,teacher,North,", SAM, "sam,Sam,Roe,student,North,")
    assert people(report) == (0, 0, 2, 0)
    after = {row["username"]: row for row in world.everything()["app.users"]}
    ann = world.user("ANN")
    assert (ann["first_name"], ann["email"], ann["login_methods"]) == ("Anna", None, ["password"])
    assert after["ANN"]["user_id"] == before["ann"]["user_id"]
    # A role more is an update of the person, though not of the row.
    assert after["sam"] == before["sam"]
    assert world.user("sam")["roles"] == ["student North csv", "student South csv"]
    assert after["sue"] == before["sue"]


def test_several_rows_are_several_roles(world: World) -> None:
    """R8.2: one person, however the username is spelled; a repeated row is one role; the first student row gives the primary school."""
    report = run(
        world,
        "Max,Max,Roe,teacher,North,m@x.org",
        "MAX,Max,Roe,student,South,m@x.org",
        "max,Max,Roe,student,North,m@x.org",
        "max,Max,Roe,student,North,m@x.org",
        "max,Max,Roe,district_admin,,m@x.org",
    )
    assert people(report) == (1, 0, 0, 0)
    max_ = world.user("Max")
    assert max_["roles"] == ["district_admin csv", "student North csv", "student South csv", "teacher North csv"]
    assert (max_["school"], max_["license_status"]) == ("South", "licensed")


def test_text_is_cleaned_as_every_text_is(world: World) -> None:
    """R4.5: trimmed, NFC, line breaks to spaces, control characters gone; everything else a name holds stays."""
    run(world, '" zoe\u00a0","Zoe\u0308\r\nAnne",O\u2019Brien\x07 \u202ex,teacher,"  north ",')
    user = world.user("zoe")
    assert (user["first_name"], user["last_name"], user["roles"]) == ("Zoë Anne", "O\u2019Brien \u202ex", ["teacher North csv"])


@pytest.mark.parametrize("school", [SOUTH, "South", " SOUTH ", "ＳＯＵＴＨ"])
def test_a_school_by_clever_id_or_name(world: World, school: str) -> None:
    """R8.2: names compare as usernames do."""
    assert run(world, f"ann,Ann,Lee,teacher,{school},").errors == ()
    assert world.user("ann")["roles"] == ["teacher South csv"]


def test_a_clever_id_goes_before_a_name(world: World) -> None:
    """R8.2: a school that is called by another's Clever id does not make it ambiguous."""
    world.execute("insert into app.schools (district_id, name) values (:id, :name)", name=NORTH)
    assert run(world, f"ann,Ann,Lee,teacher,{NORTH},").errors == ()
    assert world.user("ann")["roles"] == ["teacher North csv"]


def test_schools_that_are_not_the_districts_or_not_active_or_not_one(world: World) -> None:
    """R8.2: an unknown school, and a name that several active schools have."""
    world.execute("insert into app.schools (district_id, name, deleted_at) values (:id, 'Gone', now()), (:id, 'south ', null)")
    world.execute("""
        insert into app.schools (district_id, name, clever_id) select district_id, 'Far', 'far' from app.districts where district_id <> :id
    """)
    unknown = "is neither Clever id nor name of an active school of the district"
    assert refused(world, *(f"u{each},F,L,teacher,{each}," for each in ("Gone", "Far", "far", "Nowhere", "South"))) == [
        *((line, "school", unknown) for line in (2, 3, 4, 5)),
        (6, "school", "is the name of several schools: give the Clever id"),
    ]
    assert run(world, f"ann,Ann,Lee,teacher,{SOUTH},").created == 1


def test_rows_that_are_wrong_alone(world: World) -> None:
    """R8.2: every wrong column of every wrong row, by line and column."""
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


def test_a_username_of_255_characters_is_not_too_long(world: World) -> None:
    """R8.2: also where each takes four bytes."""
    assert run(world, f"{'𝒜' * 255},Ann,Lee,teacher,North,").created == 1


def test_rows_of_one_username_that_name_two_people(world: World) -> None:
    """R8.2: the first good row decides, and what differs from it is refused, column by column."""
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
    """R8.2: rows that cannot be read are reported among those that are refused."""
    report = run(world, "bad,B,Lee,teacher,Nowhere,", ANN, 'bad,B "x,Lee,"tea"cher,North,', SAM, "bad,B,Lee,teacher,North,,,more")
    assert [(error.line, error.column) for error in report.errors] == [(2, "school"), (4, None), (6, None)]
    assert (report.created, report.refused) == (2, 3)
    assert world.usernames() == ["ann", "sam"]


def test_strict_imports_none_when_one_is_refused(world: World) -> None:
    """R8.2."""
    before = world.everything()
    report = run(world, ANN, "bad,B,Lee,teacher,Nowhere,", strict=True)
    assert (report.is_written, report.refused, people(report)) == (False, 1, (0, 0, 0, 0))
    assert world.everything() == before
    assert run(world, ANN, strict=True).is_written
    assert world.usernames() == ["ann"]


def test_an_unreadable_row_counts_for_strict_too(world: World) -> None:
    """R8.2."""
    assert not run(world, ANN, 'bad,"B "x,Lee,teacher,North,', strict=True).is_written
    assert world.usernames() == []


def test_preview_writes_nothing_and_says_what_would_happen(world: World) -> None:
    """R8.2."""
    run(world, ANN, SAM)
    before = world.everything()
    report = run(
        world, SUE, "ann,Anna,Lee,teacher,North,", "sam,Sam,Roe,student,North,", DORA, "bad,B,L,teacher,Nowhere,", SAM, preview=True
    )
    assert world.everything() == before
    assert (report.is_written, people(report), report.refused) == (False, (2, 0, 2, 0), 1)
    assert report.people == (
        PlannedPerson(2, "create", "sue", "Sue", "Poe", [], ["school_admin at North"]),
        PlannedPerson(3, "update", "ann", "Anna", "Lee", ["first_name", "email", "login_methods"], ["teacher at North"]),
        PlannedPerson(4, "update", "sam", "Sam", "Roe", ["school_id"], ["student at North", "student at South"]),
        PlannedPerson(5, "create", "dora", "Dora", "Day", [], ["district_admin"]),
    )


def test_a_strict_preview_of_a_file_with_an_error_is_empty(world: World) -> None:
    """R8.2: because the import would write nobody."""
    report = run(world, ANN, "bad,B,Lee,teacher,Nowhere,", strict=True, preview=True)
    assert (people(report), report.people, report.refused) == ((0, 0, 0, 0), (), 1)


@pytest.mark.parametrize(
    "name",
    ["Clara", "ＣＬＡＲＡ", "5F00000000000000000000C1", "5f00000000000000000000c2", "dana", "5f00000000000000000000c3", "stan", "q1"],
)
def test_a_username_of_the_last_snapshot_is_refused(world: World, name: str) -> None:
    """R8.2: usernames and Clever ids of everybody Clever shares, admins and quarantined people included; they have no user yet."""
    world.share("5f00000000000000000000c1", "clara")
    world.share("5f00000000000000000000c2", "stan", staff=True)
    world.share("5f00000000000000000000c3", "Dana", district_admin=True)
    world.execute("insert into staging.quarantined (district_id, resource, clever_id) values (:id, 'users', 'Q1'), (:id, 'schools', 'q2')")
    reason = "is the username or Clever id of a person whom Clever shares"
    assert refused(world, f"{name},F,L,teacher,North,") == [(2, "username", reason)]


def test_another_districts_snapshot_users_and_schools_do_not_count(world: World) -> None:
    """R8.2: usernames are unique within a district."""
    world.share("c1", "clara")
    world.execute("insert into staging.quarantined (district_id, resource, clever_id) values (:id, 'users', 'c2'), (:id, 'schools', 's2')")
    world.execute("insert into app.users (district_id, username) values (:id, 'ann')")
    rows = [f"{name},F,L,district_admin,," for name in ("clara", "c1", "c2", "ann")]
    assert people(run(world, *rows, district=OTHER, kind="admins")) == (4, 0, 0, 0)
    assert run(world, "s2,F,L,district_admin,,").errors == ()


@pytest.mark.parametrize("source", ["app", "clever"])
def test_a_username_of_a_user_who_was_not_imported(world: World, source: str) -> None:
    """R8.2: an active user keeps the name; a deleted one's is free."""
    world.execute("insert into app.users (district_id, username, source) values (:id, 'Ann ', :source)", source=source)
    assert refused(world, ANN) == [(2, "username", "belongs to a user who was not imported")]
    world.execute("update app.users set deleted_at = now()")
    assert people(run(world, ANN)) == (1, 0, 0, 0)
    assert world.usernames() == ["Ann ", "ann"]


def test_a_deleted_imported_user_is_restored(world: World) -> None:
    """R8.2: under the same user id, protected again, with the roles of the file."""
    run(world, ANN, SAM)
    user_id = world.rows("select user_id from app.users where username = 'ann'")
    world.execute("update app.users set deleted_at = now(), protected = false")
    world.execute("update app.user_roles set deleted_at = now()")
    report = run(world, "ann,Ann,Lee,teacher,North,ann@example.org")
    assert people(report) == (0, 1, 0, 0)
    ann, sam = world.user("ann"), world.user("sam")
    assert (ann["is_active"], ann["protected"], ann["roles"]) == (True, True, ["teacher North csv"])
    assert world.rows("select user_id from app.users where username = 'ann'") == user_id
    assert (sam["is_active"], sam["roles"]) == (False, [])


def test_of_several_deleted_imported_users_the_last_one_is_restored(world: World) -> None:
    """Ties are bugs: the latest deletion, then the newest row; an active one goes before all of them."""
    world.execute("""
        insert into app.users (district_id, username, first_name, source, deleted_at) values
            (:id, 'ann', 'old', 'csv', '2020-01-01'), (:id, 'ann', 'newer', 'csv', '2021-01-02'),
            (:id, 'ann', 'newest', 'csv', '2021-01-02'), (:id, 'sam', 'deleted', 'csv', '2021-01-01'), (:id, 'sam', 'active', 'csv', null)
    """)
    newest = world.rows("select user_id from app.users where first_name in ('newest', 'active') order by username")
    assert people(run(world, ANN, SAM)) == (0, 1, 1, 0)
    assert world.rows("select user_id from app.users where deleted_at is null order by username") == newest


def test_who_was_deactivated_on_purpose_stays_so(world: World) -> None:
    """R8.3, R8.2."""
    run(world, ANN)
    world.execute("update app.users set deleted_at = now(), do_not_restore = true")
    assert refused(world, ANN) == [(2, "username", "belongs to a user whom support has deactivated on purpose")]


def test_protection_that_support_has_taken_away_stays_away(world: World) -> None:
    """R8.1: people are protected from the start; after that the flag is support's."""
    run(world, ANN)
    world.execute("update app.users set protected = false")
    assert people(run(world, ANN)) == (0, 0, 0, 1)
    assert people(run(world, "ann,Anna,Lee,teacher,North,")) == (0, 0, 1, 0)
    assert world.user("ann")["protected"] is False


def test_roles_from_elsewhere_are_left_alone(world: World) -> None:
    """R8.2: an active role is not taken over, a deleted one comes back as an imported one, and a student stays a student."""
    run(world, SAM)
    world.execute("insert into app.user_roles (user_id, role, source) select user_id, 'account_owner', 'app' from app.users")
    world.execute("""
        insert into app.user_roles (user_id, role, school_id, source, deleted_at)
        select u.user_id, 'teacher', s.school_id, 'app', case when s.name = 'South' then now() end from app.users u, app.schools s
    """)
    assert people(run(world, "sam,Sam,Roe,teacher,North,", "sam,Sam,Roe,teacher,South,")) == (0, 0, 1, 0)
    sam = world.user("sam")
    assert sam["roles"] == ["account_owner app", "student South csv", "teacher North app", "teacher South csv"]
    assert (sam["license_status"], sam["school"]) == ("licensed", "South")


def test_admins_are_admins(world: World) -> None:
    """R8.2: `roster admins import` takes two roles."""
    roles = "must be one of: school_admin, district_admin"
    report = run(world, SUE, DORA, ANN, SAM, kind="admins")
    assert report.errors == (RowError(4, "role", roles), RowError(5, "role", roles))
    assert world.usernames() == ["dora", "sue"]


def test_users_only_where_the_profile_has_them(world: World) -> None:
    """SPEC 1, R8.2: a profile's field decides, and a district can override it."""
    world.agree(profile="typing_agent")
    with pytest.raises(PermanentError, match="typing_agent has no users from CSV"):
        run(world, SUE)
    assert run(world, SUE, kind="admins").created == 1
    assert world.user("sue")["login_methods"] == ["password"]
    world.agree(profile="typing_agent", users_csv=True)
    assert run(world, ANN).created == 1


def test_a_district_whose_students_have_one_school_and_no_email(world: World) -> None:
    """R5.8, R3.4: imports do not bring in what the district's rules keep out of a sync."""
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
    assert refused(world, "sam,Sam,Roe,student,North,") == [(2, "school", one)]
    assert people(run(world, SAM)) == (0, 0, 0, 1)


def test_login_methods_are_the_districts(world: World) -> None:
    """R5.9: in its order, without `clever`, and `google` needs an e-mail."""
    world.agree(login_methods=["classlink", "google", "clever", "microsoft"])
    run(world, ANN, SUE)
    assert world.user("ann")["login_methods"] == ["classlink", "google", "microsoft"]
    assert world.user("sue")["login_methods"] == ["classlink", "microsoft"]


def test_a_district_without_agreement_or_unknown(world: World) -> None:
    """R8.2: nothing is known about how its people sign in."""
    world.execute("insert into app.districts (clever_id, name) values ('d3', 'Requested')")
    with pytest.raises(PermanentError, match="no profile"):
        run(world, SUE, district="d3", kind="admins")
    with pytest.raises(UnknownDistrictError):
        run(world, SUE, district="d4")


def test_never_beside_a_sync(world: World) -> None:
    """R11.2: refused with exit status 4 while the district's lock is held, another district's does not matter, a preview does not ask."""
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
            pass  # the import has given it back


def test_all_or_nothing_when_the_database_refuses(world: World) -> None:
    """R8.2: people without their roles never stay behind, and the message names no value."""
    world.execute("alter table app.user_roles add constraint no_teachers check (role <> 'teacher')")
    before = world.everything()
    with pytest.raises(PermanentError) as raised:
        run(world, SAM, "zmarker,Zmarker,Lee,teacher,North,")
    assert "no_teachers" in str(raised.value)
    assert "marker" not in str(raised.value).lower()
    assert world.everything() == before


def test_nothing_personal_in_logs_and_errors(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """SPEC 12: ids, lines and counts only; the preview's people are the one exception."""
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


class Rows(io.RawIOBase):
    """A file of so many people that is never in memory as a whole."""

    def __init__(self, people: int) -> None:
        self._lines = self._generate(people)
        self._rest = b""

    @staticmethod
    def _generate(people: int) -> Iterator[bytes]:
        yield b"username,first_name,last_name,role,school,email\n"
        for number in range(people):
            yield f"u{number},First{number},Last{number},{'student' if number % 10 else 'teacher'},North,u{number}@example.org\n".encode()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while len(self._rest) < len(buffer) and (line := next(self._lines, None)):
            self._rest += line
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def test_a_large_file_is_streamed(world: World) -> None:
    """R8.2: four times the people take no more memory of this process."""

    def peak(number: int, **how: bool) -> tuple[ImportReport, int]:
        tracemalloc.start()
        try:
            report = import_people(world.database, SETTINGS, DISTRICT, io.BufferedReader(Rows(number)), "users", **how)
            return report, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    _, small = peak(10_000, preview=True)
    report, large = peak(40_000)
    assert people(report) == (40_000, 0, 0, 0)
    assert large < 1.3 * small, (small, large)


def test_a_preview_shows_a_bounded_number_of_people(world: World) -> None:
    """The counts say how many there are."""
    report = import_people(world.database, SETTINGS, DISTRICT, io.BufferedReader(Rows(PREVIEW_PEOPLE + 1)), "users", preview=True)
    assert (report.created, len(report.people)) == (PREVIEW_PEOPLE + 1, PREVIEW_PEOPLE)
    assert [person.line for person in report.people] == sorted(person.line for person in report.people)
