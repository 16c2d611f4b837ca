"""One import: the rows of a file -> `app`, in one transaction (R8.2).

Belongs here: who may import what, the order of the steps, the district's lock, and the report. Does not belong here: the file's form
(`reader.py`), and the rules for what is refused and written. These are the SQL files of this folder: one SELECT for each temporary table
`import_...`, and one `write_...` for each table of `app`.

    file -> lock -> [ rows -> ... -> refused -> accepted -> ended -> roles -> people -> write_... ] -> unlock      [ ] is one transaction
"""

import hashlib
import io
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import psycopg
import pyarrow
import pyarrow.compute as pc
import pyarrow.csv
import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.audit import record_act
from roster_pipeline.database.engine import Database, psycopg_connection
from roster_pipeline.database.lock import district_lock
from roster_pipeline.database.migrate import require_current_schema
from roster_pipeline.database.session import own_session, own_transaction
from roster_pipeline.districts.agreement import District, find_district
from roster_pipeline.errors import PermanentError
from roster_pipeline.people.invisible import invisible
from roster_pipeline.people.reader import COLUMNS, PersonRow, RowError, read_rows
from roster_pipeline.profiles import Profile
from roster_pipeline.settings import Settings
from roster_pipeline.sync.frames import clean_text
from roster_pipeline.sync.session import one_state, sync_session

log = logging.getLogger(__name__)

Kind = Literal["admins", "users"]
ROLES: Mapping[Kind, tuple[str, ...]] = {
    "admins": ("school_admin", "district_admin"),
    "users": ("student", "teacher", "school_admin", "district_admin"),
}
# So many people, and roles that end, a report names.
PREVIEW_PEOPLE = 1_000

_BATCH_ROWS = 5_000
_PLAN = ("rows", "faults", "conflicts", "decided", "blocked", "seats", "refused", "accepted", "ended", "roles", "people")
_WRITE = ("write_users", "write_roles")
# Each action of people.sql, and the name of its count in a report.
_ACTIONS = {"create": "created", "restore": "restored", "update": "updated", "none": "unchanged"}
_COUNT = "select action, count(*) as people from pg_temp.import_people group by action"
_COUNT_ENDED = (
    "select count(*) filter (where ends) as roles_ended, count(*) filter (where not ends) as roles_left from pg_temp.import_ended"
)
_COUNT_BEYOND = """
    select count(*) from pg_temp.import_seats
    where is_beyond and (is_refused or username_key in (select username_key from pg_temp.import_accepted where role = 'student'))
"""


class PlannedPerson(NamedTuple):
    """A person that the import would write. Personal data: only for the terminal of the user who runs the preview (SPEC 12).

    line: the person's first row in the file.
    action: `create`, `restore` or `update`.
    changed: the columns of `app.users` that differ; empty for a person to create.
    roles: all active roles after the import, like `teacher at North`.
    ends: the roles that the import ends, in the same form.
    """

    line: int
    action: str
    username: str
    first_name: str
    last_name: str
    changed: list[str]
    roles: list[str]
    ends: list[str]


class EndedRole(NamedTuple):
    """An imported role that the file no longer gives to a person in it.

    line: the person's first row in the file.
    school: its name; None for a role of the whole district.
    """

    line: int
    role: str
    school: str | None


@dataclass(frozen=True)
class ImportReport:
    """The result of an import, or of a preview. All rows of one username are one person.

    Attributes:
        is_written: whether the good rows were imported. False in a preview, and in a strict import with errors, where all counts of people
            are 0.
        created: number of new people.
        restored: number of people who were soft-deleted.
        updated: number of people with a changed column, a new role, or a role that ends.
        unchanged: number of people who need no change.
        refused: number of rows that are not imported.
        errors: in the order of lines and columns; a refused row can have several.
        roles_ended: number of imported roles that the file no longer gives to the people in it.
        roles_left: number of such roles that stay, because a row of their person is refused, or one that can be anybody's.
        beyond_licenses: number of students without a free license. The district's policy decides: they are imported, wait, or are refused.
        ended: the first PREVIEW_PEOPLE of the roles that end.
        people: in a preview, the first PREVIEW_PEOPLE people that the import would write.
    """

    district: District
    is_written: bool
    created: int
    restored: int
    updated: int
    unchanged: int
    refused: int
    errors: tuple[RowError, ...]
    roles_ended: int = 0
    roles_left: int = 0
    beyond_licenses: int = 0
    ended: tuple[EndedRole, ...] = ()
    people: tuple[PlannedPerson, ...] = ()


