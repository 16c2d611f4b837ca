"""The same district rostered row by row with SQLAlchemy's ORM: `python -m benchmarks.with_orm DISTRICT`, a step of the benchmark.

Written as an application would: get or create every record by district and Clever id, set its attributes, flush; commit after every page;
at the end soft-delete whoever was not seen. SQLAlchemy writes only attributes that differ. The rows go into the product's own tables, under
a district of their own, and are the same as a sync's (`--collections` changes the way, not the rows).

- by default every row is got or created on its own, roles and enrollments too.
- `--collections`: roles of a person and enrollments of a section are loaded with one SELECT each, as a careful developer would.

It knows the rules that a generated district needs (the profile `typing_agent`), and has no holds, adoptions, relinks, licenses or history.
"""

import argparse
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.measure import print_figures, written
from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.clever.records import School, Section, User, UserWithoutEmail
from roster_pipeline.database.engine import Database, open_database
from roster_pipeline.settings import Settings
from roster_pipeline.source.vocabulary import Collection

NAME = "Rostered row by row"
COMMIT_EVERY = 10_000  # records, which is a page

Person = User | UserWithoutEmail


class Base(DeclarativeBase):
    """The columns that are read or set here."""

    type_annotation_map = {datetime: sa.DateTime(timezone=True), list[str]: ARRAY(sa.Text)}  # noqa: RUF012  (SQLAlchemy's own attribute)


class SchoolRow(Base):
    """app.schools."""

    __tablename__ = "schools"
    __table_args__ = {"schema": "app"}  # noqa: RUF012
    school_id: Mapped[int] = mapped_column(primary_key=True)
    district_id: Mapped[int]
    clever_id: Mapped[str]
    name: Mapped[str | None]
    source: Mapped[str]
    deleted_at: Mapped[datetime | None]


class ClassroomRow(Base):
    """app.classrooms."""

    __tablename__ = "classrooms"
    __table_args__ = {"schema": "app"}  # noqa: RUF012
    classroom_id: Mapped[int] = mapped_column(primary_key=True)
    district_id: Mapped[int]
    clever_id: Mapped[str]
    school_id: Mapped[int]
    name: Mapped[str | None]
    source: Mapped[str]
    deleted_at: Mapped[datetime | None]


class UserRow(Base):
    """app.users."""

    __tablename__ = "users"
    __table_args__ = {"schema": "app"}  # noqa: RUF012
    user_id: Mapped[int] = mapped_column(primary_key=True)
    district_id: Mapped[int]
    clever_id: Mapped[str]
    username: Mapped[str | None]
    first_name: Mapped[str | None]
    middle_name: Mapped[str | None]
    last_name: Mapped[str | None]
    email: Mapped[str | None]
    sis_id: Mapped[str | None]
    state_id: Mapped[str | None]
    student_number: Mapped[str | None]
    grade: Mapped[str | None]
    school_id: Mapped[int | None]
    source: Mapped[str]
    license_status: Mapped[str | None]
    login_methods: Mapped[list[str]]
    deleted_at: Mapped[datetime | None]


class RoleRow(Base):
    """app.user_roles. Has no primary key that the ORM could update by: a district-wide role has no school."""

    __tablename__ = "user_roles"
    __table_args__ = {"schema": "app"}  # noqa: RUF012
    user_id: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)
    school_id: Mapped[int | None] = mapped_column(primary_key=True, nullable=True)
    district_id: Mapped[int]
    source: Mapped[str]
    deleted_at: Mapped[datetime | None]


class EnrollmentRow(Base):
    """app.enrollments."""

    __tablename__ = "enrollments"
    __table_args__ = {"schema": "app"}  # noqa: RUF012
    classroom_id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)
    district_id: Mapped[int]
    is_primary: Mapped[bool]
    source: Mapped[str]
    deleted_at: Mapped[datetime | None]


