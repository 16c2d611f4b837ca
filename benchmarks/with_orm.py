"""The same district rostered row by row with SQLAlchemy's ORM: `python -m benchmarks.with_orm DISTRICT`, a step of the benchmark.

It is written as in an application: get or create every record by district and Clever id, set its attributes, flush; commit after every
page; at the end soft-delete the rows that were not in the pull. SQLAlchemy writes only attributes that differ. The rows are in tables of
the product, in a district of their own, and are the same as those of a sync, also with `--collections`.

- By default every row is fetched or created separately, also roles and enrollments.
- `--collections`: one SELECT loads all roles of a person, and one all enrollments of a section, as a careful developer would do it.

It has the rules that a generated district needs (the profile `typing_agent`), and no holds, adoptions, relinks, licenses or history.
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
COMMIT_EVERY = 10_000  # records: one page

Person = User | UserWithoutEmail


class Base(DeclarativeBase):
    """The mapped classes have only the columns that this module reads or sets."""

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
    """app.user_roles. The ORM cannot update by this primary key, because a district-wide role has no school."""

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
    """Rosters one district, page by page.

    Args:
        collections: load all roles of a person, and all enrollments of a section, with one SELECT.
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
        """Gets or creates every school."""
        for record in records:
            row = self._session.scalars(sa.select(SchoolRow).filter_by(district_id=self._district_id, clever_id=record.id)).one_or_none()
            if row is None:
                row = SchoolRow(district_id=self._district_id, clever_id=record.id)
                self._session.add(row)
            row.name, row.source, row.deleted_at = clean(record.name), "clever", None
            self._session.flush()
            self._schools[record.id] = row.school_id
            self._commit_after_a_page()

    def people(self, records: Sequence[Person]) -> None:
        """Gets or creates every user that has a role, and the roles. If several people have one username, none of them gets it."""
        rostered = {record.id: roles for record in records if (roles := self._listed_roles(record))}
        # This comes first, because a new user may have the username of a user who has left.
        for user in self._session.scalars(sa.select(UserRow).filter_by(district_id=self._district_id, deleted_at=None)):
            if user.clever_id not in rostered:
                user.deleted_at = self._now
        claims = Counter(name_key(desired_name(record)) for record in records if record.id in rostered)
        for record in records:
            if record.id not in rostered:
                continue
            row = self._session.scalars(sa.select(UserRow).filter_by(district_id=self._district_id, clever_id=record.id)).one_or_none()
            if row is None:
                row = UserRow(district_id=self._district_id, clever_id=record.id)
                self._session.add(row)
            self._describe(row, record, is_alone=claims[name_key(desired_name(record))] == 1)
            self._session.flush()
            self._users[record.id] = row.user_id
            self._give_roles(row.user_id, rostered[record.id])
            self._commit_after_a_page()

    def sections(self, records: Sequence[Section]) -> None:
        """Gets or creates every classroom of a rostered school, and its enrollments."""
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
            self._commit_after_a_page()

    def end(self) -> None:
        """Soft-deletes the other rows that were not in the pull."""
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
        """The roles at rostered schools. A student has one only at the primary school."""
        student, teacher, staff = record.roles.student, record.roles.teacher, record.roles.staff
        listed: list[tuple[str, str | None]] = []
        if student:
            listed.append(("student", student.school))
        if teacher:
            listed += [("teacher", school) for school in teacher.all_schools or ()]
        if staff:
            listed += [("school_admin", school) for school in dict.fromkeys(staff.all_schools or ())]
        roles: list[tuple[str, int | None]] = [(role, self._schools[school]) for role, school in listed if school in self._schools]
        return [*roles, ("district_admin", None)] if record.roles.district_admin is not None else roles

    def _describe(self, row: UserRow, record: Person, *, is_alone: bool) -> None:
        student, teacher = record.roles.student, record.roles.teacher
        at_school = [role for role in (student, teacher) if role]
        row.username = desired_name(record) if is_alone else record.id
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
        existing = {(row.role, row.school_id): row for row in self._session.scalars(query)} if self._collections else {}
        for role, school_id in roles:
            row = existing.get((role, school_id))
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
        existing = {(row.user_id, row.role): row for row in self._session.scalars(query)} if self._collections else {}
        members = [(person, "student", False) for person in record.students or ()]
        members += [(person, "teacher", number == 0) for number, person in enumerate(record.teachers or ())]
        for person, role, is_primary in members:
            user_id = self._users.get(person)
            if user_id is None or not self._may_enroll(user_id, role, school_id):
                continue
            key = (classroom_id, user_id, role)
            row = existing.get((user_id, role)) if self._collections else self._session.get(EnrollmentRow, key)
            if row is None:
                row = EnrollmentRow(classroom_id=classroom_id, user_id=user_id, role=role, district_id=self._district_id)
                self._session.add(row)
            row.is_primary, row.source, row.deleted_at = is_primary, "clever", None
            self._enrollments.add(key)
            if not self._collections:
                self._session.flush()
        self._session.flush()

    def _may_enroll(self, user_id: int, role: str, school_id: int) -> bool:
        """Whether the user has the role. A student needs it at the section's school, a teacher at any school."""
        if role == "student":
            return (user_id, role, school_id) in self._roles
        return any((user_id, role, school) in self._roles for school in self._schools.values())

    def _commit_after_a_page(self) -> None:
        self._records += 1
        if self._records % COMMIT_EVERY == 0:
            self._session.commit()