def import_people(
    database: Database,
    settings: Settings,
    reference: str,
    source: IO[bytes],
    kind: Kind,
    *,
    strict: bool = False,
    preview: bool = False,
    by: str | None = None,
    file_name: str = "-",
) -> ImportReport:
    """Import the people of a CSV file into one district. Adds and updates people; those who are not in the file are left unchanged.

    The file decides the imported roles of the people in it: those that it no longer gives them end. Only one batch of rows and the errors
    are in memory.

    Args:
        reference: the district's Clever id or district id.
        source: the file, open for reading bytes.
        strict: import no row if one is refused.
        preview: write nothing.
        by: who imports, as they say.
        file_name: stored in `ops.audit`.

    Raises:
        UnknownDistrictError: there is no such district.
        PermanentError: the district has no profile, its profile has no users from CSV, or the file's first line is not the header.
        SyncRunningError: a sync of the district, or another import, is running. A preview takes no lock, so it never raises this.
        TransientError: the database failed, or another session has changed the same rows.
    """
    require_current_schema(database)
    with sync_session(database, settings) as connection:
        district = find_district(connection, reference)
        parameters = _parameters(district, _rules(district, kind), kind)
        driver, hashed = psycopg_connection(connection), _Hashed(source)
        with own_transaction(driver, own_session(connection)):
            unreadable = _load(driver, read_rows(io.BufferedReader(hashed)))
        parameters |= {"has_unreadable": bool(unreadable)}
        with nullcontext() if preview else district_lock(connection, district.district_id, district.clever_id), one_state(connection):
            _plan(connection, parameters)
            errors = sorted([*unreadable, *_refusals(connection)], key=_order)
            is_accepted = not (strict and errors)
            report = ImportReport(
                district,
                is_written=is_accepted and not preview,
                refused=len({error.line for error in errors}),
                errors=tuple(errors),
                people=_people(connection, parameters) if is_accepted and preview else (),
                ended=_ended(connection, parameters) if is_accepted else (),
                **(_counts(connection) if is_accepted else dict.fromkeys(_ACTIONS.values(), 0)),
            )
            if report.is_written:
                facts = {"kind": kind, "sha256": hashed.digest(), "strict": strict, **counts_of(report)}
                audit_id = record_act(
                    connection, "import", given_name=by, district_id=district.district_id, subject=f"file {file_name}", facts=facts
                )
                _write(connection, {**parameters, "audit_id": audit_id})
    log.info("district %s: import of %s: %d rows refused, written: %s", district.clever_id, kind, report.refused, report.is_written)
    return report


def counts_of(report: ImportReport) -> dict[str, int]:
    """The numbers of a report, by name."""
    names = (*_ACTIONS.values(), "refused", "roles_ended", "roles_left", "beyond_licenses")
    return {name: getattr(report, name) for name in names}


class _Hashed(io.RawIOBase):
    """A stream that hashes what is read from it. Closing it leaves the stream open."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        read = self._source.read(len(buffer))
        self._hash.update(read)
        buffer[: len(read)] = read
        return len(read)

    def digest(self) -> str:
        """The SHA-256 of everything that was read, in hexadecimal."""
        return self._hash.hexdigest()


def _rules(district: District, kind: Kind) -> Profile:
    """The district's rules; raises PermanentError if they do not allow imports of this kind."""
    rules = district.require_rules()
    if kind == "users" and not rules.users_csv:
        raise PermanentError(
            f"The profile {district.profile} has no users from CSV, only admins.",
            hint="Use `roster admins import`, or set users_csv=true for the district.",
            district=district.clever_id,
        )
    return rules