class Importer:
    """One run over one district, page by page.

    Args:
        collections: load roles of a person and enrollments of a section with one SELECT each.
    """

    def __init__(self, session: Session, district_id: int, *, collections: bool) -> None:
        self._session = session
        self._district_id = district_id
        self._collections = collections
        self._now: datetime = session.execute(sa.select(sa.func.now())).scalar_one()
        self._records = 0
        self._schools: dict[str, int] = {}
        self._classrooms: set[int] = set()
        self._users: dict[str, int] = {}
        self._roles: set[tuple[int, str, int | None]] = set()
        self._enrollments: set[tuple[int, int, str]] = set()

    def schools(self, records: Sequence[School]) -> None:
        """Get or create every school."""
        for record in records:
            row = self._session.scalars(sa.select(SchoolRow).filter_by(district_id=self._district_id, clever_id=record.id)).one_or_none()
            if row is None:
                row = SchoolRow(district_id=self._district_id, clever_id=record.id)
                self._session.add(row)
            row.name, row.source, row.deleted_at = clean(record.name), "clever", None
            self._session.flush()
            self._schools[record.id] = row.school_id
            self._commit_now_and_then()

    def people(self, records: Sequence[Person]) -> None:
        """Get or create every user who has a role, and the roles. Of one name only a single claimant gets it."""
        rostered = {record.id: roles for record in records if (roles := self._listed_roles(record))}
        # First, because a newcomer may have the username of somebody who has left.
        for user in self._session.scalars(sa.select(UserRow).filter_by(district_id=self._district_id, deleted_at=None)):
            if user.clever_id not in rostered:
                user.deleted_at = self._now
        claims = Counter(name_key(wanted_name(record)) for record in records if record.id in rostered)
        for record in records:
            if record.id not in rostered:
                continue
            row = self._session.scalars(sa.select(UserRow).filter_by(district_id=self._district_id, clever_id=record.id)).one_or_none()
            if row is None:
                row = UserRow(district_id=self._district_id, clever_id=record.id)
                self._session.add(row)
            self._describe(row, record, is_alone=claims[name_key(wanted_name(record))] == 1)
            self._session.flush()
            self._users[record.id] = row.user_id
            self._give_roles(row.user_id, rostered[record.id])
            self._commit_now_and_then()

    def sections(self, records: Sequence[Section]) -> None:
        """Get or create every classroom of a rostered school, and its enrollments."""
        for record in records:
            school_id = self._schools.get(record.school or "")
            if school_id is None:
                continue
            row = self._session.scalars(sa.select(ClassroomRow).filter_by(district_id=self._district_id, clever_id=record.id)).one_or_none()
            if row is None:
                row = ClassroomRow(district_id=self._district_id, clever_id=record.id)
                self._session.add(row)
            row.school_id, row.name, row.source, row.deleted_at = school_id, clean(record.name), "clever", None
            self._session.flush()
            self._classrooms.add(row.classroom_id)
            self._enroll(row.classroom_id, school_id, record)
            self._commit_now_and_then()

    def end(self) -> None:
        """Soft-delete whatever else was not seen."""
        session, live = self._session, {"district_id": self._district_id, "deleted_at": None}
        for enrollment in session.scalars(sa.select(EnrollmentRow).filter_by(**live)):
            if (enrollment.classroom_id, enrollment.user_id, enrollment.role) not in self._enrollments:
                enrollment.deleted_at = self._now
        for role in session.scalars(sa.select(RoleRow).filter_by(**live)):
            if (role.user_id, role.role, role.school_id) not in self._roles:
                self._set_role(role.user_id, role.role, role.school_id, self._now)
        for classroom in session.scalars(sa.select(ClassroomRow).filter_by(**live)):
            if classroom.classroom_id not in self._classrooms:
                classroom.deleted_at = self._now
        for school in session.scalars(sa.select(SchoolRow).filter_by(**live)):
            if school.clever_id not in self._schools:
                school.deleted_at = self._now
        session.commit()

    def _listed_roles(self, record: Person) -> list[tuple[str, int | None]]:
        """The roles at schools that are rostered: a student's at the primary school."""
        student, teacher, staff = record.roles.student, record.roles.teacher, record.roles.staff
        listed: list[tuple[str, str | None]] = []
        if student:
            listed.append(("student", student.school))
        if teacher:
            listed += [("teacher", school) for school in dict.fromkeys([*teacher.schools, teacher.school])]
        if staff:
            listed += [("school_admin", school) for school in dict.fromkeys(staff.schools)]
        roles: list[tuple[str, int | None]] = [(role, self._schools[school]) for role, school in listed if school in self._schools]
        return [*roles, ("district_admin", None)] if record.roles.district_admin is not None else roles

    def _describe(self, row: UserRow, record: Person, *, is_alone: bool) -> None:
        student, teacher = record.roles.student, record.roles.teacher
        at_school = [role for role in (student, teacher) if role]
        row.username = wanted_name(record) if is_alone else record.id
        row.first_name, row.middle_name, row.last_name = clean(record.name.first), clean(record.name.middle), clean(record.name.last)
        row.email = None if student else clean(getattr(record, "email", None))
        row.sis_id = next((role.sis_id for role in at_school if role.sis_id), None)
        row.state_id = next((role.state_id for role in at_school if role.state_id), None)
        row.student_number = student.student_number if student else None
        row.grade = student.grade if student else None
        row.school_id = next((self._schools.get(role.school) for role in at_school if role.school), None)
        row.source, row.deleted_at = "clever", None
        row.license_status = "licensed" if student else None
        row.login_methods = ["clever"] if row.username == record.id else ["clever", "password"]

    def _give_roles(self, user_id: int, roles: list[tuple[str, int | None]]) -> None:
        query = sa.select(RoleRow).filter_by(user_id=user_id)
        known = {(row.role, row.school_id): row for row in self._session.scalars(query)} if self._collections else {}
        for role, school_id in roles:
            row = known.get((role, school_id))
            if not self._collections:
                row = self._session.scalars(query.filter_by(role=role, school_id=school_id)).one_or_none()
            if row is None:
                values = {"user_id": user_id, "role": role, "school_id": school_id, "district_id": self._district_id, "source": "clever"}
                self._session.add(RoleRow(**values))
            elif row.deleted_at is not None:
                self._set_role(user_id, role, school_id, None)
            self._roles.add((user_id, role, school_id))
        self._session.flush()

    def _set_role(self, user_id: int, role: str, school_id: int | None, deleted_at: datetime | None) -> None:
        same_school = RoleRow.school_id.is_not_distinct_from(school_id)
        statement = sa.update(RoleRow).where(RoleRow.user_id == user_id, RoleRow.role == role, same_school)
        self._session.execute(statement.values(deleted_at=deleted_at), execution_options={"synchronize_session": False})

    def _enroll(self, classroom_id: int, school_id: int, record: Section) -> None:
        query = sa.select(EnrollmentRow).filter_by(classroom_id=classroom_id)
        known = {(row.user_id, row.role): row for row in self._session.scalars(query)} if self._collections else {}
        wanted = [(person, "student", False) for person in record.students]
        wanted += [(person, "teacher", number == 0) for number, person in enumerate(record.teachers)]
        for person, role, is_primary in wanted:
            user_id = self._users.get(person)
            if user_id is None or not self._may_enroll(user_id, role, school_id):
                continue
            key = (classroom_id, user_id, role)
            row = known.get((user_id, role)) if self._collections else self._session.get(EnrollmentRow, key)
            if row is None:
                row = EnrollmentRow(classroom_id=classroom_id, user_id=user_id, role=role, district_id=self._district_id)
                self._session.add(row)
            row.is_primary, row.source, row.deleted_at = is_primary, "clever", None
            self._enrollments.add(key)
            if not self._collections:
                self._session.flush()
        self._session.flush()

    def _may_enroll(self, user_id: int, role: str, school_id: int) -> bool:
        """A student in sections of the own school, a teacher in every section."""
        if role == "student":
            return (user_id, role, school_id) in self._roles
        return any((user_id, role, school) in self._roles for school in self._schools.values())

    def _commit_now_and_then(self) -> None:
        self._records += 1
        if self._records % COMMIT_EVERY == 0:
            self._session.commit()