def clean(text: str | None) -> str | None:
    """The text as a sync stores it: NFC, trimmed, without control characters; None if nothing is left."""
    text = re.sub(r"\r\n|[\t\n\v\f\r\x85\u2028\u2029]", " ", unicodedata.normalize("NFC", text or ""))
    return "".join(each for each in text if unicodedata.category(each) != "Cc").strip() or None


def desired_name(record: Person) -> str:
    """The district's username. For admins, and people without one, it is the Clever id."""
    roles = record.roles
    if roles.district_admin is not None or roles.staff is not None:
        return record.id
    names = (clean(role.credentials.district_username) for role in (roles.student, roles.teacher) if role)
    return next((name for name in names if name), record.id)


def name_key(name: str) -> str:
    """The key by which usernames are compared."""
    return unicodedata.normalize("NFKC", name).strip().lower()


def roster_row_by_row(database: Database, settings: Settings, district: str, *, collections: bool) -> dict[str, Any]:
    """Rosters the district once. Returns the seconds, the rows written in `app`, and the WAL bytes."""
    district_id = _own_district(database, district)
    with written(database) as what, Session(database.engine) as session:
        start = time.perf_counter()
        _import(Importer(session, district_id, collections=collections), settings, district)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "rows": dict(what.rows), "wal_bytes": what.wal_bytes}


def _own_district(database: Database, district: str) -> int:
    """The district that the rows belong to. It is paused, so that no sync changes it."""
    statement = sa.text("""
        insert into app.districts (clever_id, name, profile, status) values (:clever_id, :name, 'typing_agent', 'paused')
        on conflict (clever_id) do update set name = excluded.name
        returning district_id
    """)
    with database.engine.begin() as connection:
        return int(connection.execute(statement, {"clever_id": f"{district}-orm", "name": NAME}).scalar_one())


def _import(importer: Importer, settings: Settings, district: str) -> None:
    """Imports schools page by page; people and sections at the end, when all people are known."""
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
    """Runs the step. The last line of its output is JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.with_orm")
    parser.add_argument("district")
    parser.add_argument(
        "--collections", action="store_true", help="load roles with one SELECT per person, and enrollments with one per section"
    )
    arguments = parser.parse_args()
    settings = Settings(_env_file=None)
    with open_database(settings) as database:
        print_figures(roster_row_by_row(database, settings, arguments.district, collections=arguments.collections))


if __name__ == "__main__":
    main()