def _parameters(district: District, rules: Profile, kind: Kind) -> dict[str, Any]:
    return {
        "district_id": district.district_id,
        "roles": list(ROLES[kind]),
        "login_methods": list(rules.login_methods),
        "student_email": rules.student_email,
        "student_multi_school": rules.student_multi_school,
        "preview_people": PREVIEW_PEOPLE,
        "invisible": invisible(),
    }


def _load(connection: "psycopg.Connection[Any]", rows: Iterable[PersonRow | RowError]) -> list[RowError]:
    """Copy the readable rows to a temporary table, cleaned like every text (R4.5). Returns the errors of the other rows."""
    errors: list[RowError] = []
    connection.execute(f"create temporary table import_file (line bigint, {', '.join(f'{column} text' for column in COLUMNS)})".encode())
    with connection.cursor() as cursor, cursor.copy("copy pg_temp.import_file from stdin (format csv)") as copy:
        for batch in _batches(_readable(rows, errors)):
            line, *texts = (pyarrow.array(values) for values in zip(*batch, strict=True))
            cleaned = [clean_text(each) for each in texts]
            # Only now: a row can consist of characters that cleaning removes, such as the end-of-file mark of DOS.
            has_text = reduce(pc.or_, (pc.is_valid(each) for each in cleaned))
            table = pyarrow.table([line, *cleaned], names=PersonRow._fields).filter(has_text)
            buffer = io.BytesIO()
            pyarrow.csv.write_csv(table, buffer, pyarrow.csv.WriteOptions(include_header=False))
            copy.write(buffer.getbuffer())
    connection.execute("analyze pg_temp.import_file")
    return errors


def _readable(rows: Iterable[PersonRow | RowError], errors: list[RowError]) -> Iterator[PersonRow]:
    for row in rows:
        if isinstance(row, RowError):
            errors.append(row)
        else:
            yield row


def _batches(rows: Iterator[PersonRow]) -> Iterator[list[PersonRow]]:
    while batch := list(islice(rows, _BATCH_ROWS)):
        yield batch


def _plan(connection: Connection, parameters: Mapping[str, Any]) -> None:
    for table in _PLAN:
        connection.execute(sa.text(f"create temporary table import_{table} on commit drop as\n{_sql(table)}"), parameters)
        # PostgreSQL never analyses temporary tables by itself. Without statistics the planner would choose nested loops over people.
        connection.exec_driver_sql(f"analyze pg_temp.import_{table}")


def _write(connection: Connection, parameters: Mapping[str, Any]) -> None:
    for statement in _WRITE:
        connection.execute(sa.text(_sql(statement)), parameters)


def _refusals(connection: Connection) -> Iterator[RowError]:
    for row in connection.exec_driver_sql("table pg_temp.import_refused"):
        yield RowError(*row)


def _order(error: RowError) -> tuple[int, int]:
    return error.line, COLUMNS.index(error.column) if error.column else -1


def _counts(connection: Connection) -> dict[str, int]:
    counted = {row.action: row.people for row in connection.exec_driver_sql(_COUNT)}
    ended = connection.exec_driver_sql(_COUNT_ENDED).mappings().one()
    beyond = int(connection.exec_driver_sql(_COUNT_BEYOND).scalar_one())
    return {name: counted.get(action, 0) for action, name in _ACTIONS.items()} | {**ended, "beyond_licenses": beyond}


def _people(connection: Connection, parameters: Mapping[str, Any]) -> tuple[PlannedPerson, ...]:
    return tuple(PlannedPerson(*row) for row in connection.execute(sa.text(_sql("preview")), parameters))


def _ended(connection: Connection, parameters: Mapping[str, Any]) -> tuple[EndedRole, ...]:
    return tuple(EndedRole(*row) for row in connection.execute(sa.text(_sql("ended_roles")), parameters))


def _sql(name: str) -> str:
    return Path(__file__).with_name(f"{name}.sql").read_text(encoding="utf-8")