def clean(text: str | None) -> str | None:
    """As it is stored: NFC, trimmed, no control characters; None when nothing is left."""
    text = re.sub(r"\r\n|[\t\n\v\f\r\x85\u2028\u2029]", " ", unicodedata.normalize("NFC", text or ""))
    return "".join(each for each in text if unicodedata.category(each) != "Cc").strip() or None


def wanted_name(record: Person) -> str:
    """The district's username, or the Clever id: where there is none, and for admins."""
    roles = record.roles
    if roles.district_admin is not None or roles.staff is not None:
        return record.id
    names = (clean(role.credentials.district_username) for role in (roles.student, roles.teacher) if role)
    return next((name for name in names if name), record.id)


def name_key(name: str) -> str:
    """What is equal between two usernames."""
    return unicodedata.normalize("NFKC", name).strip().lower()


def roster_row_by_row(database: Database, settings: Settings, district: str, *, collections: bool) -> dict[str, Any]:
    """One run over the district. Returns its seconds, the rows written in `app`, and WAL bytes."""
    district_id = _own_district(database, district)
    with written(database) as what, Session(database.engine) as session:
        start = time.perf_counter()
        _import(Importer(session, district_id, collections=collections), settings, district)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "rows": dict(what.rows), "wal_bytes": what.wal_bytes}


def _own_district(database: Database, district: str) -> int:
    """The district that the rows belong to: paused, so that nothing else syncs it."""
    statement = sa.text("""
        insert into app.districts (clever_id, name, profile, status) values (:clever_id, :name, 'typing_agent', 'paused')
        on conflict (clever_id) do update set name = excluded.name
        returning district_id
    """)
    with database.engine.begin() as connection:
        return int(connection.execute(statement, {"clever_id": f"{district}-orm", "name": NAME}).scalar_one())


def _import(importer: Importer, settings: Settings, district: str) -> None:
    """Schools as they come; people and sections when everybody is known."""
    people: dict[str, Any] = {}
    sections: list[Any] = []
    with DistrictPull(settings, district, keep_student_email=False) as pull:
        for collection in Collection:
            for page in pull.pages(collection):
                match collection.resource:
                    case "schools":
                        # Each resource has one type of records (`records.record_type`).
                        importer.schools(cast("Sequence[School]", page.records))
                    case "sections":
                        sections += page.records
                    case "users":
                        people |= {record.id: record for record in page.records}
    importer.people(list(people.values()))
    importer.sections(sections)
    importer.end()


def main() -> None:
    """The step in a process of its own; its last line is JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.with_orm")
    parser.add_argument("district")
    parser.add_argument("--collections", action="store_true", help="load roles and enrollments with one SELECT a person and section")
    arguments = parser.parse_args()
    settings = Settings(_env_file=None)
    with open_database(settings) as database:
        print_figures(roster_row_by_row(database, settings, arguments.district, collections=arguments.collections))


if __name__ == "__main__":
    main()
